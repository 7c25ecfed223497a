"""A response as one string of bytes, for caches outside of this process.

::

    magic and format version | CRC-32 of what follows | length of the head | head (MessagePack) | tensors' bytes

What another program wrote under the same key, a value of another format version and one that was cut off are all told
apart from a response; the checksum begins with the key, so that a value that was copied to another key is none either.
"""

from __future__ import annotations

from struct import Struct
from zlib import crc32

import msgspec

from shoal.datatypes import BY_WIRE, element_count
from shoal.requests import Buffer, InferResponse, ResponseLayout, TensorHead

MAGIC = b"ShoalRC\x01"
"""Its last byte is the format's version."""

KEPT_LAYOUTS = 1024

_FRONT = Struct("<8sII")


class _Tensor(msgspec.Struct, array_like=True):
    name: str
    datatype: str
    shape: tuple[int, ...]
    nbytes: int


class _Head(msgspec.Struct, array_like=True):
    model_name: str
    model_version: int
    outputs: list[_Tensor]
    parameters: dict[str, bool | int | float | str] | None = None


class BrokenValueError(ValueError):
    """A value is no response that was kept under this key."""


class ResponseCodec:
    """Writes and reads responses; equal layouts are one object, so that what encoders made of them is used again."""

    def __init__(self) -> None:
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(_Head).decode
        self._layouts: dict[bytes, tuple[ResponseLayout, list[int], dict[str, bool | int | float | str] | None]] = {}

    def dump(self, key: bytes, response: InferResponse) -> bytes:
        """A response as bytes, to be kept under this key."""
        layout = response.layout
        tensors = [
            _Tensor(tensor.name, tensor.datatype.wire, tensor.shape, memoryview(data).nbytes)
            for tensor, data in zip(layout.outputs, response.data, strict=True)
        ]
        parameters = dict(response.parameters) if response.parameters else None
        head = self._encode(_Head(layout.model_name, layout.model_version, tensors, parameters))
        checksum = crc32(head, crc32(key))
        for data in response.data:
            checksum = crc32(data, checksum)
        return b"".join((_FRONT.pack(MAGIC, checksum, len(head)), head, *response.data))

    def load(self, key: bytes, value: bytes) -> InferResponse:
        """The response that was kept under this key.

        Raises:
            BrokenValueError: the value is something else.
        """
        if len(value) < _FRONT.size:
            raise BrokenValueError("it is too short")
        magic, checksum, head_nbytes = _FRONT.unpack_from(value)
        if magic != MAGIC:
            raise BrokenValueError("it is of another program, or of another version of Shoal")
        view = memoryview(value)
        if crc32(view[_FRONT.size :], crc32(key)) != checksum:
            raise BrokenValueError("its checksum is wrong")
        start = _FRONT.size + head_nbytes
        layout, sizes, parameters = self._layout(value[_FRONT.size : start])
        if start + sum(sizes) != len(value):
            raise BrokenValueError("its length is wrong")
        data: list[Buffer] = []
        for nbytes in sizes:
            data.append(view[start : start + nbytes])
            start += nbytes
        return InferResponse(layout, data, parameters)

    def _layout(self, head: bytes) -> tuple[ResponseLayout, list[int], dict[str, bool | int | float | str] | None]:
        known = self._layouts.get(head)
        if known is None:
            if len(self._layouts) >= KEPT_LAYOUTS:
                self._layouts.clear()
            known = self._layouts[head] = self._read_head(head)
        return known

    def _read_head(self, data: bytes) -> tuple[ResponseLayout, list[int], dict[str, bool | int | float | str] | None]:
        try:
            head = self._decode(data)
            tensors = [TensorHead(one.name, BY_WIRE[one.datatype], one.shape) for one in head.outputs]
        except (msgspec.MsgspecError, KeyError, ValueError) as error:
            raise BrokenValueError(f"its head cannot be read: {error}") from None
        for tensor, one in zip(tensors, head.outputs, strict=True):
            nbytes, itemsize = one.nbytes, tensor.datatype.itemsize
            if min((nbytes, *one.shape)) < 0 or (itemsize and nbytes != element_count(one.shape) * itemsize):
                raise BrokenValueError(f"its tensor '{one.name}' has the wrong length")
        layout = ResponseLayout(head.model_name, head.model_version, tuple(tensors))
        return layout, [one.nbytes for one in head.outputs], head.parameters
