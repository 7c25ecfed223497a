"""What admission plans: shapes for the backend, batch keys, payload layout, priority and timeout.

The texts of refusals are in tests/conformance/test_admission_texts.py, beside the real server's.
"""

from __future__ import annotations

from dataclasses import replace
from struct import pack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from queued_requests import NOBODY

from shoal.config.spec import BatchingSpec, InstanceKind, InstanceSpec, ModelSpec, TensorSpec
from shoal.datatypes import DataType, element_count
from shoal.errors import InvalidArgumentError
from shoal.requests import LATEST, InferHead, InferRequest, InputHead, OutputHead
from shoal.scheduling.admission import check_payload, plan_raw_request, plan_request, raw_payload
from shoal.scheduling.make import make_scheduler
from shoal.testing.strategies import model_specs, sample_requests

INT32, FP32, BYTES = DataType.INT32, DataType.FP32, DataType.BYTES


def spec_of(*inputs: TensorSpec, max_batch_size: int = 8, batching: BatchingSpec | None = None) -> ModelSpec:
    outputs = (TensorSpec("X", FP32, (1,)), TensorSpec("Y", FP32, (1,)))
    instance = InstanceSpec("m_0", InstanceKind.CPU, 0)
    return ModelSpec("m", 1, "python", "python", max_batch_size, inputs, outputs, (instance,), batching)


def given_input(name: str, *shape: int, datatype: DataType = INT32) -> InputHead:
    return InputHead(name, datatype, shape, element_count(shape) * datatype.itemsize)


def head_of(*inputs: InputHead, outputs: tuple[OutputHead, ...] = (), **parameters) -> InferHead:
    return InferHead("m", LATEST, "", inputs, outputs, parameters)


def plan(spec: ModelSpec, *inputs: InputHead, **more):
    return plan_request(head_of(*inputs, **more), spec, NOBODY)


def test_inputs_are_planned_in_the_models_order_with_the_requests_positions():
    spec = spec_of(TensorSpec("A", INT32, (1,)), TensorSpec("B", INT32, (2,)))
    made = plan(spec, given_input("B", 3, 2), given_input("A", 3, 1))
    assert [(each.index, each.shape, each.position) for each in made.inputs] == [(0, (3, 1), 1), (1, (3, 2), 0)]
    assert made.payload_nbytes == (24, 12)
    assert (made.rows, made.batch_key, made.outputs) == (3, (), (0, 1))


def test_data_in_the_head_takes_no_payload_buffer():
    spec = spec_of(TensorSpec("A", INT32, (1,)), TensorSpec("B", INT32, (1,)))
    made = plan(spec, InputHead("A", INT32, (1, 1), 0, b"\1\0\0\0"), given_input("B", 1, 1))
    assert [(each.position, each.data) for each in made.inputs] == [(-1, b"\1\0\0\0"), (0, None)]
    assert made.payload_nbytes == (4,)


def test_rule_30_data_in_the_head_is_checked_with_it():
    spec = spec_of(TensorSpec("A", INT32, (1,)), TensorSpec("B", BYTES, (1,)))
    good = InputHead("B", BYTES, (1, 1), 0, pack("<I", 1) + b"x")
    assert plan(spec, given_input("A", 1, 1), good).bytes_inputs == ()
    with pytest.raises(InvalidArgumentError, match="Expected 4, got 3"):
        plan(spec, InputHead("A", INT32, (1, 1), 0, b"\1\0\0"), good)
    with pytest.raises(InvalidArgumentError, match=r"expected 1 string elements .* 'B' .* got 0"):
        plan(spec, given_input("A", 1, 1), replace(good, data=b""))


def test_rule_27_without_batching_the_whole_shape_is_the_models_and_rows_are_one():
    made = plan(spec_of(TensorSpec("A", INT32, (-1, 2)), max_batch_size=0), given_input("A", 5, 2))
    assert (made.rows, made.inputs[0].shape, made.batch_key) == (1, (5, 2), ())


@pytest.mark.parametrize("shape", [(0, 16), (0, 0)])
def test_rule_27_a_batch_of_no_rows_is_refused(shape):
    spec = spec_of(TensorSpec("A", INT32, (-1,)))
    head = InputHead("A", INT32, shape, 4 * element_count(shape[1:]))
    with pytest.raises(InvalidArgumentError, match="batch-size must be >= 1 for 'm'"):
        plan(spec, head)


@pytest.mark.parametrize("shape", [(1, -1), (-1, 16), (1, -2)])
def test_rule_29_negative_dimensions_are_refused(shape):
    spec = spec_of(TensorSpec("A", INT32, (-1,)))
    with pytest.raises(InvalidArgumentError, match="All input dimensions should be specified for input 'A'"):
        plan(spec, InputHead("A", INT32, shape, 64))


def test_rule_33_reshape_takes_variable_dimensions_in_order():
    spec = spec_of(TensorSpec("A", INT32, (-1, 1, -1), reshape=(-1, -1)), TensorSpec("B", INT32, (1,), reshape=()))
    made = plan(spec, given_input("A", 2, 3, 1, 4), given_input("B", 2, 1))
    assert [each.shape for each in made.inputs] == [(2, 3, 4), (2,)]
    assert made.batch_key == ((3, 4),)


def test_rule_34_outputs_come_in_the_models_order_and_once():
    spec = spec_of(TensorSpec("A", INT32, (1,)))
    asked = (OutputHead("Y"), OutputHead("X"), OutputHead("Y"))
    assert plan(spec, given_input("A", 1, 1), outputs=asked).outputs == (0, 1)
    assert plan(spec, given_input("A", 1, 1), outputs=asked[:1]).outputs == (1,)


def test_rule_35_tensors_without_elements_are_legal():
    spec = spec_of(TensorSpec("A", INT32, (-1, 4)), TensorSpec("B", BYTES, (-1,)))
    made = plan(spec, given_input("A", 2, 0, 4), given_input("B", 2, 0, datatype=BYTES))
    assert [each.shape for each in made.inputs] == [(2, 0, 4), (2, 0)]
    check_payload(InferRequest(made, (b"", b""), NOBODY, None, 0))


def test_batch_key_has_the_variable_shapes_but_not_of_ragged_inputs():
    spec = spec_of(
        TensorSpec("A", INT32, (-1, 2)),
        TensorSpec("B", INT32, (2,)),
        TensorSpec("C", INT32, (-1,), allow_ragged_batch=True),
    )
    first = plan(spec, given_input("A", 1, 3, 2), given_input("B", 1, 2), given_input("C", 1, 9))
    other_rows = plan(spec, given_input("A", 4, 3, 2), given_input("B", 4, 2), given_input("C", 4, 5))
    other_shape = plan(spec, given_input("A", 1, 4, 2), given_input("B", 1, 2), given_input("C", 1, 9))
    assert first.batch_key == other_rows.batch_key != other_shape.batch_key


def test_rule_32_batch_key_has_the_inputs_that_are_there():
    spec = spec_of(TensorSpec("A", INT32, (1,)), *(TensorSpec(name, INT32, (1,), optional=True) for name in "BC"))
    keys = [plan(spec, *(given_input(name, 1, 1) for name in names)).batch_key for names in ("A", "AB", "AC", "ABC")]
    assert len(set(keys)) == 4
    assert plan(spec, given_input("B", 2, 1), given_input("A", 2, 1)).batch_key == keys[1]


def test_shape_tensors_have_no_batch_dimension_and_must_agree_in_content():
    spec = spec_of(
        TensorSpec("A", INT32, (1,)), TensorSpec("S", INT32, (2,), is_shape_tensor=True), batching=BatchingSpec()
    )
    made = plan(spec, given_input("A", 2, 1), given_input("S", 2))
    assert (made.rows, made.inputs[1].shape) == (2, (2,))
    scheduler = make_scheduler(spec)
    for content in (b"same", b"same", b"else"):
        scheduler.enqueue(InferRequest(made, (bytes(8), content * 2), NOBODY, None, 0), 0)
    assert [len(scheduler.take(0).requests) for _ in range(2)] == [2, 1]


@pytest.mark.parametrize(("asked", "level"), [(0, 2), (1, 1), (2, 2), (3, 3), (4, 2), (10**6, 2)])
def test_rule_36_priority_becomes_a_level(asked, level):
    spec = spec_of(TensorSpec("A", INT32, (1,)), batching=BatchingSpec(priority_levels=3, default_priority_level=2))
    assert plan(spec, given_input("A", 1, 1), priority=asked).priority == level


def test_rule_36_without_levels_priority_is_ignored():
    tensor = TensorSpec("A", INT32, (1,))
    for spec in (spec_of(tensor), spec_of(tensor, batching=BatchingSpec())):
        assert plan(spec, given_input("A", 1, 1), priority=7).priority == 0


def test_rule_37_timeout_is_in_microseconds():
    spec = spec_of(TensorSpec("A", INT32, (1,)))
    assert plan(spec, given_input("A", 1, 1), timeout=1500).timeout_us == 1500
    assert plan(spec, given_input("A", 1, 1)).timeout_us == 0


@pytest.mark.parametrize("name", ["priority", "timeout"])
@pytest.mark.parametrize("value", [-1, 1.5, "7", True])
def test_schedule_parameters_must_be_whole_numbers(name, value):
    with pytest.raises(InvalidArgumentError, match=f"parameter '{name}' must be a whole number"):
        plan(spec_of(TensorSpec("A", INT32, (1,))), given_input("A", 1, 1), **{name: value})


@pytest.mark.parametrize(
    ("tensor", "max_batch_size", "body", "shape", "payload"),
    [
        (TensorSpec("A", FP32, (2,)), 4, bytes(8), (1, 2), bytes(8)),
        (TensorSpec("A", FP32, (-1, 4)), 4, bytes(48), (1, 3, 4), bytes(48)),
        (TensorSpec("A", FP32, (-1, 4)), 0, b"", (0, 4), b""),
        (TensorSpec("A", FP32, (-1, 1), reshape=(-1,)), 4, bytes(12), (1, 3), bytes(12)),
        (TensorSpec("A", BYTES, (1,)), 4, b"hello", (1, 1), b"\5\0\0\0hello"),
        (TensorSpec("A", BYTES, (1,)), 0, b"", (1,), b"\0\0\0\0"),
    ],
)
def test_rule_2_raw_body_decides_the_shape(tensor, max_batch_size, body, shape, payload):
    spec = spec_of(tensor, max_batch_size=max_batch_size)
    made = plan_raw_request(replace(head_of(), raw=True), len(body), spec, NOBODY)
    assert (made.rows, made.inputs[0].shape, made.inputs[0].position) == (1, shape, 0)
    assert raw_payload(made, body) == [payload]
    assert made.payload_nbytes == (len(payload),)
    assert made.bytes_inputs == ()


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_every_request_that_fits_its_model_is_admitted_with_a_consistent_plan(data):
    spec = data.draw(model_specs())
    sample = data.draw(sample_requests(spec))
    made = plan_request(sample.head, spec, NOBODY)
    request = InferRequest(made, sample.payload, NOBODY, None, 0)
    check_payload(request)
    assert made.payload_nbytes == tuple(map(len, sample.payload))
    assert [each.index for each in made.inputs] == sorted(each.index for each in made.inputs)
    given_inputs = {tensor.name: tensor for tensor in sample.head.inputs}
    in_payload = [tensor.name for tensor in sample.head.inputs if tensor.data is None]
    for planned in made.inputs:
        tensor = given_inputs.pop(spec.inputs[planned.index].name)
        assert element_count(planned.shape) == element_count(tensor.shape)
        assert planned.data == tensor.data
        assert planned.position == (in_payload.index(tensor.name) if tensor.data is None else -1)
        if spec.max_batch_size:
            assert planned.shape[0] == made.rows
    assert not given_inputs
    wanted = {output.name for output in sample.head.outputs} or {output.name for output in spec.outputs}
    assert {spec.outputs[index].name for index in made.outputs} == wanted
    make_scheduler(spec).enqueue(request, 0)
