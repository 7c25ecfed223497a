"""Implicit state: kept by the server from request to request, for ONNX and Python models (section 1.6 of Triton)."""

from __future__ import annotations

import gc
import struct
from pathlib import Path

import numpy as np
import pytest

from shoal.errors import ConfigError, InvalidArgumentError, ModelError, ShoalError
from shoal.execution.runtime import ModelRuntime
from shoal.testing.in_process import InProcessServer, PendingAnswer
from tests.execution.models import write_model
from tests.execution.sequence_models import (
    CONTROLLED_CONFIG,
    IDLE,
    accumulator,
    collector,
    controlled,
    part,
    row,
    state_config,
)

LARGE = 64 * 1024
"""Elements of a state that is long enough to stay in shared memory: 256 KiB."""

DIRECT_TOGETHER = "direct { max_queue_delay_microseconds: 20000000 minimum_slot_utilization: 0.5 }"
"""With max_batch_size 4 a batch waits until two sequences have a request."""


def kept_states(server: InProcessServer, model: str) -> int:
    """How many sequences the server keeps states for."""
    runtime = server.server.catalog.find(model, -1).runtime
    return server.call(lambda: len(runtime._sequences._states))


def in_shared_memory(runtime: ModelRuntime) -> bool:
    """Whether the one state of the one sequence is a view of shared memory."""
    ((state,),) = runtime._sequences._states._kept.values()
    return runtime.arena.mapping.offset_of(state.data) >= 0


def out(pending: PendingAnswer, name: str = "OUT") -> list[float]:
    return pending.outputs()[name].reshape(-1).tolist()


def run(server: InProcessServer, model: str, values: list[float], number: int, **request: object) -> list[float]:
    """A whole sequence of one row and one number at a time; gives the outputs' first elements."""
    sums = []
    for index, value in enumerate(values):
        flags = (["start"] if index == 0 else []) + (["end"] if index == len(values) - 1 else [])
        answer = server.infer(model, row(value, value), parameters=part(number, *flags), **request)
        sums.append(answer["OUT"].flat[0].item())
    return sums


def test_interleaved_sequences_have_states_of_their_own(tmp_path: Path):
    accumulator(tmp_path)
    with InProcessServer(tmp_path) as server:
        for step in range(4):
            flags = (["start"] if step == 0 else []) + (["end"] if step == 3 else [])
            pending = [
                server.submit("accumulator", row(step, number), parameters=part(number, *flags)) for number in (1, 2, 3)
            ]
            expected = [[sum(range(step + 1)), number * (step + 1)] for number in (1, 2, 3)]
            assert [out(each) for each in pending] == expected
        assert kept_states(server, "accumulator") == 0, "ended sequences leave nothing behind"
        assert server.server.catalog.find("accumulator", -1).runtime._sequences._begun_ns == {}


def test_a_state_output_is_not_public_unless_it_is_listed(tmp_path: Path):
    accumulator(tmp_path)
    accumulator(tmp_path, state_config(output="2"), name="public")
    with InProcessServer(tmp_path) as server:
        metadata = server.call(server.server.model_metadata, "accumulator")
        assert [tensor["name"] for tensor in metadata["outputs"]] == ["OUT"]
        assert [tensor["name"] for tensor in metadata["inputs"]] == ["IN"]
        assert list(server.infer("accumulator", row(1, 2), parameters=part(1, "start"))) == ["OUT"]
        answer = server.infer("public", row(1, 2), parameters=part(1, "start"))
        assert answer["S_OUT"].tolist() == answer["OUT"].tolist() == [[1, 2]]


def test_states_are_computed_when_a_client_asks_for_other_outputs(tmp_path: Path):
    accumulator(tmp_path, state_config(output="2"))
    with InProcessServer(tmp_path) as server:
        assert run(server, "accumulator", [1, 2, 4], 9, outputs=["OUT"]) == [1, 3, 7]
        assert list(server.infer("accumulator", row(1, 1), parameters=part(2, "start"), outputs=["S_OUT"])) == ["S_OUT"]


def test_a_new_start_resets_the_state_of_a_live_sequence(tmp_path: Path):
    accumulator(tmp_path)
    with InProcessServer(tmp_path) as server:
        for expected, flags in (([1], ["start"]), ([2], []), ([1], ["start"]), ([2], ["end"])):
            answer = server.infer("accumulator", row(1, 1), parameters=part(1, *flags))
            assert answer["OUT"].flat[0] == expected[0]


def test_the_first_state_comes_from_a_file_and_what_follows_in_it_is_left_alone(tmp_path: Path):
    initial = 'initial_state: [ { name: "first" data_type: TYPE_FP32 dims: [ 2 ] data_file: "values" } ]'
    folder = accumulator(tmp_path, state_config(extra=initial))
    (folder / "initial_state").mkdir()
    (folder / "initial_state" / "values").write_bytes(struct.pack("<3f", 100, 200, 300))
    with InProcessServer(tmp_path) as server:
        assert server.infer("accumulator", row(1, 2), parameters=part(1, "start"))["OUT"].tolist() == [[101, 202]]
        assert server.infer("accumulator", row(1, 2), parameters=part(1))["OUT"].tolist() == [[102, 204]]
        assert server.infer("accumulator", row(0, 0), parameters=part(2, "start"))["OUT"].tolist() == [[100, 200]]


def test_a_model_without_batching_keeps_states_too(tmp_path: Path):
    accumulator(tmp_path, state_config(max_batch_size=0, strategy="direct { }"), batched=False)
    with InProcessServer(tmp_path) as server:
        for expected, flags in ((3, ["start"]), (6, []), (9, ["end"])):
            answer = server.infer("accumulator", row(3, 3, batched=False), parameters=part("s", *flags))
            assert answer["OUT"].tolist() == [expected, expected]


def test_a_growing_state_grows_and_rows_of_one_size_run_together(tmp_path: Path):
    collector(tmp_path, state_config("-1", strategy=DIRECT_TOGETHER))
    with InProcessServer(tmp_path) as server:
        for step in range(3):
            flags = ["start"] if step == 0 else []
            pending = [
                server.submit("collector", row(step * 10 + number), parameters=part(number, *flags))
                for number in (1, 2)
            ]
            expected = [[0, *(10 * each + number for each in range(step + 1))] for number in (1, 2)]
            assert [out(each) for each in pending] == expected


def test_states_of_different_shapes_in_one_batch_are_refused_and_stay_as_they_were(tmp_path: Path):
    collector(tmp_path, state_config("-1", strategy=DIRECT_TOGETHER))
    with InProcessServer(tmp_path) as server:
        long, short = part(1), part(2)
        pending = [server.submit("collector", row(5), parameters=part(n, "start")) for n in (1, 3)]
        assert [out(each) for each in pending] == [[0, 5], [0, 5]]
        pending = [
            server.submit("collector", row(6), parameters=each) for each in (long, short | {"sequence_start": True})
        ]
        for each in pending:
            with pytest.raises(
                InvalidArgumentError, match=r"different shapes in input 'S', \[2\] and \[1\].*max_batch"
            ):
                each.outputs()
        pending = [server.submit("collector", row(6), parameters=part(n)) for n in (1, 3)]
        assert [out(each) for each in pending] == [[0, 5, 6], [0, 5, 6]]


def test_large_states_stay_in_shared_memory_and_their_memory_is_freed(tmp_path: Path):
    accumulator(tmp_path, width=LARGE)
    values = {"IN": np.arange(LARGE, dtype=np.float32)[None]}
    with InProcessServer(tmp_path) as server:
        runtime = server.server.catalog.find("accumulator", -1).runtime
        used = []
        for number in range(1, 6):
            for step in range(1, 4):
                flags = [*(["start"] if step == 1 else []), *(["end"] if step == 3 else [])]
                answer = server.infer("accumulator", values, parameters=part(number, *flags))
                assert np.array_equal(answer["OUT"], values["IN"] * step)
                if step < 3:
                    assert server.call(in_shared_memory, runtime), "it stays where the model wrote it"
            assert kept_states(server, "accumulator") == 0
            del answer
            gc.collect()  # an answer, its request and the future that held it know each other
            used.append(server.call(lambda: runtime.arena.used_nbytes))
        assert used[-1] == used[1], "nothing piles up"


def test_large_states_of_several_sequences_in_one_batch(tmp_path: Path):
    accumulator(tmp_path, state_config(str(LARGE), strategy=DIRECT_TOGETHER), width=LARGE)
    values = {"IN": np.arange(LARGE, dtype=np.float32)[None]}
    with InProcessServer(tmp_path) as server:
        for step in range(1, 4):
            flags = ["start"] if step == 1 else []
            pending = [server.submit("accumulator", values, parameters=part(number, *flags)) for number in (1, 2)]
            for each in pending:
                assert np.array_equal(each.outputs()["OUT"], values["IN"] * step)


FAILING = """
class TritonPythonModel:
    def execute(self, requests):
        return [self.add(request) for request in requests]

    def add(self, request):
        state = pb_utils.get_input_tensor_by_name(request, "S").as_numpy()
        number = value(request)
        if (number < 0).any():
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("negative"))
        if (number > 1000).any():
            raise ValueError("too large")
        new = state + number
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", new), pb_utils.Tensor("S_OUT", new)])
"""
STATE = 'state [ { input_name: "S" output_name: "S_OUT" data_type: TYPE_FP32 dims: [ 1 ] %s } ]'


def test_a_failed_request_leaves_the_state_as_it_was(tmp_path: Path):
    write_model(tmp_path, "m", FAILING, dims="1", more=f"sequence_batching {{ {IDLE} oldest {{ }} {STATE % ''} }}")
    with InProcessServer(tmp_path) as server:
        assert server.infer("m", row(5), parameters=part(1, "start"))["OUT"].item() == 5
        for wrong, message in ((-1, "negative"), (2000, "too large")):
            with pytest.raises(ModelError, match=message):
                server.infer("m", row(wrong), parameters=part(1))
        assert server.infer("m", row(2), parameters=part(1))["OUT"].item() == 7


IN_PLACE = """
class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            state = pb_utils.get_input_tensor_by_name(request, "S").as_numpy()
            state += value(request)
            responses.append(answer(state.copy()))
        return responses
"""


def test_with_a_single_buffer_what_the_model_writes_in_place_is_the_next_state(tmp_path: Path):
    single = STATE % "use_same_buffer_for_input_output: true"
    write_model(tmp_path, "single", IN_PLACE, dims="1", more=f"sequence_batching {{ {IDLE} oldest {{ }} {single} }}")
    write_model(
        tmp_path, "double", IN_PLACE, dims="1", more=f"sequence_batching {{ {IDLE} oldest {{ }} {STATE % ''} }}"
    )
    with InProcessServer(tmp_path) as server:
        for model, expected in (("single", [1, 3, 7]), ("double", [1, 2, 4])):
            found = []
            for number, flags in ((1, ["start"]), (2, []), (4, ["end"])):
                found.append(server.infer(model, row(number), parameters=part(1, *flags))["OUT"].item())
            assert found == expected, model


JOINING = """
class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            words = pb_utils.get_input_tensor_by_name(request, "S").as_numpy()
            new = np.array([[words[0, 0] + str(int(value(request)[0, 0])).encode()]], object)
            length = np.array([[len(new[0, 0])]], np.float32)
            outputs = [pb_utils.Tensor("OUT", length), pb_utils.Tensor("S_OUT", new)]
            responses.append(pb_utils.InferenceResponse(outputs))
        return responses
"""


def test_states_of_strings(tmp_path: Path):
    state = 'state [ { input_name: "S" output_name: "S_OUT" data_type: TYPE_STRING dims: [ 1 ] } ]'
    more = f"sequence_batching {{ {IDLE} {DIRECT_TOGETHER} {state} }}"
    write_model(tmp_path, "m", JOINING, max_batch_size=4, dims="1", more=more)
    with InProcessServer(tmp_path) as server:
        for length in (1, 2, 3):
            flags = ["start"] if length == 1 else []
            pending = [server.submit("m", row(7 * number), parameters=part(number, *flags)) for number in (1, 2)]
            assert [out(each) for each in pending] == [[length], [2 * length]], (
                "7 and 14 were put behind what was there"
            )


def test_a_state_of_another_shape_than_configured_fails_its_request_alone(tmp_path: Path):
    code = """
class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse([
            pb_utils.Tensor("OUT", value(request)),
            pb_utils.Tensor("S_OUT", np.zeros((1, int(value(request)[0, 0])), np.float32)),
        ]) for request in requests]
"""
    write_model(tmp_path, "m", code, dims="1", more=f"sequence_batching {{ {IDLE} oldest {{ }} {STATE % ''} }}")
    with InProcessServer(tmp_path) as server:
        assert server.infer("m", row(1), parameters=part(1, "start"))["OUT"].item() == 1
        with pytest.raises(ModelError, match=r"state output 'S_OUT' the shape \[3\].*configuration says \[1\]"):
            server.infer("m", row(3), parameters=part(1))
        assert server.infer("m", row(1), parameters=part(1))["OUT"].item() == 1


def test_onnx_controls_and_completion(tmp_path: Path):
    """Nothing but the sequence batcher is configured: the public tensors come from the model, the others stay out."""
    controlled(tmp_path, CONTROLLED_CONFIG)
    with InProcessServer(tmp_path) as server:
        metadata = server.call(server.server.model_metadata, "controlled")
        assert [tensor["name"] for tensor in metadata["inputs"]] == ["IN"]
        assert [tensor["name"] for tensor in metadata["outputs"]] == ["OUT", "WHO"]
        for number in (3, 4):
            assert server.infer("controlled", row(1), parameters=part(number, "start"))["OUT"].item() == 1
        for number in (4, 3):
            answer = server.infer("controlled", row(2), parameters=part(number, "end"))
            assert (answer["OUT"].item(), answer["WHO"].item()) == (3, number)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "fp32_false_true",
            "int32_false_true",
            "'START'.*TYPE_INT32, but the model has TYPE_FP32; use fp32_false_true",
        ),
        ("TYPE_UINT64", "TYPE_INT32", "'CORRID'.*TYPE_INT32, but the model has TYPE_UINT64; write data_type"),
        ('name: "START"', 'name: "STRAT"', "'STRAT'.*no input of this name; did you mean 'START'"),
        ("TYPE_FP32 dims: [ 1 ]", "TYPE_INT32 dims: [ 1 ]", "'S': the configuration's data_type is TYPE_INT32"),
        ("TYPE_FP32 dims: [ 1 ]", "TYPE_FP32 dims: [ 3 ]", r"'S': the configuration's shape is \[-1, 3\]"),
        ('output_name: "S_OUT"', 'output_name: "T_OUT"', "no output 'T_OUT'; did you mean 'S_OUT'"),
    ],
)
def test_onnx_controls_and_states_are_checked_against_the_model(tmp_path: Path, old: str, new: str, message: str):
    assert old in CONTROLLED_CONFIG
    controlled(tmp_path, CONTROLLED_CONFIG.replace(old, new))
    with pytest.raises(ShoalError, match=message), InProcessServer(tmp_path):
        pass


def test_a_state_file_that_is_too_short_is_a_problem_of_the_configuration(tmp_path: Path):
    initial = 'initial_state: [ { name: "first" data_type: TYPE_FP32 dims: [ 2 ] data_file: "values" } ]'
    folder = accumulator(tmp_path, state_config(extra=initial))
    (folder / "initial_state").mkdir()
    (folder / "initial_state" / "values").write_bytes(b"1234")
    with pytest.raises(ShoalError, match="has 4 bytes, but the shape") as caught, InProcessServer(tmp_path):
        pass
    assert not isinstance(caught.value, ConfigError) or caught.value.problems
