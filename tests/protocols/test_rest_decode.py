"""REST bodies to heads and payloads (rules 1 to 5, 13, 15, 21 and 58)."""

from __future__ import annotations

import json
import struct

import pytest

from shoal.datatypes import DataType
from shoal.errors import InvalidArgumentError, UnsupportedError
from shoal.protocols import rest
from shoal.protocols.parameters import check_forwarded
from shoal.requests import LATEST, InferHead, InputHead, OutputHead


def head_of(request: object, version: int = LATEST) -> InferHead:
    return rest.decode_head(json.dumps(request).encode(), "m", version)


def binary(name: str, nbytes: int, datatype: str = "FP32") -> dict[str, object]:
    return {"name": name, "datatype": datatype, "shape": [1], "parameters": {"binary_data_size": nbytes}}


def inline(name: str, *values: float) -> dict[str, object]:
    return {"name": name, "datatype": "FP32", "shape": [len(values)], "data": list(values)}


def test_rule_1_without_the_header_the_whole_body_is_json() -> None:
    assert rest.header_nbytes(None, 100) == 100


@pytest.mark.parametrize(("value", "expected"), [("0", 0), ("100", 100), ("42", 42), (" 7 ", 7), ("+7", 7)])
def test_rule_1_the_header_says_where_the_json_ends(value: str, expected: int) -> None:
    assert rest.header_nbytes(value, 100) == expected


@pytest.mark.parametrize("value", ["-1", "101", "1" * 30])
def test_rule_1_a_length_outside_the_body_is_refused(value: str) -> None:
    expected = rf"inference header size should be in range \(0, 100\), got: {value}"
    with pytest.raises(InvalidArgumentError, match=expected):
        rest.header_nbytes(value, 100)


@pytest.mark.parametrize("value", ["", "abc", "5abc", "1_0", "1e3", "٣", "5 5"])
def test_rule_1_a_length_that_is_no_number_is_refused(value: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"Unable to parse Inference-Header-Content-Length, got: {value}"):
        rest.header_nbytes(value, 100)


def test_rule_2_an_empty_header_is_a_raw_binary_request() -> None:
    head = rest.decode_head(b"", "m", 3)
    assert head == InferHead("m", 3, "", (), raw=True)
    body = b"anything at all"
    assert rest.split_payload(head, body, 0) == [body]


def test_rule_3_binary_inputs_follow_the_order_of_the_header() -> None:
    head = head_of({"inputs": [binary("b", 4), inline("x", 1.0), binary("a", 2), binary("none", 0)]})
    assert [(tensor.name, tensor.nbytes) for tensor in head.inputs] == [("b", 4), ("x", 0), ("a", 2), ("none", 0)]
    assert rest.split_payload(head, b"{}aaaabb", 2) == [b"aaaa", b"bb", b""]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_rule_3_large_tensors_are_views_of_the_body(kind: type) -> None:
    body = kind(b"{}" + bytes(100_000) + b"end!")
    head = head_of({"inputs": [binary("large", 100_000), binary("small", 4)]})
    large, small = rest.split_payload(head, body, 2)
    assert isinstance(large, memoryview)
    assert large.obj is (body.obj if kind is memoryview else body)
    assert small == b"end!"
    assert type(small) is bytes


def test_rule_3_too_few_bytes() -> None:
    head = head_of({"inputs": [binary("a", 4), binary("b", 4)]})
    text = "unexpected size for input 'b', expecting 3 additional bytes for model 'm'"
    with pytest.raises(InvalidArgumentError, match=text):
        rest.split_payload(head, b"{}aaaab", 2)


def test_rule_3_bytes_left_over() -> None:
    head = head_of({"inputs": [binary("a", 4)]})
    with pytest.raises(InvalidArgumentError, match="unexpected additional input data for model 'm'"):
        rest.split_payload(head, b"{}aaaab", 2)


def test_rule_4_data_in_the_header_is_decoded_there() -> None:
    head = head_of({"inputs": [inline("x", 1.0, 2.5)]}, version=7)
    assert head.inputs == (InputHead("x", DataType.FP32, (2,), 0, struct.pack("<2f", 1, 2.5)),)
    assert head.model_version == 7
    assert rest.split_payload(head, b"{}", 2) == []
    assert not rest.is_repeatable(head)
    assert rest.is_repeatable(head_of({"inputs": [binary("a", 4)]}))
    assert rest.is_repeatable(rest.decode_head(b"", "m", LATEST))


def test_rule_5_listed_outputs_are_json_unless_they_say_otherwise() -> None:
    request = {
        "inputs": [],
        "parameters": {"binary_data_output": True},
        "outputs": [
            {"name": "a"},
            {"name": "b", "parameters": {"binary_data": True}},
            {"name": "c", "parameters": {"classification": 3, "binary_data": False, "other": "x", "odd": [1]}},
        ],
    }
    head = head_of(request)
    assert head.outputs == (
        OutputHead("a", binary=False),
        OutputHead("b", binary=True),
        OutputHead("c", binary=False, classification=3, parameters={"other": "x"}),
    )
    assert head.binary_outputs is True
    assert head_of({"inputs": []}).binary_outputs is False
    assert head_of({"inputs": []}).outputs == ()


def test_rule_13_the_id_is_kept() -> None:
    assert head_of({"id": "é\u0000", "inputs": []}).request_id == "é\u0000"
    assert head_of({"inputs": []}).request_id == ""


def test_rule_15_an_output_twice_is_refused() -> None:
    """As in newer releases; 24.10 still lets it pass."""
    request = {"id": "7", "inputs": [], "outputs": [{"name": "a"}, {"name": "a"}]}
    with pytest.raises(InvalidArgumentError, match=r"\[request id: 7\] output 'a' already exists in request"):
        head_of(request)


def test_rule_20_more_classes_than_can_be_are_refused() -> None:
    outputs = [{"name": "a", "parameters": {"classification": 1_000_001}}]
    with pytest.raises(InvalidArgumentError, match="'classification' parameter, expected <= 1000000, got 1000001"):
        head_of({"inputs": [], "outputs": outputs})


def test_rule_21_parameters_are_plain_values() -> None:
    parameters = {
        "sequence_id": 2**64 - 1,
        "sequence_start": True,
        "sequence_end": False,
        "priority": 3,
        "timeout": 2**64 - 1,
        "text": "x",
        "whole": -7,
        "number": 1.0,
        "large": 2**63,
        "flag": False,
        "headers": "not forwarded, so allowed",
    }
    assert head_of({"inputs": [], "parameters": parameters}).parameters == {**parameters, "large": 2.0**63}
    assert head_of({"inputs": [], "parameters": {"sequence_id": "abc"}}).parameters == {"sequence_id": "abc"}


@pytest.mark.parametrize(
    "name",
    [
        "sequence_id",
        "sequence_start",
        "sequence_end",
        "priority",
        "timeout",
        "headers",
        "binary_data_output",
        "triton_x",
        "Priority",
    ],
)
def test_rule_21_reserved_names_cannot_be_forwarded(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"'{name}' is reserved for Triton usage and cannot be forwarded"):
        check_forwarded(name)
    check_forwarded("x-" + name)


def test_other_parameters_of_an_input_are_kept() -> None:
    tensor = binary("a", 4)
    tensor["parameters"] = {"binary_data_size": 4, "mine": "x", "odd": None}
    assert head_of({"inputs": [tensor]}).inputs[0].parameters == {"mine": "x"}


@pytest.mark.parametrize("where", ["inputs", "outputs"])
def test_rule_58_shared_memory_is_off(where: str) -> None:
    parameters = {"shared_memory_region": "r", "shared_memory_byte_size": 8, "shared_memory_offset": 0}
    tensor = {"name": "a", "datatype": "FP32", "shape": [2], "parameters": parameters}
    text = r"^Client shared memory is disabled. Start the server with '--allow-client-shm=true' to enable\.$"
    with pytest.raises(UnsupportedError, match=text):
        head_of({"inputs": [], where: [tensor]})


@pytest.mark.parametrize("dim", [2**63, 2**64 - 1])
def test_rule_12_a_dimension_beyond_63_bits_is_refused(dim: int) -> None:
    """The real server ends with a fault on the larger one."""
    with pytest.raises(Exception, match="Unable to parse 'shape'"):
        head_of({"inputs": [{"name": "a", "datatype": "FP32", "shape": [dim], "data": [1]}]})
