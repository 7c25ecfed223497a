"""What a Python sequence model is told: controls, ids, flags, null requests (rules 44 to 46)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.config.spec import (
    ControlKind,
    ControlSpec,
    DirectSpec,
    InstanceKind,
    InstanceSpec,
    ModelSpec,
    SequenceSpec,
    TensorSpec,
)
from shoal.datatypes import DataType
from shoal.execution.messages import Info
from shoal.execution.sequence_inputs import SequenceInputs, sequence_info
from shoal.scheduling.contract import Batch, CloseReason, SequenceTurn
from shoal.testing.in_process import InProcessServer
from tests.backends.model_folders import python_model
from tests.execution.sequence_models import batches_of, part, row, sum_model

IDS = {"UINT32": "uint32", "UINT64": "uint64", "INT32": "int32", "INT64": "int64", "STRING": "object"}


def spec_with(*controls: ControlSpec, max_batch_size: int = 8) -> ModelSpec:
    """A model with these controls, one input each, behind one input of its own."""
    return ModelSpec(
        "m", 1, "python", "python", max_batch_size, (TensorSpec("IN", DataType.FP32, (1,)),),
        (TensorSpec("OUT", DataType.FP32, (1,)),), (InstanceSpec("m_0", InstanceKind.CPU, 0),),
        sequence=SequenceSpec(DirectSpec(), 1, controls),
        made_inputs=tuple(TensorSpec(f"C{index}", each.datatype, (1,)) for index, each in enumerate(controls)),
    )  # fmt: skip


def batch_of(*turns: SequenceTurn) -> Batch:
    return Batch([], len(turns), CloseReason.IDLE, turns)


TURNS = st.builds(SequenceTurn, st.integers(1, 2**64 - 1), st.booleans(), st.booleans(), st.booleans())


@given(
    st.lists(TURNS, min_size=1, max_size=8),
    st.sampled_from([ControlKind.START, ControlKind.END, ControlKind.READY]),
    st.sampled_from([DataType.FP32, DataType.INT32]),
    st.integers(-5, 5),
    st.integers(-5, 5),
)
def test_yes_and_no_are_the_configured_values(turns, kind, datatype, no, yes):
    maker = SequenceInputs(spec_with(ControlSpec(kind, 0, datatype, (no, yes))))
    (made,) = maker(batch_of(*turns))
    said = {ControlKind.START: "start", ControlKind.END: "end", ControlKind.READY: "ready"}[kind]
    expected = [yes if getattr(turn, said) else no for turn in turns]
    assert np.frombuffer(b"".join(made.rows), datatype.numpy).tolist() == expected
    assert (made.input, made.shape) == (1, (len(turns), 1))


@given(st.lists(TURNS, min_size=1, max_size=8), st.sampled_from([t for t in DataType if t.wire in IDS]))
def test_rule_44_long_ids_lose_their_upper_bits_in_short_types(turns, datatype):
    (made,) = SequenceInputs(spec_with(ControlSpec(ControlKind.CORRELATION_ID, 0, datatype)))(batch_of(*turns))
    expected = np.array([turn.correlation_id for turn in turns], np.uint64).astype(datatype.numpy)
    assert np.frombuffer(b"".join(made.rows), datatype.numpy).tolist() == expected.tolist()


def test_rule_44_string_ids_are_bytes_elements_and_an_empty_slot_has_an_empty_one():
    maker = SequenceInputs(spec_with(ControlSpec(ControlKind.CORRELATION_ID, 0, DataType.BYTES)))
    turns = SequenceTurn("né", True, False), SequenceTurn(0, False, False, ready=False)
    (made,) = maker(batch_of(*turns))
    assert made.rows == [b"\x03\0\0\0n\xc3\xa9", b"\0\0\0\0"]


def test_rule_46_without_batching_a_control_has_the_shape_1():
    spec = spec_with(ControlSpec(ControlKind.READY, 0, DataType.BOOL, (False, True)), max_batch_size=0)
    (made,) = SequenceInputs(spec)(batch_of(SequenceTurn(7, True, False)))
    assert (made.rows, made.shape) == ([b"\x01"], (1,))


def test_info_keeps_what_the_plan_says_and_adds_id_and_flags():
    known = Info("r", {"a": 1}, ("OUT",), 2, 3)
    told = sequence_info(known, SequenceTurn("s", True, True))
    assert told == Info("r", {"a": 1}, ("OUT",), 2, 3, "s", 3)
    assert sequence_info(None, SequenceTurn(5, False, True)) == Info(correlation_id=5, flags=2)
    assert sequence_info(known, SequenceTurn(0, False, False, ready=False)) == Info(ready=False)


@pytest.mark.parametrize("id_type", IDS)
def test_rule_46_python_models_see_every_type_of_id(tmp_path: Path, id_type: str):
    folder = sum_model(tmp_path, id_type=id_type)
    number: int | str = "seven" if id_type == "STRING" else 7
    with InProcessServer(tmp_path) as server:
        sums = [
            server.infer("sum", row(value), parameters=part(number, *flags))["OUT"].item()
            for value, flags in ((1, ["start"]), (2, []), (4, ["end"]))
        ]
    assert sums == [1, 3, 7]
    (first,), (second,), (third,) = batches_of(folder)
    assert first["controls"] == {
        "START": ["float32", [1, 1], [1.0]],
        "END": ["int32", [1, 1], [0]],
        "READY": ["bool", [1, 1], [True]],
        "CORRID": [IDS[id_type], [1, 1], [number]],
    }
    assert [each["flags"] for each in (first, second, third)] == [1, 0, 2]
    assert [each["id"] for each in (first, second, third)] == [number] * 3
    assert third["controls"]["START"][2] + third["controls"]["END"][2] == [0.0, 1]


def test_rule_46_a_model_without_batching_gets_controls_without_a_batch_dimension(tmp_path: Path):
    folder = sum_model(tmp_path, strategy="direct { }", max_batch_size=0)
    with InProcessServer(tmp_path) as server:
        assert server.infer("sum", row(3, batched=False), parameters=part(1, "start", "end"))["OUT"].tolist() == [3]
    ((only,),) = batches_of(folder)
    assert only["flags"] == 3
    assert all(shape == [1] for _, shape, _ in only["controls"].values())


def test_direct_fills_empty_slots_with_requests_that_are_not_ready(tmp_path: Path):
    """The second slot's request runs in the second row; the first row is a null request, as in Triton."""
    folder = sum_model(tmp_path, strategy="direct { }")
    with InProcessServer(tmp_path) as server:
        for number in (5, 6):
            server.infer("sum", row(number), parameters=part(number, "start"))
        assert server.infer("sum", row(10), parameters=part(6))["OUT"].item() == 16
        assert server.infer("sum", row(10), parameters=part(5))["OUT"].item() == 15
        statistics = server.call(server.server.statistics, "sum")["model_stats"][0]
    last = batches_of(folder)[2]
    assert [each["id"] for each in last] == [0, 6]
    assert last[0]["controls"] == {
        "START": ["float32", [1, 1], [0.0]],
        "END": ["int32", [1, 1], [0]],
        "READY": ["bool", [1, 1], [False]],
        "CORRID": ["uint64", [1, 1], [0]],
    }
    assert last[0]["outputs"] == [], "nobody asked for the outputs of a null request"
    assert last[1]["outputs"] == ["OUT"]
    assert statistics["inference_stats"]["success"]["count"] == 4, "null requests are not counted"


RAGGED = """
backend: "python"
max_batch_size: 4
input [ { name: "IN" data_type: TYPE_FP32 dims: [ -1 ] allow_ragged_batch: true } ]
output [ { name: "OUT" data_type: TYPE_STRING dims: [ 1 ] } ]
sequence_batching {
  max_sequence_idle_microseconds: 60000000
  direct { max_queue_delay_microseconds: 20000000 minimum_slot_utilization: 0.75 }
  control_input [
    { name: "START" control [ { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } ] },
    { name: "CORRID" control [ { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_STRING } ] }
  ]
  state [ {
    input_name: "S" output_name: "S_OUT" data_type: TYPE_FP32 dims: [ 1 ] use_same_buffer_for_input_output: true
  } ]
}
"""
RAGGED_CODE = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.tell(request, len(requests)) for request in requests]

    def tell(self, request, together):
        tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        tensors["S"] += tensors["IN"].sum()
        told = [together, tensors["START"].item(), tensors["CORRID"].item().decode(), tensors["S"].item()]
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array([[str(told).encode()]], object))])
"""


def test_controls_and_states_of_ragged_requests(tmp_path: Path):
    """Requests of different lengths share a batch, and each finds its own controls and state."""
    python_model(tmp_path, RAGGED_CODE, RAGGED)
    with InProcessServer(tmp_path) as server:
        for start in (1, 0):
            flags = ["start"] if start else []
            pending = [server.submit("m", row(*[1] * size), parameters=part("x" * size, *flags)) for size in (1, 2, 3)]
            told = [each.outputs()["OUT"].item().decode() for each in pending]
            assert told == [str([3, start, "x" * size, float(size * (2 - start))]) for size in (1, 2, 3)]


def test_rule_46_controls_are_absent_from_metadata(tmp_path: Path):
    sum_model(tmp_path)
    with InProcessServer(tmp_path) as server:
        metadata = server.call(server.server.model_metadata, "sum")
    assert [tensor["name"] for tensor in metadata["inputs"]] == ["IN"]
