"""An inference response to a ``ModelInferResponse``, alone or in a ``ModelStreamInferResponse`` (rules 19, 23, 24).

All of a message but the tensors' bytes is known from the request's head and the response's layout, so it is made once
and kept in the layout. The messages are put together by hand, so that large tensors are never copied.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from shoal.errors import InvalidArgumentError
from shoal.protocols import wire
from shoal.protocols.infer_encode import Labels, check_count, classified, remember, requested
from shoal.requests import LATEST, Buffer, InferHead, InferResponse, Parameter, ResponseLayout, TensorHead

MAX_MESSAGE_NBYTES = 2**31 - 1
JOIN_NBYTES = 64 * 1024
"""A message up to this length is joined to one buffer; of a longer one the tensors stay where they are."""

_MODEL_NAME, _MODEL_VERSION, _ID, _PARAMETERS, _OUTPUTS, _RAW = range(1, 7)
_NAME, _DATATYPE, _SHAPE = range(1, 4)
_KEY, _VALUE = 1, 2
_BOOL, _INT64, _STRING, _DOUBLE, _UINT64 = range(1, 6)
_ERROR_MESSAGE, _INFER_RESPONSE = 1, 2
_INT64_END = 2**63
_FINAL = "triton_final_response"


class _Skeleton:
    """A message without its tensors' bytes.

    Attributes:
        head: the request's head that it was made for.
        sizes: the length of each output for which it holds.
        parts: what comes before each output's bytes; one part even when there is no output.
        join: whether the message is short enough to be joined.
    """

    __slots__ = ("head", "join", "parts", "sizes")

    def __init__(self, head: InferHead, sizes: list[int], parts: list[bytes]) -> None:
        self.head = head
        self.sizes = sizes
        self.parts = parts
        self.join = sum(map(len, parts)) + sum(sizes) <= JOIN_NBYTES

    def fill(self, data: Sequence[Buffer]) -> list[Buffer]:
        """The message: the parts and the tensors' bytes in turn."""
        if not data:
            return [self.parts[0]]
        buffers: list[Buffer] = [b""] * (2 * len(data))
        buffers[::2] = self.parts
        buffers[1::2] = data
        return [b"".join(buffers)] if self.join else buffers


def encode_response(head: InferHead, response: InferResponse, labels: Labels, *, batched: bool) -> list[Buffer]:
    """Encode the answer of ``ModelInfer``.

    Args:
        head: the request's head.
        response: the answer.
        labels: an output's class labels.
        batched: whether the first dimension of the model's outputs is the batch.

    Returns:
        The message as buffers that follow each other: one of a small message, else the tensors' own among others.

    Raises:
        InvalidArgumentError: an output's type has no classes, or the message is longer than gRPC allows.
        InternalError: the number of outputs is wrong.
    """
    return _encode(head, response, labels, batched=batched, final=None)


def encode_stream_response(
    head: InferHead, response: InferResponse, labels: Labels, *, batched: bool, final: bool
) -> list[Buffer]:
    """Encode one answer of ``ModelStreamInfer``; ``final`` marks the request's last one (rule 24).

    Raises:
        InvalidArgumentError: as ``encode_response``.
        InternalError: as ``encode_response``.
    """
    return _encode(head, response, labels, batched=batched, final=final)


def encode_stream_final(head: InferHead) -> bytes:
    """The empty message that ends a decoupled request's answers where the client asked for it (rule 24).

    It repeats the version of the request, so there is none when the request named none.
    """
    return wire.field(_INFER_RESPONSE, _words(head, final=True))


def encode_stream_refusal(message: str, request_id: str) -> bytes:
    """The answer in a stream, which stays open, to a request that never came to its model (rule 23)."""
    return wire.string_field(_ERROR_MESSAGE, message) + wire.field(_INFER_RESPONSE, wire.string_field(_ID, request_id))


def encode_stream_failure(message: str, head: InferHead, *, final: bool = True) -> bytes:
    """The answer in a stream, which stays open, to a request that failed in its model or on the way to it (rule 23).

    One of the answers of a decoupled request may be an error without being the last: ``final`` is False then.
    """
    return wire.string_field(_ERROR_MESSAGE, message) + wire.field(_INFER_RESPONSE, _words(head, final=final))


def _words(head: InferHead, *, final: bool) -> bytes:
    version = "" if head.model_version == LATEST else str(head.model_version)
    return _identity(head.model_name, version, head.request_id) + _parameter(_FINAL, value=final)


def _encode(
    head: InferHead, response: InferResponse, labels: Labels, *, batched: bool, final: bool | None
) -> list[Buffer]:
    key: object = id(head) if final is None else (id(head), final)
    known: Any = response.layout.encoded.get(key)
    data = response.data
    if (
        known.__class__ is _Skeleton
        and known.head is head
        and response.parameters is None
        and known.sizes == list(map(len, data))
    ):
        return known.fill(data)
    skeleton, data = _encode_new(head, response, labels, batched=batched, final=final)
    if response.parameters is None and data is response.data:
        remember(response.layout, key, skeleton)
    return skeleton.fill(data)


def _encode_new(
    head: InferHead, response: InferResponse, labels: Labels, *, batched: bool, final: bool | None
) -> tuple[_Skeleton, Sequence[Buffer]]:
    layout = response.layout
    check_count(layout, response.data)
    wanted = requested(head, layout)
    tensors, data = classified(layout.outputs, response.data, wanted, labels, batched=batched)
    parameters: dict[str, Parameter] = dict(response.parameters or {})
    if final is not None:
        parameters[_FINAL] = final
    parts = _parts(_front(head, layout, parameters, tensors), data)
    message_nbytes = sum(map(len, parts)) + sum(memoryview(buffer).nbytes for buffer in data)
    if message_nbytes > MAX_MESSAGE_NBYTES:
        raise InvalidArgumentError(
            f"Response has byte size {message_nbytes} which exceeds gRPC's byte size limit {MAX_MESSAGE_NBYTES}."
        )
    if final is not None:
        parts[0] = wire.varint(_INFER_RESPONSE << 3 | wire.BYTES) + wire.varint(message_nbytes) + parts[0]
    return _Skeleton(head, [memoryview(buffer).nbytes for buffer in data], parts), data


def _front(
    head: InferHead, layout: ResponseLayout, parameters: dict[str, Parameter], tensors: Sequence[TensorHead]
) -> bytes:
    """All of a ``ModelInferResponse`` that comes before the raw contents."""
    return b"".join(
        [
            _identity(layout.model_name, str(layout.model_version), head.request_id),
            *(_parameter(name, value) for name, value in parameters.items()),
            *map(_output, tensors),
        ]
    )


def _identity(model_name: str, model_version: str, request_id: str) -> bytes:
    return (
        wire.string_field(_MODEL_NAME, model_name)
        + wire.string_field(_MODEL_VERSION, model_version)
        + wire.string_field(_ID, request_id)
    )


def _parts(front: bytes, data: Sequence[Buffer]) -> list[bytes]:
    """Tag and length before each raw content, the first with the front of the message."""
    tag = wire.varint(_RAW << 3 | wire.BYTES)
    parts = [tag + wire.varint(memoryview(buffer).nbytes) for buffer in data]
    return [front + parts[0], *parts[1:]] if parts else [front]


def _output(tensor: TensorHead) -> bytes:
    shape = b"".join(map(wire.varint, tensor.shape))
    return wire.field(
        _OUTPUTS,
        wire.string_field(_NAME, tensor.name)
        + wire.string_field(_DATATYPE, tensor.datatype.wire)
        + (wire.field(_SHAPE, shape) if shape else b""),
    )


def _parameter(name: str, value: Parameter) -> bytes:
    """An entry of the response's ``parameters``."""
    return wire.field(_PARAMETERS, wire.string_field(_KEY, name) + wire.field(_VALUE, _choice(value)))


def _choice(value: Parameter) -> bytes:
    if isinstance(value, bool):
        return wire.varint(_BOOL << 3 | wire.VARINT) + wire.varint(value)
    if isinstance(value, int) and -_INT64_END <= value < 2 * _INT64_END:
        number = _INT64 if value < _INT64_END else _UINT64
        return wire.varint(number << 3 | wire.VARINT) + wire.varint(value)
    if isinstance(value, int | float):
        return wire.varint(_DOUBLE << 3 | wire.FIXED64) + struct.pack("<d", value)
    return wire.field(_STRING, value.encode("utf-8", "replace"))
