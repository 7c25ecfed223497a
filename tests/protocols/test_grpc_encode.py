"""Responses to gRPC messages (rules 19, 23 and 24), read by the real client's messages."""

from __future__ import annotations

import numpy as np
import pytest
import tritonclient.grpc as client
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from shoal.datatypes import DataType
from shoal.errors import InternalError, InvalidArgumentError
from shoal.protocols import grpc_infer, grpc_infer_encode
from shoal.requests import LATEST, Buffer, InferHead, InferResponse, OutputHead, Parameter, ResponseLayout, TensorHead
from tests.protocols.tensors import arrays, no_labels, wire_bytes

INTS = TensorHead("ints", DataType.INT32, (2,))
DATA = bytes(range(8))


def head(*outputs: OutputHead, request_id: str = "", version: int = LATEST) -> InferHead:
    return InferHead("m", version, request_id, (), outputs)


def layout(*tensors: TensorHead) -> ResponseLayout:
    return ResponseLayout("m", 3, tensors or (INTS,))


def encode(request: InferHead, response: InferResponse, *, batched: bool = False) -> service_pb2.ModelInferResponse:
    parts = grpc_infer.encode_response(request, response, no_labels, batched=batched)
    return service_pb2.ModelInferResponse.FromString(b"".join(parts))


def stream(parts: list[Buffer] | bytes) -> service_pb2.ModelStreamInferResponse:
    return service_pb2.ModelStreamInferResponse.FromString(b"".join(parts) if isinstance(parts, list) else parts)


@st.composite
def tensors(draw: st.DrawFn) -> tuple[DataType, np.ndarray]:
    datatype = draw(st.sampled_from(list(DataType)))
    return datatype, draw(arrays(datatype))


PARAMETERS = st.dictionaries(
    st.text(max_size=5),
    st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=5),
    max_size=3,
)


@given(st.lists(tensors(), max_size=3), st.text(max_size=5), st.none() | PARAMETERS)
def test_rule_19_every_output_has_a_raw_entry_in_order(
    answer: list[tuple[DataType, np.ndarray]], request_id: str, parameters: dict[str, Parameter] | None
) -> None:
    tensor_heads = tuple(TensorHead(f"OUT{place}", kind, array.shape) for place, (kind, array) in enumerate(answer))
    response = InferResponse(
        ResponseLayout("m", 3, tensor_heads), [wire_bytes(array) for _, array in answer], parameters
    )
    request = head(request_id=request_id)
    for _ in range(2):
        message = encode(request, response)
        expected = service_pb2.ModelInferResponse(model_name="m", model_version="3", id=request_id)
        for tensor, (_, array) in zip(tensor_heads, answer, strict=True):
            expected.outputs.add(name=tensor.name, datatype=tensor.datatype.wire, shape=array.shape)
            expected.raw_output_contents.append(wire_bytes(array))
        for name, value in (parameters or {}).items():
            kind = {bool: "bool", int: "int64", float: "double", str: "string"}[type(value)]
            kind = "uint64" if kind == "int64" and value >= 2**63 else kind  # type: ignore[operator]
            setattr(expected.parameters[name], f"{kind}_param", value)
        assert message == expected


@given(st.lists(tensors(), min_size=1, max_size=3))
def test_what_is_encoded_the_client_reads(answer: list[tuple[DataType, np.ndarray]]) -> None:
    answer = [(datatype, array) for datatype, array in answer if datatype is not DataType.BF16]
    tensor_heads = tuple(TensorHead(f"OUT{place}", kind, array.shape) for place, (kind, array) in enumerate(answer))
    response = InferResponse(ResponseLayout("m", 3, tensor_heads), [wire_bytes(array) for _, array in answer])
    result = client.InferResult(encode(head(), response))
    for tensor, (_, array) in zip(tensor_heads, answer, strict=True):
        np.testing.assert_array_equal(result.as_numpy(tensor.name), array)


def test_an_integer_beyond_64_bits_becomes_a_double() -> None:
    message = encode(head(), InferResponse(layout(), [DATA], {"large": 2**64, "low": -(2**63) - 1}))
    assert message.parameters["large"].double_param == 2.0**64
    assert message.parameters["low"].double_param == -(2.0**63)


def test_the_bytes_are_those_that_protobuf_writes() -> None:
    """The fields in the order of their numbers, so that recorded answers can be compared byte by byte."""
    parts = grpc_infer.encode_response(head(request_id="x"), InferResponse(layout(), [DATA]), no_labels, batched=False)
    message = service_pb2.ModelInferResponse.FromString(b"".join(parts))
    assert message.SerializeToString() == b"".join(parts)


def test_small_messages_are_one_buffer_and_large_tensors_stay_where_they_are() -> None:
    shared, request = layout(), head()
    small = grpc_infer.encode_response(request, InferResponse(shared, [DATA]), no_labels, batched=False)
    assert len(small) == 1
    large = [bytes(100_000), memoryview(bytearray(100_000))]
    shared = layout(TensorHead("a", DataType.UINT8, (100_000,)), TensorHead("b", DataType.UINT8, (100_000,)))
    for _ in range(2):
        parts = grpc_infer.encode_response(request, InferResponse(shared, large), no_labels, batched=False)
        assert [part for part in parts if len(part) == 100_000] == large
        assert any(part is large[1] for part in parts)


def test_a_remembered_message_is_not_used_where_it_does_not_hold() -> None:
    shared, request = layout(TensorHead("text", DataType.BYTES, (1,))), head()
    for data, parameters in ((b"\1\0\0\0a", None), (b"\2\0\0\0ab", None), (b"\1\0\0\0b", {"p": 1}), (b"", None)):
        message = encode(request, InferResponse(shared, [data], parameters))
        assert list(message.raw_output_contents) == [data]
        assert set(message.parameters) == set(parameters or ())
    assert encode(head(request_id="other"), InferResponse(shared, [b"\1\0\0\0a"])).id == "other"


def test_remembered_messages_are_bounded_and_separate() -> None:
    shared = layout()
    heads = [head(request_id=str(number)) for number in range(200)]
    for request in heads:
        response = InferResponse(shared, [DATA])
        for final in (True, False):
            parts = grpc_infer.encode_stream_response(request, response, no_labels, batched=False, final=final)
            assert stream(parts).infer_response.parameters["triton_final_response"].bool_param is final
        message = encode(request, response)
        assert (message.id, dict(message.parameters)) == (request.request_id, {})
    assert len(shared.encoded) <= 64


def test_views_of_wider_elements_keep_their_bytes() -> None:
    view = memoryview(np.array([[1, 2]], "<i4"))
    shared, request = layout(TensorHead("ints", DataType.INT32, (1, 2))), head()
    for _ in range(2):
        assert encode(request, InferResponse(shared, [view])).raw_output_contents[0] == view.tobytes()


def test_classes_in_place_of_a_tensor() -> None:
    request = head(OutputHead("ints", classification=1))
    shared = layout(TensorHead("ints", DataType.INT32, (2, 2)))
    data = np.array([[1, 2], [4, 3]], "<i4").tobytes()
    for _ in range(2):
        message = encode(request, InferResponse(shared, [data]), batched=True)
        assert (message.outputs[0].datatype, list(message.outputs[0].shape)) == ("BYTES", [2, 1])
        assert message.raw_output_contents[0] == b"\x03\0\0\x002:1\x03\0\0\x004:0"


def test_a_message_longer_than_grpc_allows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_infer_encode, "MAX_MESSAGE_NBYTES", 30)
    text = r"Response has byte size \d+ which exceeds gRPC's byte size limit 30\."
    with pytest.raises(InvalidArgumentError, match=text):
        encode(head(), InferResponse(layout(), [DATA]))


def test_a_response_with_missing_outputs_is_refused() -> None:
    with pytest.raises(InternalError, match="output count mismatch: 0 buffers for 1 outputs"):
        encode(head(), InferResponse(layout(), []))


def test_rule_23_errors_travel_in_the_stream_with_the_id() -> None:
    message = stream(grpc_infer.encode_stream_refusal("it failed: é", "7"))
    assert message.error_message == "it failed: é"
    assert message.HasField("infer_response")
    assert message.infer_response == service_pb2.ModelInferResponse(id="7")
    assert stream(grpc_infer.encode_stream_refusal("x", "")).HasField("infer_response")


def test_rule_24_the_error_of_a_model_says_that_it_is_the_last_answer() -> None:
    message = stream(grpc_infer.encode_stream_failure("it failed", head(request_id="7")))
    assert message.error_message == "it failed"
    assert (message.infer_response.id, message.infer_response.model_name) == ("7", "m")
    assert message.infer_response.parameters["triton_final_response"].bool_param


@pytest.mark.parametrize("final", [True, False])
@pytest.mark.parametrize("nbytes", [8, 200_000])
def test_rule_24_every_stream_response_says_whether_it_is_the_last(final: bool, nbytes: int) -> None:
    response = InferResponse(layout(TensorHead("x", DataType.UINT8, (nbytes,))), [bytes(nbytes)])
    for _ in range(2):
        parts = grpc_infer.encode_stream_response(head(request_id="7"), response, no_labels, batched=False, final=final)
        inner = stream(parts).infer_response
        assert inner.parameters["triton_final_response"].bool_param is final
        assert (inner.id, inner.model_name, inner.model_version) == ("7", "m", "3")
        assert list(inner.raw_output_contents) == [bytes(nbytes)]


def test_rule_24_a_models_own_parameters_stay_in_a_stream() -> None:
    response = InferResponse(layout(), [DATA], {"p": "x"})
    parts = grpc_infer.encode_stream_response(head(), response, no_labels, batched=False, final=True)
    assert set(stream(parts).infer_response.parameters) == {"p", "triton_final_response"}


@pytest.mark.parametrize(("version", "text"), [(LATEST, ""), (4, "4")])
def test_rule_24_the_empty_final_response(version: int, text: str) -> None:
    """As the real server sends it: the request's version, not that of the model that ran."""
    expected = service_pb2.ModelInferResponse(model_name="m", model_version=text, id="7")
    expected.parameters["triton_final_response"].bool_param = True
    assert stream(grpc_infer.encode_stream_final(head(request_id="7", version=version))).infer_response == expected
