"""The protobuf wire format, as far as it is read and written by hand: varints, lengths and the fields of one level."""

from __future__ import annotations

from collections.abc import Iterator

from shoal.errors import InternalError
from shoal.requests import Buffer

VARINT, FIXED64, BYTES, GROUP, END_GROUP, FIXED32 = range(6)
_FIXED_NBYTES = {FIXED64: 8, FIXED32: 4}
_MAX_TAG = 2**32
_MAX_VARINT = 2**64
_MAX_GROUP_DEPTH = 100


def malformed() -> InternalError:
    """The error of a message that is no valid protobuf, with gRPC's text."""
    return InternalError("Unable to parse request")


def varint(value: int) -> bytes:
    """An integer as a varint; a negative one in the ten bytes of its 64-bit two's complement."""
    if value < 0:
        value += _MAX_VARINT
    if value < 0x80:
        return bytes((value,))
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    return varint(number << 3 | BYTES) + varint(len(content)) + content


def string_field(number: int, text: str) -> bytes:
    """A string field; nothing for an empty string, as proto3 has it."""
    return field(number, text.encode("utf-8", "replace")) if text else b""


def read_varint(data: Buffer, at: int) -> tuple[int, int]:
    """The varint at an offset, and the offset behind it.

    Raises:
        InternalError: it is cut off or longer than 64 bits.
    """
    value = shift = 0
    try:
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 63:
                raise malformed()
    except IndexError:
        raise malformed() from None
    if value >= _MAX_VARINT:
        raise malformed()
    return value, at


def fields(data: Buffer) -> Iterator[tuple[int, int, int, int]]:
    """The top-level fields of a message.

    Yields:
        The tag (number and wire type), and the offsets of the tag, of the content and behind the content.

    Raises:
        InternalError: the data is no valid protobuf.
    """
    at, end = 0, len(data)
    while at < end:
        start = at
        tag, at = read_varint(data, at)
        content, at = _skip(data, tag, at, end, 0)
        yield tag, start, content, at


def _skip(data: Buffer, tag: int, at: int, end: int, depth: int) -> tuple[int, int]:
    """The offsets of a field's content and behind it."""
    kind = tag & 7
    if tag < 8 or tag >= _MAX_TAG:
        raise malformed()
    content = at
    if kind == BYTES:
        nbytes, content = read_varint(data, at)
        at = content + nbytes
    elif kind == VARINT:
        _, at = read_varint(data, at)
    elif kind in _FIXED_NBYTES:
        at += _FIXED_NBYTES[kind]
    elif kind == GROUP:
        at = _skip_group(data, tag, at, end, depth + 1)
    else:
        raise malformed()
    if at > end:
        raise malformed()
    return content, at


def _skip_group(data: Buffer, start_tag: int, at: int, end: int, depth: int) -> int:
    if depth > _MAX_GROUP_DEPTH:
        raise malformed()
    while True:
        tag, at = read_varint(data, at)
        if tag == start_tag + 1:
            return at
        _, at = _skip(data, tag, at, end, depth)
