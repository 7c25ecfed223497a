"""Responses to REST bodies (rules 5 to 8, 10, 11 and 13)."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from shoal.datatypes import DataType
from shoal.errors import InternalError, InvalidArgumentError
from shoal.protocols import rest
from shoal.requests import LATEST, Buffer, InferHead, InferResponse, OutputHead, ResponseLayout, TensorHead
from tests.protocols.tensors import no_labels

FLOATS = TensorHead("floats", DataType.FP32, (1, 2))
INTS = TensorHead("ints", DataType.INT32, (1, 1))
DATA: list[Buffer] = [struct.pack("<2f", 1, 2.5), struct.pack("<i", -3)]


def layout(*tensors: TensorHead) -> ResponseLayout:
    return ResponseLayout("m", 3, tensors or (FLOATS, INTS))


def head(*outputs: OutputHead, request_id: str = "", binary: bool = False, raw: bool = False) -> InferHead:
    return InferHead("m", LATEST, request_id, (), outputs, binary_outputs=binary, raw=raw)


def encode(
    request: InferHead, response: InferResponse, *, batched: bool = False
) -> tuple[int | None, dict[str, object], bytes]:
    nbytes, parts = rest.encode_response(request, response, no_labels, batched=batched)
    body = b"".join(parts)
    end = len(body) if nbytes is None else nbytes
    return nbytes, json.loads(body[:end]), body[end:]


def test_rules_6_and_7_json_outputs_are_flat_lists_and_there_is_no_header_length() -> None:
    nbytes, parts = rest.encode_response(head(), InferResponse(layout(), DATA), no_labels, batched=True)
    assert nbytes is None
    # The real server writes the same bytes, members in the same order.
    assert b"".join(parts) == (
        b'{"model_name":"m","model_version":"3","outputs":['
        b'{"name":"floats","datatype":"FP32","shape":[1,2],"data":[1.0,2.5]},'
        b'{"name":"ints","datatype":"INT32","shape":[1,1],"data":[-3]}]}'
    )


def test_rule_6_binary_outputs_follow_the_json_in_its_order() -> None:
    request = head(binary=True, request_id="x")
    nbytes, parts = rest.encode_response(request, InferResponse(layout(), DATA), no_labels, batched=True)
    assert parts == [
        (
            b'{"id":"x","model_name":"m","model_version":"3","outputs":['
            b'{"name":"floats","datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":8}},'
            b'{"name":"ints","datatype":"INT32","shape":[1,1],"parameters":{"binary_data_size":4}}]}'
        ),
        *DATA,
    ]
    assert nbytes == len(parts[0])


def test_rule_5_an_output_is_as_the_request_lists_it() -> None:
    request = head(OutputHead("ints", binary=True), OutputHead("floats", binary=False), binary=True)
    _, message, rest_of_body = encode(request, InferResponse(layout(), DATA))
    floats, ints = message["outputs"]  # type: ignore[misc]
    assert floats["data"] == [1.0, 2.5]
    assert ints["parameters"] == {"binary_data_size": 4}
    assert rest_of_body == DATA[1]


def test_rule_2_a_raw_request_gets_binary_outputs() -> None:
    _, _, rest_of_body = encode(head(raw=True), InferResponse(layout(), DATA))
    assert rest_of_body == b"".join(DATA)


def test_rule_6_empty_binary_outputs_have_a_size_and_no_bytes() -> None:
    empty = TensorHead("empty", DataType.FP32, (0,))
    nbytes, message, _ = encode(head(binary=True), InferResponse(layout(empty), [b""]))
    assert nbytes is None
    assert message["outputs"] == [
        {"name": "empty", "datatype": "FP32", "shape": [0], "parameters": {"binary_data_size": 0}}
    ]
    nbytes, _, rest_of_body = encode(head(binary=True), InferResponse(layout(empty, INTS), [b"", DATA[1]]))
    assert nbytes is not None
    assert rest_of_body == DATA[1]


def test_rule_13_parameters_only_when_the_model_set_some() -> None:
    response = InferResponse(layout(), DATA, {"s": 'x"y', "i": 5, "b": True, "f": float("nan")})
    _, parts = rest.encode_response(head(), response, no_labels, batched=False)
    assert b'"model_version":"3","parameters":{"s":"x\\"y","i":5,"b":true,"f":NaN},"outputs"' in parts[0]
    _, message, _ = encode(head(), InferResponse(layout(), DATA, {}))
    assert "parameters" not in message
    assert "id" not in message


def test_rule_8_names_are_escaped() -> None:
    tensor = TensorHead('a"\\\n\x01é', DataType.INT32, (1,))
    _, message, _ = encode(head(request_id="\x7f\u2028"), InferResponse(layout(tensor), [DATA[1]]))
    assert message["id"] == "\x7f\u2028"
    assert message["outputs"][0]["name"] == tensor.name  # type: ignore[index]


def test_rule_13_an_id_that_is_not_utf_8_comes_back_as_it_came() -> None:
    request = rest.decode_head(b'{"id":"\xff","inputs":[]}', "m", LATEST)
    _, parts = rest.encode_response(request, InferResponse(layout(), DATA), no_labels, batched=False)
    assert parts[0].startswith(b'{"id":"\xff","model_name"')  # type: ignore[union-attr]


def test_rule_10_half_precision_needs_binary() -> None:
    tensor = TensorHead("h", DataType.FP16, (1,))
    with pytest.raises(InvalidArgumentError, match="sending FP16 data via JSON is not supported"):
        encode(head(), InferResponse(layout(tensor), [b"ab"]))
    _, _, rest_of_body = encode(head(binary=True), InferResponse(layout(tensor), [b"ab"]))
    assert rest_of_body == b"ab"


def test_the_header_of_binary_responses_is_made_once() -> None:
    shared, request = layout(), head(binary=True)
    _, first = rest.encode_response(request, InferResponse(shared, DATA), no_labels, batched=True)
    _, second = rest.encode_response(request, InferResponse(shared, list(DATA)), no_labels, batched=True)
    assert second[0] is first[0]


def test_a_remembered_header_is_not_used_where_it_does_not_hold() -> None:
    text = TensorHead("text", DataType.BYTES, (1,))
    shared, request = layout(text), head(binary=True)
    for data, parameters in ((b"\x01\0\0\0a", None), (b"\x02\0\0\0ab", None), (b"\x01\0\0\0b", {"p": 1}), (b"", None)):
        _, message, rest_of_body = encode(request, InferResponse(shared, [data], parameters))
        assert message["outputs"][0]["parameters"] == {"binary_data_size": len(data)}  # type: ignore[index]
        assert message.get("parameters") == parameters
        assert rest_of_body == data
    _, message, _ = encode(head(binary=True, request_id="other"), InferResponse(shared, [b"\x01\0\0\0a"]))
    assert message["id"] == "other"


def test_remembered_headers_are_bounded() -> None:
    shared = layout()
    heads = [head(binary=True, request_id=str(number)) for number in range(1000)]
    for request in heads:
        _, message, _ = encode(request, InferResponse(shared, DATA))
        assert message["id"] == request.request_id
    assert len(shared.encoded) <= 64


def test_views_of_wider_elements_keep_their_bytes() -> None:
    view = memoryview(np.array([[1.0, 2.5]], "<f4"))
    shared, request = layout(FLOATS), head(binary=True)
    for _ in range(2):
        _, message, rest_of_body = encode(request, InferResponse(shared, [view]))
        assert message["outputs"][0]["parameters"] == {"binary_data_size": 8}  # type: ignore[index]
        assert rest_of_body == DATA[0]


def test_classes_in_place_of_a_tensor() -> None:
    request = head(OutputHead("floats", binary=True, classification=1), OutputHead("ints", binary=False))
    shared = layout()
    for _ in range(2):
        _, message, rest_of_body = encode(request, InferResponse(shared, DATA), batched=True)
        assert message["outputs"][0] == {  # type: ignore[index]
            "name": "floats",
            "datatype": "BYTES",
            "shape": [1, 1],
            "parameters": {"binary_data_size": 14},
        }
        assert rest_of_body == b"\x0a\0\0\x002.500000:1"


def test_a_response_with_missing_outputs_is_refused() -> None:
    with pytest.raises(InternalError, match="output count mismatch: 1 buffers for 2 outputs"):
        encode(head(), InferResponse(layout(), DATA[:1]))
