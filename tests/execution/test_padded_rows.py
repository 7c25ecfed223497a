"""Requests of unequal lengths are padded into a batch and cut back, whatever their types, ranks, rows and lengths."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.backends.contract import BatchResult, RequestResult
from shoal.config.padding import PaddedInput, PaddedLength, PaddedOutput, PaddingSpec
from shoal.config.padding_check import LENGTH_TYPES, MASK_TYPES, element
from shoal.config.spec import InstanceKind, InstanceSpec, ModelSpec, TensorSpec
from shoal.datatypes import DataType
from shoal.errors import InternalError
from shoal.execution.arena import Arena
from shoal.execution.blocks import InstanceBlocks
from shoal.execution.gather import Gatherer
from shoal.execution.instance_loop import InstanceLoop
from shoal.execution.messages import BatchDone, RunBatch, frame
from shoal.execution.scatter import Scatterer
from shoal.requests import LATEST, InferHead, InferRequest, InputHead
from shoal.scheduling.admission import plan_request
from shoal.scheduling.contract import Batch, CloseReason
from shoal.testing.in_process import array_of
from shoal.testing.strategies import wire_bytes

FILL = {DataType.BYTES: "pad", DataType.BOOL: True}


@dataclass(frozen=True)
class Layout:
    """A model that pads: one variable dimension among fixed ones, and a second input that is as long."""

    datatype: DataType = DataType.FP32
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    multiple_of: int = 1
    mask: DataType = DataType.INT64
    length: DataType = DataType.INT64
    flat: bool = False

    @property
    def axis(self) -> int:
        return 1 + len(self.before)

    @property
    def value(self) -> bytes:
        return element(self.datatype, FILL.get(self.datatype, 5))

    def spec(self) -> ModelSpec:
        dims = (*self.before, -1, *self.after)
        second = PaddedInput(1, 1, element(DataType.INT32, -1))
        length = PaddedLength(
            inputs=(PaddedInput(0, self.axis, self.value), second),
            multiple_of=self.multiple_of,
            mask=3,
            lengths=4,
            outputs=(PaddedOutput(0, self.axis), PaddedOutput(1, 1)),
        )
        return ModelSpec(
            name="padded",
            version=1,
            backend="onnxruntime",
            platform="onnxruntime_onnx",
            max_batch_size=64,
            inputs=(
                TensorSpec("X", self.datatype, dims),
                TensorSpec("Y", DataType.INT32, (-1,)),
                TensorSpec("Z", DataType.FP32, (2,)),
            ),
            made_inputs=(
                TensorSpec("MASK", self.mask, (-1,)),
                TensorSpec("LENGTH", self.length, (1,), reshape=() if self.flat else None),
            ),
            outputs=(
                TensorSpec("X2", self.datatype, dims),
                TensorSpec("Y2", DataType.INT32, (-1,)),
                TensorSpec("Z2", DataType.FP32, (2,)),
            ),
            instances=(InstanceSpec("padded_0", InstanceKind.CPU, 0),),
            padding=PaddingSpec((length,)),
        )


@dataclass
class Echo:
    """Gives X, Y and Z back, and keeps what it saw."""

    gathered: bool = True
    cut_itself: bool = False
    seen: list[dict[str, np.ndarray]] = field(default_factory=list)

    def execute(self, batch, room):
        self.seen.append({name: array.copy() for name, array in batch.inputs.items()})
        outputs = {name + "2": batch.inputs[name] for name in "XYZ"}
        if self.gathered:
            return BatchResult(gathered=outputs)
        ends = np.cumsum(batch.rows)
        results = []
        for end, rows in zip(ends, batch.rows, strict=True):
            own = {name: array[end - rows : end] for name, array in outputs.items()}
            if self.cut_itself:
                own["Y2"] = own["Y2"][:, : int(batch.inputs["LENGTH"].reshape(-1)[end - 1])]
            results.append(RequestResult(own))
        return BatchResult(per_request=results)

    def close(self):
        """Nothing to release."""


class Pipe:
    """The way of a batch in one process, over a real arena."""

    def __init__(self, layout: Layout, model: object) -> None:
        self.layout, self.spec, self.model = layout, layout.spec(), model
        self.arena = Arena(1 << 28)
        self.blocks = InstanceBlocks(self.arena)
        self.gatherer = Gatherer(self.spec, self.arena.mapping, takes_pieces=False)
        self.scatterer = Scatterer(self.spec)
        self.loop = InstanceLoop(model, (-1, -1), self.spec, self.arena.mapping)
        self.loop._room._grow = self.grow

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.blocks.release()
        self.arena.close()

    def grow(self, nbytes):
        block = self.blocks.more_output_room(nbytes)
        return block.offset, block.nbytes

    def request(self, rows: int, length: int, data: bytes) -> InferRequest:
        layout = self.layout
        shape = (rows, *layout.before, length, *layout.after)
        y = np.arange(rows * length, dtype="<i4").tobytes()
        z = np.arange(rows * 2, dtype="<f4").tobytes()
        heads = (
            InputHead("X", layout.datatype, shape, len(data)),
            InputHead("Y", DataType.INT32, (rows, length), len(y)),
            InputHead("Z", DataType.FP32, (rows, 2), len(z)),
        )
        return InferRequest(
            plan_request(InferHead("padded", LATEST, "", heads), self.spec, None), [data, y, z], None, None, 0
        )

    def run(self, requests):
        batch = Batch(requests, sum(request.plan.rows for request in requests), CloseReason.FULL)
        data = self.gatherer.message(batch, self.blocks)
        done = self.loop._serve(msgspec.msgpack.decode(data[4:], type=RunBatch))
        done = msgspec.msgpack.decode(frame(done)[4:], type=BatchDone)
        assert not done.status, done.message
        answers = self.scatterer.answers(batch, done, self.blocks)
        self.blocks.end_batch()
        return batch, answers


SMALL = st.lists(st.integers(1, 3), max_size=2).map(tuple)
LAYOUTS = st.builds(
    Layout,
    datatype=st.sampled_from(DataType),
    before=SMALL,
    after=SMALL,
    multiple_of=st.integers(1, 5),
    mask=st.sampled_from(sorted(MASK_TYPES, key=lambda each: each.wire)),
    length=st.sampled_from(sorted(LENGTH_TYPES, key=lambda each: each.wire)),
    flat=st.booleans(),
)
SIZES = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 7)), min_size=1, max_size=6)


@settings(max_examples=250, deadline=None)
@given(layout=LAYOUTS, sizes=SIZES, gathered=st.booleans(), cut_itself=st.booleans(), drawn=st.data())
def test_padded_rows_come_back_cut_and_the_model_sees_mask_lengths_and_padding(
    layout, sizes, gathered, cut_itself, drawn
):
    model = Echo(gathered, cut_itself)
    with Pipe(layout, model) as pipe:
        width = int(np.prod((*layout.before, *layout.after)))
        requests = []
        for rows, length in sizes:
            data = drawn.draw(wire_bytes(layout.datatype, rows * length * width))
            requests.append(pipe.request(rows, length, data))
        batch, answers = pipe.run(requests)
        lengths = np.repeat([length for _, length in sizes], [rows for rows, _ in sizes])
        padded = -(-max(lengths) // layout.multiple_of) * layout.multiple_of
        check_seen(layout, model.seen[0], requests, lengths, padded)
        assert batch.elements == sum(rows * length for rows, length in sizes) * width
        assert batch.padded_elements == len(lengths) * padded * width
        for request, answer in zip(requests, answers, strict=True):
            assert [bytes(data) for data in answer.data] == [bytes(data) for data in request.payload]
            given = [tensor.shape for tensor in request.plan.head.inputs]
            assert [tensor.shape for tensor in answer.layout.outputs] == given


def check_seen(layout, seen, requests, lengths, padded):
    """The model's inputs are the requests' rows, filled up; the mask and the lengths are exact."""
    real = np.arange(padded) < lengths[:, None]
    one = 0x3F80 if layout.mask is DataType.BF16 else 1
    assert seen["MASK"].tolist() == (real * one).tolist()
    assert seen["MASK"].dtype == np.dtype(layout.mask.numpy or "u2")
    assert seen["LENGTH"].reshape(-1).tolist() == lengths.tolist()
    assert seen["LENGTH"].shape == ((len(lengths),) if layout.flat else (len(lengths), 1))
    x = np.moveaxis(seen["X"], layout.axis, 1)
    rows = [row for request in requests for row in rows_of(layout, request)]
    value = array_of(layout.datatype, (1,), layout.value)[0]
    for row, expected, mask in zip(x, rows, real, strict=True):
        assert (
            row[mask].tobytes() == expected.tobytes()
            if not row.dtype.hasobject
            else row[mask].tolist() == expected.tolist()
        )
        assert all(np.all(filled == value) for filled in row[~mask])
    assert (seen["Y"][~real] == -1).all()


def rows_of(layout, request):
    shape = request.plan.inputs[0].shape
    array = array_of(layout.datatype, shape, request.payload[0])
    return [np.ascontiguousarray(row) for row in np.moveaxis(array, layout.axis, 1)]


def test_long_requests_are_copied_one_by_one_and_large_outputs_leave_as_views():
    layout = Layout(after=(64,))
    with Pipe(layout, Echo()) as pipe:
        random = np.random.default_rng(3)
        requests = [
            pipe.request(rows, length, random.random((rows, length, 64), np.float32).tobytes())
            for rows, length in ((1, 300), (2, 999), (1, 1000))
        ]
        _, answers = pipe.run(requests)
        for request, answer in zip(requests, answers, strict=True):
            assert bytes(answer.data[0]) == bytes(request.payload[0])


class Shrinks(Echo):
    """Gives one element less than it was given."""

    def execute(self, batch, room):
        result = super().execute(batch, room)
        if result.gathered is not None:
            result.gathered["Y2"] = result.gathered["Y2"][:, 1:]
        else:
            result.per_request[0].outputs["Y2"] = result.per_request[0].outputs["Y2"][:, 1:]
        return result


@pytest.mark.parametrize("gathered", [True, False])
def test_an_output_that_does_not_follow_the_length_is_an_error_that_says_so(gathered):
    with Pipe(Layout(), Shrinks(gathered)) as pipe:
        requests = [pipe.request(1, length, bytes(4 * length)) for length in (2, 6)]
        _, answers = pipe.run(requests)
        assert isinstance(answers[0], InternalError)
        assert "gave output 'Y2' the shape" in answers[0].message
        assert "dimension 1 must be 6" in answers[0].message
