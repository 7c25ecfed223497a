"""Round trips with the real client library's HTTP serializers, in process."""

from __future__ import annotations

import numpy as np
import tritonclient.http as client
from hypothesis import given
from hypothesis import strategies as st

from shoal.datatypes import DataType
from shoal.protocols import rest
from shoal.requests import LATEST, InferResponse, ResponseLayout, TensorHead
from tests.protocols.tensors import JSON_TYPES, arrays, no_labels, wire_bytes


@st.composite
def tensors(draw: st.DrawFn) -> tuple[DataType, np.ndarray]:
    datatype = draw(st.sampled_from([*JSON_TYPES, DataType.FP16]))
    return datatype, draw(arrays(datatype))


def client_input(name: str, datatype: DataType, array: np.ndarray, *, binary: bool) -> client.InferInput:
    tensor = client.InferInput(name, list(array.shape), datatype.wire)
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


@given(st.lists(tensors(), min_size=1, max_size=3), st.booleans(), st.booleans())
def test_what_the_client_sends_is_decoded(
    sent: list[tuple[DataType, np.ndarray]], binary: bool, list_outputs: bool
) -> None:
    named = [
        (f"IN{place}", datatype, array, binary or datatype is DataType.FP16)
        for place, (datatype, array) in enumerate(sent)
        # The client refuses to write NaN as JSON data, and cannot write a scalar as a list.
        if binary or (array.ndim and (array.dtype == object or np.isfinite(array).all()))
    ]
    inputs = [client_input(name, datatype, array, binary=is_binary) for name, datatype, array, is_binary in named]
    outputs = [client.InferRequestedOutput("OUT", binary_data=binary, class_count=2)] if list_outputs else None
    body, length = client.InferenceServerClient.generate_request_body(
        inputs, outputs=outputs, request_id="id", sequence_id=5, sequence_start=True, priority=2, timeout=7
    )
    nbytes = rest.header_nbytes(None if length is None else str(length), len(body))
    head = rest.decode_head(body[:nbytes], "m", LATEST)
    payload = iter(rest.split_payload(head, body, nbytes))
    for (name, datatype, array, _), tensor in zip(named, head.inputs, strict=True):
        data = next(payload) if tensor.data is None else tensor.data
        assert (tensor.name, tensor.datatype, tensor.shape) == (name, datatype, array.shape)
        assert bytes(data) == wire_bytes(array)
    assert head.request_id == "id"
    assert head.parameters == {
        "sequence_id": 5,
        "sequence_start": True,
        "sequence_end": False,
        "priority": 2,
        "timeout": 7,
    }
    if list_outputs:
        assert [(output.name, output.binary, output.classification) for output in head.outputs] == [("OUT", binary, 2)]
    else:
        assert head.binary_outputs


@given(st.lists(tensors(), max_size=3), st.booleans())
def test_what_is_encoded_the_client_reads(answer: list[tuple[DataType, np.ndarray]], binary: bool) -> None:
    answer = [(kind, array) for kind, array in answer if binary or kind is not DataType.FP16]
    tensor_heads = tuple(
        TensorHead(f"OUT{place}", datatype, array.shape) for place, (datatype, array) in enumerate(answer)
    )
    parameters = b'"parameters":{"binary_data_output":true},' if binary else b""
    head = rest.decode_head(b'{"id":"7",' + parameters + b'"inputs":[]}', "m", LATEST)
    response = InferResponse(ResponseLayout("m", 1, tensor_heads), [wire_bytes(array) for _, array in answer])
    nbytes, parts = rest.encode_response(head, response, no_labels, batched=False)
    result = client.InferResult.from_response_body(b"".join(parts), header_length=nbytes)
    assert result.get_response()["id"] == "7"
    for tensor, (datatype, array) in zip(tensor_heads, answer, strict=True):
        read = result.as_numpy(tensor.name)
        if read is None or array.size == 0:
            # The client drops an empty tensor.
            assert array.size == 0
        elif datatype is DataType.BYTES and not binary:
            assert read.ravel().tolist() == [value.decode() for value in array.ravel()]
        else:
            np.testing.assert_array_equal(read, array)
