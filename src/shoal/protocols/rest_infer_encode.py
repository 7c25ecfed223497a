"""An inference response to the body of a REST answer (rules 5 to 8, 10, 11, 13 and 14).

The hot path is a response whose outputs are all binary. All of its JSON is then known from the request's head and the
response's layout, so it is made once and kept in the layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shoal.protocols import rest_json, rest_json_tensors
from shoal.protocols.infer_encode import Labels, check_count, classified, remember, requested
from shoal.requests import Buffer, InferHead, InferResponse, OutputHead, Parameter, ResponseLayout, TensorHead


class _BinaryHeader:
    """The JSON of a response with binary outputs only.

    Attributes:
        head: the request's head that it was made for.
        sizes: the length of each output for which it holds.
        text: the JSON.
    """

    __slots__ = ("head", "sizes", "text")

    def __init__(self, head: InferHead, sizes: list[int], text: bytes) -> None:
        self.head = head
        self.sizes = sizes
        self.text = text


def encode_response(
    head: InferHead, response: InferResponse, labels: Labels, *, batched: bool
) -> tuple[int | None, list[Buffer]]:
    """Encode a response.

    Args:
        head: the request's head.
        response: the answer; its buffers are used as they are, none is copied.
        labels: an output's class labels.
        batched: whether the first dimension of the model's outputs is the batch.

    Returns:
        The length of the JSON part, for ``Inference-Header-Content-Length``, or None when no binary data follows it
        and the answer is plain JSON (rule 6); and the buffers of the body.

    Raises:
        InvalidArgumentError: an output has no JSON form (rule 10) or no classes.
        InternalError: the model's data does not fit its shape.
    """
    known: Any = response.layout.encoded.get(id(head))
    if (
        known.__class__ is _BinaryHeader
        and known.head is head
        and response.parameters is None
        and known.sizes == list(map(len, response.data))
    ):
        text: bytes = known.text
        return len(text), [text, *response.data]
    return _encode(head, response, labels, batched=batched)


def _encode(
    head: InferHead, response: InferResponse, labels: Labels, *, batched: bool
) -> tuple[int | None, list[Buffer]]:
    layout = response.layout
    check_count(layout, response.data)
    wanted = requested(head, layout)
    tensors, data = classified(layout.outputs, response.data, wanted, labels, batched=batched)
    text = _header(head, layout, response.parameters, list(map(_output, tensors, data, wanted)))
    binary = [_as_bytes(buffer) for buffer, output in zip(data, wanted, strict=True) if output.binary]
    binary = [buffer for buffer in binary if len(buffer)]
    if not binary:
        return None, [text]
    sizes = list(map(len, binary))
    # All binary, none empty and none a view of wider elements: then the next one with these lengths has this header.
    if response.parameters is None and data is response.data and sizes == list(map(len, data)):
        remember(layout, id(head), _BinaryHeader(head, sizes, text))
    return len(text), [text, *binary]


def _as_bytes(buffer: Buffer) -> Buffer:
    """The buffer with a length in bytes: a view of wider elements counts those."""
    return buffer.cast("B") if isinstance(buffer, memoryview) and buffer.nbytes != len(buffer) else buffer


def _header(
    head: InferHead, layout: ResponseLayout, parameters: Mapping[str, Parameter] | None, outputs: list[bytes]
) -> bytes:
    """The JSON object, with its members in Triton's order (rule 13)."""
    members: list[bytes] = []
    if head.request_id:
        members.append(b'"id":' + rest_json.dump(head.request_id))
    members.append(b'"model_name":' + rest_json.dump(layout.model_name))
    members.append(b'"model_version":"%d"' % layout.model_version)
    if parameters:
        members.append(b'"parameters":' + rest_json.dump(dict(parameters)))
    members.append(b'"outputs":[' + b",".join(outputs) + b"]")
    return b"{" + b",".join(members) + b"}"


def _output(tensor: TensorHead, data: Buffer, wanted: OutputHead) -> bytes:
    description = b'"name":%s,"datatype":"%s","shape":[%s]' % (
        rest_json.dump(tensor.name),
        tensor.datatype.wire.encode(),
        ",".join(map(str, tensor.shape)).encode(),
    )
    if wanted.binary:
        return b'{%s,"parameters":{"binary_data_size":%d}}' % (description, memoryview(data).nbytes)
    values = rest_json_tensors.encode(tensor.name, tensor.datatype, tensor.shape, data)
    return b'{%s,"data":%s}' % (description, values)
