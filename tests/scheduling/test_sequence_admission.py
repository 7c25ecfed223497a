"""The sequence parameters of requests (rule 44)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from queued_requests import NOBODY
from sequence_requests import model

from shoal.config.spec import ControlKind, ControlSpec, DirectSpec
from shoal.datatypes import DataType
from shoal.errors import InvalidArgumentError, UnsupportedError
from shoal.requests import LATEST, InferHead, InputHead, SequencePart
from shoal.scheduling.admission import plan_raw_request, plan_request

TYPES = [DataType.UINT64, DataType.INT64, DataType.UINT32, DataType.INT32]


def spec_of(datatype=None, *, iterative=False):
    spec = model(DirectSpec(), iterative=iterative)
    controls = () if datatype is None else (ControlSpec(ControlKind.CORRELATION_ID, 0, datatype),)
    return replace(spec, sequence=replace(spec.sequence, controls=controls))


def plan(spec, rows=1, **parameters):
    head = InferHead("m", LATEST, "", (InputHead("IN", DataType.FP32, (rows, 2), 8 * rows),), parameters=parameters)
    return plan_request(head, spec, NOBODY)


def test_a_request_of_a_sequence():
    found = plan(spec_of(), sequence_id=2**64 - 1, sequence_start=True).sequence
    assert found == SequencePart(2**64 - 1, start=True, end=False)
    assert plan(spec_of(), sequence_id="a", sequence_end=True).sequence == SequencePart("a", start=False, end=True)


@pytest.mark.parametrize("given", [{}, {"sequence_id": 0}, {"sequence_id": ""}])
def test_rule_44_no_id_is_no_sequence(given):
    with pytest.raises(InvalidArgumentError) as caught:
        plan(spec_of(), **given)
    assert caught.value.message == "inference request to model 'm' must specify a non-zero or non-empty correlation ID"


@pytest.mark.parametrize("given", [{}, {"sequence_id": 0, "sequence_end": True}, {"sequence_id": ""}])
def test_iterative_models_take_requests_without_an_id(given):
    assert plan(spec_of(iterative=True), **given).sequence == SequencePart(0, start=True, end=False)


@pytest.mark.parametrize("datatype", TYPES)
def test_rule_44_the_id_has_the_type_of_its_control(datatype):
    assert plan(spec_of(datatype), sequence_id=5).sequence.correlation_id == 5
    with pytest.raises(
        InvalidArgumentError, match=f"'five' is a string, .* has the type {datatype.config}; send a number"
    ):
        plan(spec_of(datatype), sequence_id="five")
    assert plan(spec_of(DataType.BYTES), sequence_id="five").sequence.correlation_id == "five"
    with pytest.raises(InvalidArgumentError, match=r"'5' is a number, .* has the type TYPE_STRING; send a string"):
        plan(spec_of(DataType.BYTES), sequence_id=5)


def test_one_row_at_most():
    with pytest.raises(InvalidArgumentError) as caught:
        plan(spec_of(), rows=2)
    text = "inference request to model 'm' must specify batch-size 1 due to requirements of sequence batcher"
    assert caught.value.message == text


@pytest.mark.parametrize("spec", [spec_of(), replace(spec_of(), sequence=None)], ids=["sequence", "plain"])
def test_a_string_id_has_128_bytes_at_most_whatever_the_model(spec):
    for given in ("x" * 129, "é" * 65, "\udc80" * 129):
        with pytest.raises(UnsupportedError) as caught:
            plan(spec, sequence_id=given)
        assert caught.value.message == "string correlation ID cannot be longer than 128 characters"
    plan(spec, sequence_id="é" * 64)


@pytest.mark.parametrize(
    "given", [{"sequence_id": True}, {"sequence_id": -1}, {"sequence_id": 2**64}, {"sequence_id": 1.5}]
)
def test_ids_that_no_protocol_lets_through_are_refused(given):
    with pytest.raises(InvalidArgumentError, match="'sequence_id' must be a string or a whole number"):
        plan(spec_of(), **given)


def test_flags_are_true_or_false():
    with pytest.raises(InvalidArgumentError, match="'sequence_start' must be true or false, not 1"):
        plan(spec_of(), sequence_id=1, sequence_start=1)


def test_models_without_sequences_ignore_the_parameters():
    found = plan(replace(spec_of(), sequence=None), rows=2, sequence_id=5, sequence_start=True)
    assert found.sequence is None


def test_raw_requests_have_no_place_for_an_id():
    spec = replace(spec_of(), inputs=spec_of().inputs[:1])
    head = InferHead("m", LATEST, "", (), raw=True)
    with pytest.raises(InvalidArgumentError, match="non-zero or non-empty correlation ID"):
        plan_raw_request(head, 8, spec, NOBODY)
    iterative = replace(spec_of(iterative=True), inputs=spec.inputs)
    assert plan_raw_request(head, 8, iterative, NOBODY).sequence == SequencePart(0, start=True)
