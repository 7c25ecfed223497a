"""The small encodings of gRPC over HTTP/2: timeouts, status messages, binary metadata, compression."""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Sequence
from functools import lru_cache

from shoal.requests import Buffer
from shoal.transport import hpack_blocks

OK, CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 0, 1, 4, 8, 12, 13, 14

ENCODINGS = ("identity", "gzip", "deflate")
ACCEPT_ENCODING = "identity, deflate, gzip"
_WINDOW_BITS = {"gzip": 31, "deflate": 15}

_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])").fullmatch
_UNIT_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_NOT_PLAIN = re.compile(rb"[^ -$&-~]")

HEAD_BLOCK = hpack_blocks.block([(b":status", b"200"), (b"content-type", b"application/grpc")])
"""The header block of every uncompressed response."""
OK_BLOCK = hpack_blocks.block([(b"grpc-status", b"0")])
"""The trailers of every call that ends well."""


class CompressionError(Exception):
    """A compressed message cannot be read; carries the gRPC code that the call ends with.

    Attributes:
        code: the gRPC status code.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def is_grpc(content_type: str) -> bool:
    """Whether a content type is ``application/grpc``, with or without ``+proto`` or parameters."""
    return content_type[:16].lower() == "application/grpc" and content_type[16:17] in {"", "+", ";"}


def parse_timeout(value: str) -> float:
    """Seconds of a ``grpc-timeout`` such as ``250m``.

    Raises:
        ValueError: it is not one to eight digits and a unit.
    """
    match = _TIMEOUT(value)
    if match is None:
        raise ValueError(f"grpc-timeout '{value}' is malformed; it takes up to 8 digits and one of H, M, S, m, u, n")
    return int(match[1]) * _UNIT_S[match[2]]


def encode_message(message: str) -> bytes:
    """A status message as the ``grpc-message`` header takes it: percent-encoded UTF-8."""
    return _NOT_PLAIN.sub(lambda match: b"%%%02X" % match[0][0], message.encode("utf-8", "replace"))


def decode_metadata(headers: dict[str, str]) -> dict[str, str | bytes]:
    """The headers with the values of ``-bin`` names decoded; values of a repeated name stay joined by a comma.

    Raises:
        ValueError: a binary value is not base64.
    """
    metadata: dict[str, str | bytes] = dict(headers)
    for name, value in headers.items():
        if name.endswith("-bin"):
            try:
                metadata[name] = b",".join([_base64(item.strip()) for item in value.split(",")])
            except ValueError as error:
                raise ValueError(f"metadata '{name}' is not base64: {error}") from error
    return metadata


def _base64(value: str) -> bytes:
    return base64.b64decode(value + "=" * (-len(value) % 4), validate=True)


def response_encoding(accepted: str) -> str:
    """Which compression we may use towards a client that sent this ``grpc-accept-encoding``; empty for none."""
    names = {item.strip() for item in accepted.split(",")}
    return next((name for name in ("gzip", "deflate") if name in names), "")


def compressed_head_block(encoding: str) -> bytes:
    """The header block of a response whose messages may be compressed."""
    return HEAD_BLOCK + hpack_blocks.block([(b"grpc-encoding", encoding.encode())])


@lru_cache(maxsize=256)
def status_block(code: int, message: str, pushback_ms: int = 0) -> bytes:
    """The trailers of a call that ends with this status.

    Args:
        code: the status.
        message: its text.
        pushback_ms: when the client may try again (gRFC A6); 0 to say nothing of it.
    """
    if code == OK and not message:
        return OK_BLOCK
    block = hpack_blocks.field(b"grpc-status", b"%d" % code)
    if message:
        block += hpack_blocks.field(b"grpc-message", encode_message(message))
    if pushback_ms:
        block += hpack_blocks.field(b"grpc-retry-pushback-ms", b"%d" % pushback_ms)
    if code == UNIMPLEMENTED:
        block += hpack_blocks.field(b"grpc-accept-encoding", ACCEPT_ENCODING.encode())
    return block


def compress(message: Sequence[Buffer], encoding: str, level: int) -> bytes:
    """A response message, compressed."""
    compressor = zlib.compressobj(level, wbits=_WINDOW_BITS[encoding])
    return b"".join([*map(compressor.compress, message), compressor.flush()])


def decompress(message: Buffer, encoding: str, limit_nbytes: int) -> bytes:
    """A request message, decompressed, never to more than the limit.

    Raises:
        CompressionError: it is not compressed as the client said, or is longer than the limit.
    """
    bits = _WINDOW_BITS.get(encoding)
    if bits is None:
        raise CompressionError(INTERNAL, "a message is marked as compressed, but the call has no grpc-encoding")
    decompressor = zlib.decompressobj(wbits=bits)
    try:
        plain = decompressor.decompress(message, limit_nbytes + 1)
    except zlib.error as error:
        raise CompressionError(INTERNAL, f"a message is not valid {encoding}: {error}") from error
    if len(plain) > limit_nbytes:
        raise CompressionError(RESOURCE_EXHAUSTED, f"a message is longer than {limit_nbytes} bytes when decompressed")
    if not decompressor.eof or decompressor.unused_data:
        raise CompressionError(INTERNAL, f"a message is not one whole {encoding} stream")
    return plain
