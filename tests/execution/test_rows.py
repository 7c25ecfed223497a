"""Rows go into a batch and come back to their owners, whatever the sizes, types and number of requests."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.backends.contract import BatchResult, RequestResult
from shoal.config.spec import InstanceKind, InstanceSpec, ModelSpec, TensorSpec
from shoal.datatypes import DataType
from shoal.errors import InvalidArgumentError, ModelError
from shoal.execution.arena import Arena
from shoal.execution.blocks import InstanceBlocks
from shoal.execution.gather import Gatherer, OutputSizes
from shoal.execution.instance_loop import InstanceLoop
from shoal.execution.messages import BatchDone, RoomGranted, RoomNeeded, RunBatch, frame
from shoal.execution.scatter import Scatterer
from shoal.requests import LATEST, InferHead, InferRequest, InferResponse, InputHead, OutputHead
from shoal.scheduling.admission import plan_request
from shoal.scheduling.contract import Batch, CloseReason
from shoal.testing.in_process import array_of, wire_bytes

TENSORS = (TensorSpec("NUMBERS", DataType.FP32, (-1,)), TensorSpec("WORDS", DataType.BYTES, (2,)))
SPEC = ModelSpec(
    name="echo",
    version=3,
    backend="python",
    platform="python",
    max_batch_size=64,
    inputs=TENSORS,
    outputs=TENSORS,
    instances=(InstanceSpec("echo_0", InstanceKind.CPU, 0),),
)


class Echo:
    """Gives every input back, gathered or request by request."""

    def __init__(self, gathered: bool) -> None:
        self.gathered = gathered

    def execute(self, batch, room):
        if self.gathered:
            outputs = {}
            for name, array in batch.inputs.items():
                given = room.array(name, array.shape, array.dtype)
                if given is not None:
                    given[...] = array
                outputs[name] = array if given is None else given
            return BatchResult(gathered=outputs)
        results, start = [], 0
        for rows in batch.rows:
            cut = {name: array[start : start + rows] for name, array in batch.inputs.items()}
            start += rows
            failing = rows == 3
            error = InvalidArgumentError("three rows are refused") if failing else None
            results.append(RequestResult({} if failing else cut, error))
        return BatchResult(per_request=results)

    def close(self):
        """Nothing to release."""


class OneProcess:
    """Both ends of a channel in one process, over a real arena."""

    def __init__(self, gathered: bool) -> None:
        self.arena = Arena(1 << 28)
        self.blocks = InstanceBlocks(self.arena)
        self.gatherer = Gatherer(SPEC, self.arena.mapping, takes_pieces=False)
        self.scatterer = Scatterer(SPEC)
        self.loop = InstanceLoop(Echo(gathered), (-1, -1), SPEC, self.arena.mapping)
        self.loop._room._grow = self.grow

    def grow(self, nbytes: int) -> tuple[int, int]:
        block = self.blocks.more_output_room(nbytes)
        return block.offset, block.nbytes

    def run(self, requests: list[InferRequest]):
        batch = Batch(requests, sum(request.plan.rows for request in requests), CloseReason.FULL)
        data = self.gatherer.message(batch, self.blocks)
        done = self.loop._serve(msgspec.msgpack.decode(data[4:], type=RunBatch))
        done = msgspec.msgpack.decode(frame(done)[4:], type=BatchDone)
        answers = self.scatterer.answers(batch, done, self.blocks)
        self.gatherer.sizes.learn(done, batch.rows)
        self.blocks.end_batch()
        return answers

    def close(self) -> None:
        self.blocks.release()
        self.arena.close()


def make_request(arrays: dict[str, np.ndarray], outputs: tuple[str, ...] = (), request_id: str = "") -> InferRequest:
    heads, payload = [], []
    for name, array in arrays.items():
        datatype, data = wire_bytes(name, array)
        heads.append(InputHead(name, datatype, array.shape, len(data)))
        payload.append(data)
    head = InferHead("echo", LATEST, request_id, tuple(heads), tuple(OutputHead(name) for name in outputs))
    return InferRequest(plan_request(head, SPEC, None), payload, None, None, 0)


def arrays_of(response: InferResponse) -> dict[str, np.ndarray]:
    return {
        tensor.name: array_of(tensor.datatype, tensor.shape, data)
        for tensor, data in zip(response.layout.outputs, response.data, strict=True)
    }


@settings(max_examples=60, deadline=None)
@given(
    gathered=st.booleans(),
    batches=st.lists(
        st.tuples(
            st.integers(0, 6) | st.sampled_from([0, 5000, 20_000]),
            st.lists(
                st.tuples(st.integers(1, 4), st.sampled_from([(), ("WORDS",), ("NUMBERS",)])), min_size=1, max_size=8
            ),
        ),
        min_size=1,
        max_size=4,
    ),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_request_gets_its_own_rows_back(gathered, batches, seed):
    random = np.random.default_rng(seed)
    process = OneProcess(gathered)
    try:
        for columns, shapes in batches:
            made = []
            for rows, outputs in shapes:
                numbers = random.random((rows, columns), np.float32)
                words = np.array(
                    [[random.bytes(int(random.integers(9))) for _ in range(2)] for _ in range(rows)], object
                )
                made.append(({"NUMBERS": numbers, "WORDS": words}, outputs, rows))
            requests = [make_request(arrays, outputs, str(n)) for n, (arrays, outputs, _) in enumerate(made)]
            for (arrays, outputs, rows), answer in zip(made, process.run(requests), strict=True):
                if not gathered and rows == 3:
                    assert isinstance(answer, ModelError)
                    assert answer.message == "three rows are refused"
                    continue
                assert isinstance(answer, InferResponse)
                got = arrays_of(answer)
                assert set(got) == set(outputs or arrays)
                for name, array in got.items():
                    np.testing.assert_array_equal(array, arrays[name])
                assert answer.layout.model_version == 3
    finally:
        process.close()


def test_repeated_requests_share_one_message_and_different_ones_do_not():
    process = OneProcess(gathered=True)
    try:
        first = make_request({"NUMBERS": np.ones((1, 4), np.float32), "WORDS": np.array([[b"a", b"b"]], object)})
        again = InferRequest(first.plan, [np.full(4, 7, np.float32).tobytes(), first.payload[1]], None, None, 0)
        for _ in range(2):
            assert arrays_of(process.run([first])[0])["NUMBERS"].tolist() == [[1, 1, 1, 1]]
            assert arrays_of(process.run([again])[0])["NUMBERS"].tolist() == [[7, 7, 7, 7]]
            both = [arrays_of(one)["NUMBERS"][0, 0] for one in process.run([again, first])]
            assert both == [7, 1]
    finally:
        process.close()


def test_large_tensors_are_neither_copied_in_nor_out():
    """A tensor that arrived in shared memory is read there; a large output leaves as a view of its block."""
    process = OneProcess(gathered=True)
    try:
        array = np.random.default_rng(5).random((1, 50_000), np.float32)
        request = make_request({"NUMBERS": array, "WORDS": np.array([[b"a", b"b"]], object)})
        arrived = process.arena.lend(process.arena.allocate(array.nbytes))[: array.nbytes]
        arrived[:] = array.tobytes()
        request.payload = [arrived, request.payload[1]]
        data = process.gatherer.message(Batch([request], 1, CloseReason.FULL), process.blocks)
        place = msgspec.msgpack.decode(data[4:], type=RunBatch).inputs[0]
        assert place[1] == process.arena.mapping.offset_of(arrived)
        answer = process.run([request])[0]
        assert process.arena.mapping.offset_of(answer.data[0]) >= 0
        np.testing.assert_array_equal(arrays_of(answer)["NUMBERS"], array)
        used = process.arena.used_nbytes
        del answer
        assert process.arena.used_nbytes < used
    finally:
        request.payload = []
        del arrived
        process.close()


def test_an_output_of_another_type_fails_its_batch():
    class Wrong(Echo):
        def execute(self, batch, room):
            return BatchResult(gathered={"NUMBERS": batch.inputs["NUMBERS"].astype(np.float64)})

    process = OneProcess(gathered=True)
    try:
        process.loop._instance = Wrong(gathered=True)
        request = make_request({"NUMBERS": np.ones((1, 2), np.float32), "WORDS": np.array([[b"a", b"b"]], object)})
        answer = process.run([request])[0]
        assert isinstance(answer, ModelError)
        assert "float64" in answer.message
    finally:
        process.close()


@pytest.mark.parametrize("message", [RoomNeeded(5), RoomGranted(1, 2)])
def test_room_messages_survive_the_wire(message):
    assert msgspec.msgpack.decode(frame(message)[4:], type=type(message)) == message


def test_a_request_id_that_is_no_utf8_does_no_harm():
    process = OneProcess(gathered=True)
    try:
        arrays = {"NUMBERS": np.ones((1, 2), np.float32), "WORDS": np.array([[b"a", b"b"]], object)}
        answer = process.run([make_request(arrays, request_id="\udcff")])[0]
        np.testing.assert_array_equal(arrays_of(answer)["NUMBERS"], arrays["NUMBERS"])
    finally:
        process.close()


def test_one_large_output_does_not_make_every_later_batch_ask_for_as_much():
    sizes = OutputSizes(SPEC)
    sizes.learn(BatchDone(0, 0, 0, [(0, 0, 300_000_000, (1, 75_000_000))]), 1)
    assert sizes.estimate_nbytes(64) < 100_000_000
    for _ in range(2000):
        sizes.learn(BatchDone(0, 0, 0, [(0, 0, 64, (1, 16))]), 1)
    assert sizes.estimate_nbytes(1) < 10_000
