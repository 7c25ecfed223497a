"""A ``ModelInferRequest`` to an ``InferHead`` and the tensors' bytes (rules 17 to 22).

Large messages must not be copied, and protobuf would copy every ``raw_input_contents``. So the message's top level is
walked by hand: what is not raw content, a few hundred bytes, goes to protobuf; the raw contents stay where they are.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from shoal.datatypes import BY_WIRE, DataType
from shoal.errors import InternalError, InvalidArgumentError, UnsupportedError
from shoal.protocols import bytes_tensors, grpc_parameters, wire
from shoal.protocols.grpc_service_pb2 import ModelInferRequest
from shoal.protocols.parameters import SHARED_MEMORY_DISABLED, parse_version
from shoal.requests import Buffer, InferHead, InputHead, OutputHead

RAW_TAG = 7 << 3 | wire.BYTES
"""The tag of ``raw_input_contents``."""

_ID_TAG = 3 << 3 | wire.BYTES
_INT64_END = 2**63
_SHARED_MEMORY = frozenset({"shared_memory_region", "shared_memory_offset", "shared_memory_byte_size"})
_HANDLED_IN_OUTPUT = _SHARED_MEMORY | {"classification"}


class Split(NamedTuple):
    """A message taken apart.

    Attributes:
        prefix: all fields but the raw contents, in their order.
        raws: where each raw content begins and ends.
        raws_last: whether the raw contents follow each other at the end, as every client sends them.
    """

    prefix: bytes
    raws: tuple[tuple[int, int], ...]
    raws_last: bool

    def raw_nbytes(self) -> tuple[int, ...]:
        """The length of each raw content."""
        return tuple(end - start for start, end in self.raws)

    def payload(self, message: Buffer, head: InferHead) -> list[Buffer]:
        """The raw contents that are the head's inputs; of a memoryview they are views."""
        count = sum(tensor.data is None for tensor in head.inputs)
        return [message[start:end] for start, end in self.raws[:count]]


def split(message: Buffer) -> Split:
    """Take a ``ModelInferRequest`` apart without copying its raw contents.

    Raises:
        InternalError: the message is no valid protobuf.
    """
    raws: list[tuple[int, int]] = []
    kept: list[Buffer] = []
    raws_last = True
    for tag, start, content, end in wire.fields(message):
        if tag == RAW_TAG:
            raws.append((content, end))
        else:
            kept.append(message[start:end])
            raws_last = not raws
    return Split(b"".join(kept), tuple(raws), raws_last)


def request_id(message: Buffer) -> str:
    """The id of a ``ModelInferRequest``, for the answer to one that cannot be decoded; ``""`` when there is none."""
    found = b""
    try:
        for tag, _, content, end in wire.fields(message):
            if tag == _ID_TAG:
                found = bytes(message[content:end])
    except InternalError:
        return ""
    return found.decode("utf-8", "replace")


def decode_head(prefix: bytes, raw_nbytes: Sequence[int]) -> InferHead:
    """Decode all of a ``ModelInferRequest`` but its raw contents.

    Args:
        prefix: the fields that are not raw contents.
        raw_nbytes: the length of each raw content.

    Raises:
        InternalError: the prefix is no valid protobuf.
        InvalidArgumentError: the request says something that cannot be.
        UnsupportedError: a tensor is in shared memory.
    """
    try:
        request = ModelInferRequest.FromString(prefix)
    except DecodeError:
        raise wire.malformed() from None
    version = parse_version(request.model_version)
    parameters = grpc_parameters.request(request.parameters)
    prefix_text = f"[request id: {request.id or '<id_unknown>'}] "
    _check_unique("input", request.inputs, prefix_text)
    _check_unique("output", request.outputs, prefix_text)
    inputs = _inputs(request, raw_nbytes)
    outputs = tuple(_output(output) for output in request.outputs)
    return InferHead(request.model_name, version, request.id, inputs, outputs, parameters)


def _check_unique(kind: str, tensors: Any, prefix: str) -> None:
    names: set[str] = set()
    for tensor in tensors:
        if tensor.name in names:
            raise InvalidArgumentError(f"{prefix}{kind} '{tensor.name}' already exists in request")
        names.add(tensor.name)


def _inputs(request: Any, raw_nbytes: Sequence[int]) -> tuple[InputHead, ...]:
    inputs: list[InputHead] = []
    sizes = iter(raw_nbytes)
    for tensor in request.inputs:
        _check_shared_memory(request, tensor)
        where = f"'{tensor.name}' for model '{request.model_name}'"
        data: bytes | None = None
        nbytes: int | None = 0
        if not tensor.HasField("contents"):
            nbytes = next(sizes, None)
        elif raw_nbytes:
            raise InvalidArgumentError(
                f"contents field must not be specified when using raw_input_contents for {where}"
            )
        else:
            data = _typed_contents(tensor, where)
        if nbytes is None:
            raise InvalidArgumentError(f"unable to find data for input tensor {where} in request.")
        inputs.append(_input(tensor, nbytes, data))
    return tuple(inputs)


def _check_shared_memory(request: Any, tensor: Any) -> None:
    if not tensor.parameters or not grpc_parameters.in_shared_memory(tensor.parameters, tensor.name):
        return
    if tensor.HasField("contents"):
        raise InvalidArgumentError(
            f"unexpected 'content' provided when using shared memory for input tensor '{tensor.name}' "
            f"for model '{request.model_name}'"
        )
    raise UnsupportedError(SHARED_MEMORY_DISABLED)


def _input(tensor: Any, nbytes: int, data: bytes | None) -> InputHead:
    datatype = BY_WIRE.get(tensor.datatype)
    if datatype is None:
        raise InvalidArgumentError(f"invalid datatype for input {tensor.name}")
    shape = tuple(tensor.shape)
    if shape and min(shape) < 0:
        raise InvalidArgumentError(f"input '{tensor.name}' has a negative dimension in its shape {list(shape)}")
    parameters = grpc_parameters.tensor_parameters(tensor.parameters, _SHARED_MEMORY)
    return InputHead(tensor.name, datatype, shape, nbytes, data, parameters)


def _typed_contents(tensor: Any, where: str) -> bytes:
    """The wire bytes of an input's typed contents, which must stand in the one field of its type (rule 18)."""
    contents = tensor.contents
    data: bytes | None = None
    for name, datatypes, encode in _CONTENTS:
        values = getattr(contents, name)
        if not values:
            continue
        text = f"unexpected explicit tensor data for input tensor {where}"
        if data:
            raise InvalidArgumentError(f"{text}, binary data was already supplied.")
        datatype = BY_WIRE.get(tensor.datatype)
        if datatype not in datatypes:
            # Of several narrow types that share a field, Triton names the one that the field is made for.
            expected = datatype.wire if datatype else "<invalid>"
            raise InvalidArgumentError(f"{text} of type '{datatypes[-1].wire}', expected datatype '{expected}'")
        data = encode(values, datatype)
    return data or b""


def _packed(code: str) -> Callable[[Any, DataType], bytes]:
    return lambda values, _datatype: array(code, values).tobytes()


def _narrowed(values: Any, datatype: DataType) -> bytes:
    """32-bit integers, of the narrower types the low bytes of each, as in Triton."""
    if datatype.itemsize == 4:
        return array("i" if datatype is DataType.INT32 else "I", values).tobytes()
    mask = (1 << 8 * datatype.itemsize) - 1
    return array("B" if datatype.itemsize == 1 else "H", [value & mask for value in values]).tobytes()


_CONTENTS: tuple[tuple[str, tuple[DataType, ...], Callable[[Any, DataType], bytes]], ...] = (
    ("bool_contents", (DataType.BOOL,), _packed("B")),
    ("int_contents", (DataType.INT8, DataType.INT16, DataType.INT32), _narrowed),
    ("int64_contents", (DataType.INT64,), _packed("q")),
    ("uint_contents", (DataType.UINT8, DataType.UINT16, DataType.UINT32), _narrowed),
    ("uint64_contents", (DataType.UINT64,), _packed("Q")),
    ("fp32_contents", (DataType.FP32,), _packed("f")),
    ("fp64_contents", (DataType.FP64,), _packed("d")),
    ("bytes_contents", (DataType.BYTES,), lambda values, _datatype: bytes_tensors.pack(values)),
)
"""The fields of typed contents in Triton's order: name, the types that it carries, how to encode it."""


def _output(output: Any) -> OutputHead:
    if not output.parameters:
        return OutputHead(output.name)
    in_region = grpc_parameters.in_shared_memory(output.parameters, output.name)
    classes = grpc_parameters.classes(output.parameters)
    if in_region and "classification" in output.parameters:
        raise InvalidArgumentError("output can't set both 'shared_memory_region' and 'classification'")
    if in_region:
        raise UnsupportedError(SHARED_MEMORY_DISABLED)
    parameters = grpc_parameters.tensor_parameters(output.parameters, _HANDLED_IN_OUTPUT)
    return OutputHead(output.name, True, classes, parameters)
