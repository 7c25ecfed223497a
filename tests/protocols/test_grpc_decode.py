"""``ModelInferRequest`` to heads and payloads (rules 15, 17, 18 and 20 to 22), sent by the real client's messages."""

from __future__ import annotations

import random

import numpy as np
import pytest
import tritonclient.grpc as client
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2
from tritonclient.grpc._utils import _get_inference_request

from shoal.datatypes import DataType
from shoal.errors import InternalError, InvalidArgumentError, UnsupportedError
from shoal.protocols import grpc_infer, wire
from shoal.protocols.parameters import EMPTY_FINAL_RESPONSE
from shoal.requests import LATEST, Buffer, InferHead, InputHead, OutputHead
from tests.protocols.tensors import arrays, wire_bytes


def decode(message: Buffer) -> tuple[InferHead, list[Buffer]]:
    parts = grpc_infer.split(message)
    head = grpc_infer.decode_head(parts.prefix, parts.raw_nbytes())
    return head, parts.payload(message, head)


def request(*raws: bytes, datatype: str = "FP32", shape: tuple[int, ...] = (1,)) -> service_pb2.ModelInferRequest:
    message = service_pb2.ModelInferRequest(model_name="m", raw_input_contents=raws)
    for place in range(max(1, len(raws))):
        message.inputs.add(name=f"IN{place}", datatype=datatype, shape=shape)
    return message


@st.composite
def tensors(draw: st.DrawFn) -> tuple[DataType, np.ndarray]:
    datatype = draw(st.sampled_from([datatype for datatype in DataType if datatype is not DataType.BF16]))
    return datatype, draw(arrays(datatype))


@given(st.lists(tensors(), min_size=1, max_size=3), st.sampled_from(["", "id é"]))
def test_rule_17_what_the_client_sends_is_decoded(sent: list[tuple[DataType, np.ndarray]], request_id: str) -> None:
    inputs = []
    for place, (datatype, array) in enumerate(sent):
        tensor = client.InferInput(f"IN{place}", list(array.shape), datatype.wire)
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    outputs = [client.InferRequestedOutput("OUT", class_count=3), client.InferRequestedOutput("TOO")]
    message = _get_inference_request(
        model_name="m",
        inputs=inputs,
        model_version="4",
        request_id=request_id,
        outputs=outputs,
        sequence_id=9,
        sequence_start=True,
        sequence_end=False,
        priority=2,
        timeout=7,
        parameters={"mine": 1.5},
    )
    head, payload = decode(message.SerializeToString())
    assert (head.model_name, head.model_version, head.request_id) == ("m", 4, request_id)
    assert head.outputs == (OutputHead("OUT", classification=3), OutputHead("TOO"))
    assert head.binary_outputs
    assert head.parameters == {
        "sequence_id": 9,
        "sequence_start": True,
        "sequence_end": False,
        "priority": 2,
        "timeout": 7,
        "mine": 1.5,
    }
    for place, (datatype, array) in enumerate(sent):
        data = wire_bytes(array)
        assert head.inputs[place] == InputHead(f"IN{place}", datatype, array.shape, len(data))
        assert payload[place] == data


def test_rule_17_surplus_raw_contents_are_no_payload() -> None:
    message = request(b"abcd")
    message.raw_input_contents.append(b"more")
    head, payload = decode(message.SerializeToString())
    assert payload == [b"abcd"]
    assert [tensor.nbytes for tensor in head.inputs] == [4]


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=3), st.integers(0, 2**32))
def test_rule_17_the_order_of_different_fields_does_not_matter(raws: list[bytes], seed: int) -> None:
    """Protobuf allows any order; only that of the raw contents among themselves counts."""
    message = request(*raws).SerializeToString()
    pieces = [message[start:end] for _, start, _, end in wire.fields(message)]
    keys = [piece[0] for piece in pieces]
    shuffled_keys = keys[:]
    random.Random(seed).shuffle(shuffled_keys)
    queues = {key: [piece for piece in pieces if piece[0] == key] for key in keys}
    shuffled = b"".join(queues[key].pop(0) for key in shuffled_keys)
    assert decode(shuffled) == decode(message)


def test_rule_17_unknown_fields_are_skipped() -> None:
    message = request(b"abcd").SerializeToString()
    unknown = [
        wire.varint(99 << 3 | wire.VARINT) + b"\x05",
        wire.varint(99 << 3 | wire.FIXED32) + bytes(4),
        wire.varint(99 << 3 | wire.FIXED64) + bytes(8),
        wire.field(99, b"x"),
        b"\x0b\x13\x14\x08\x01\x0c",  # a group with a group in it
        b"\x38\x01",  # the number of the raw contents with another wire type
    ]
    assert decode(b"".join(unknown) + message) == decode(message)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff",
        b"\x0a\x05ab",
        b"\x0a",
        b"\x3a\xff",
        b"\x3a" + b"\xff" * 11,
        b"\x00",
        b"\x02\x00",
        b"\x0c",
        b"\x0b",
        b"\x0b\x14",
        b"\x0e",
        b"\x0f",
        b"\x0d\x00",
        b"\x09\x00",
        b"\x0a\x01\xff",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x0b" * 1000,
    ],
)
def test_malformed_messages_have_grpcs_own_answer(data: bytes) -> None:
    with pytest.raises(InternalError, match=r"^Unable to parse request$"):
        decode(data)


def test_large_raw_contents_are_not_copied() -> None:
    message = memoryview(request(bytes(100_000)).SerializeToString())
    _, payload = decode(message)
    assert isinstance(payload[0], memoryview)
    assert payload[0].obj is message.obj


@pytest.mark.parametrize(
    ("datatype", "name", "values", "expected"),
    [
        ("BOOL", "bool_contents", [True, False], b"\x01\x00"),
        ("INT8", "int_contents", [300, -129], b"\x2c\x7f"),
        ("INT16", "int_contents", [2**16 + 1, -1], b"\x01\x00\xff\xff"),
        ("INT32", "int_contents", [1, -1], b"\x01\0\0\0\xff\xff\xff\xff"),
        ("INT64", "int64_contents", [-2], b"\xfe" + b"\xff" * 7),
        ("UINT8", "uint_contents", [256, 511], b"\x00\xff"),
        ("UINT16", "uint_contents", [2**16 + 2], b"\x02\x00"),
        ("UINT32", "uint_contents", [2**32 - 1], b"\xff" * 4),
        ("UINT64", "uint64_contents", [2**64 - 1], b"\xff" * 8),
        ("FP32", "fp32_contents", [1.0], b"\0\0\x80?"),
        ("FP64", "fp64_contents", [1.0], b"\0\0\0\0\0\0\xf0?"),
        ("BYTES", "bytes_contents", [b"a", b"\xff\x00"], b"\x01\0\0\0a\x02\0\0\0\xff\x00"),
    ],
)
def test_rule_18_typed_contents_become_wire_bytes(
    datatype: str, name: str, values: list[object], expected: bytes
) -> None:
    message = request(datatype=datatype, shape=(len(values),))
    getattr(message.inputs[0].contents, name).extend(values)
    head, payload = decode(message.SerializeToString())
    assert head.inputs[0].data == expected
    assert head.inputs[0].nbytes == 0
    assert payload == []


def test_rule_18_empty_contents_are_contents() -> None:
    message = request()
    message.inputs[0].contents.SetInParent()
    assert decode(message.SerializeToString())[0].inputs[0].data == b""


def test_rule_20_unsigned_parameters_are_taken_by_their_bits() -> None:
    """As the real server shows a model: -5 is 18446744073709551611."""
    message = request(b"abcd")
    message.parameters["sequence_id"].int64_param = -5
    message.parameters["timeout"].int64_param = -1
    message.parameters["priority"].uint64_param = 2**64 - 1
    message.parameters[EMPTY_FINAL_RESPONSE].bool_param = True
    assert decode(message.SerializeToString())[0].parameters == {
        "sequence_id": 2**64 - 5,
        "timeout": 2**64 - 1,
        "priority": 2**64 - 1,
        EMPTY_FINAL_RESPONSE: True,
    }


@pytest.mark.parametrize("classes", [0, -1])
def test_rule_20_at_least_one_class(classes: int) -> None:
    message = request(b"abcd")
    message.outputs.add(name="OUT").parameters["classification"].int64_param = classes
    with pytest.raises(InvalidArgumentError, match="invalid value for 'classification' parameter, expected >= 1"):
        decode(message.SerializeToString())


def test_other_parameters_of_tensors_are_kept() -> None:
    message = request(b"abcd")
    message.inputs[0].parameters["mine"].uint64_param = 3
    message.inputs[0].parameters["unset"].SetInParent()
    message.outputs.add(name="OUT").parameters["mine"].string_param = "x"
    head, _ = decode(message.SerializeToString())
    assert head.inputs[0].parameters == {"mine": 3}
    assert head.outputs[0].parameters == {"mine": "x"}


@pytest.mark.parametrize(
    ("text", "version"), [("", LATEST), ("1", 1), ("007", 7), ("0", 0), ("9223372036854775807", 2**63 - 1)]
)
def test_rule_22_versions(text: str, version: int) -> None:
    assert grpc_infer.parse_version(text) == version


@pytest.mark.parametrize(
    "text", ["abc", "1.5", " 1", "1 ", "+1", "1abc", "9223372036854775808", "--1", "-", "٣", "1_0"]
)
def test_rule_22_versions_that_are_no_integer(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="failed to get model version from specified version string"):
        grpc_infer.parse_version(text)


def test_rule_22_negative_versions() -> None:
    text = "invalid model version specified '-1' , version should be an integral value > 0"
    with pytest.raises(InvalidArgumentError, match=text):
        grpc_infer.parse_version("-1")


@pytest.mark.parametrize("where", ["inputs", "outputs"])
def test_rule_58_shared_memory_is_off(where: str) -> None:
    message = request(*(() if where == "inputs" else (b"abcd",)))
    tensor = message.inputs[0] if where == "inputs" else message.outputs.add(name="OUT")
    tensor.parameters["shared_memory_region"].string_param = "r"
    tensor.parameters["shared_memory_byte_size"].int64_param = 8
    with pytest.raises(UnsupportedError, match=r"^Client shared memory is disabled\. Start the server with"):
        decode(message.SerializeToString())


def test_rule_15_an_output_twice_is_refused() -> None:
    """As in newer releases; 24.10 still lets it pass."""
    message = request(b"abcd")
    message.id = "7"
    message.outputs.add(name="OUT")
    message.outputs.add(name="OUT")
    with pytest.raises(InvalidArgumentError, match=r"\[request id: 7\] output 'OUT' already exists in request"):
        decode(message.SerializeToString())


def test_negative_dimensions_are_refused() -> None:
    """The product of two of them could pass for a size."""
    with pytest.raises(InvalidArgumentError, match=r"input 'IN0' has a negative dimension in its shape \[-1, -1\]"):
        decode(request(b"abcd", shape=(-1, -1)).SerializeToString())


def test_an_unknown_datatype_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="invalid datatype for input IN0"):
        decode(request(b"abcd", datatype="FPX").SerializeToString())


@given(st.integers(0, 2**64 - 1))
def test_varints_are_read_as_written(value: int) -> None:
    encoded = wire.varint(value)
    assert wire.read_varint(encoded + b"\xff", 0) == (value, len(encoded))


@pytest.mark.parametrize("text", ["", "7", "é"])
def test_rule_23_the_id_of_a_message_that_cannot_be_decoded(text: str) -> None:
    message = request(b"abcd", datatype="FPX")
    message.id = text
    assert grpc_infer.request_id(message.SerializeToString()) == text
    assert grpc_infer.request_id(b"\xff") == ""
