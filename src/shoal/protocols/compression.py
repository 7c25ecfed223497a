"""Content encodings of HTTP bodies: gzip and deflate, in both directions (rule 16)."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import lru_cache

from shoal.errors import InvalidArgumentError, UnsupportedError
from shoal.requests import Buffer

ACCEPTED = "gzip, deflate"
"""The value of the ``Accept-Encoding`` header in the answer to a request with any other encoding."""

_ANY_FORMAT = zlib.MAX_WBITS | 32
_FORMATS = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}


def decompress(encoding: str | None, body: Buffer, limit_nbytes: int) -> Buffer:
    """A request's body without its content encoding.

    As in Triton, gzip and deflate are told apart by the data itself, and what follows its end is ignored.

    Args:
        encoding: the request's ``Content-Encoding``, None when it has none.
        body: the body as received.
        limit_nbytes: how long the result may be.

    Raises:
        UnsupportedError: an encoding other than gzip, deflate and identity; answer with ``ACCEPTED``.
        InvalidArgumentError: the data is damaged, cut off, or too long when decompressed.
    """
    if encoding is None or encoding in ("", "identity"):
        return body
    if encoding not in _FORMATS:
        raise UnsupportedError("Unsupported compression type")
    if not len(body):
        raise InvalidArgumentError("nothing to be decompressed")
    stream = zlib.decompressobj(_ANY_FORMAT)
    try:
        # One byte more than allowed tells too long from just fitting.
        result = stream.decompress(body, limit_nbytes + 1)
    except zlib.error as error:
        raise InvalidArgumentError(f"unable to decompress the request body as {encoding}: {error}") from None
    if len(result) > limit_nbytes:
        raise InvalidArgumentError(
            f"decompressed request body size exceeds the maximum allowed value of {limit_nbytes} bytes. "
            "Use --http-max-input-size to increase the limit."
        )
    if not stream.eof:
        raise InvalidArgumentError(f"unable to decompress the request body as {encoding}: the data is cut off")
    return result


@lru_cache(maxsize=256)
def response_encoding(accept: str | None) -> str | None:
    """The encoding for a response: the client's heaviest of gzip, deflate and identity; None for identity.

    Among equal weights the first one wins. A weight that is no number leaves its encoding out.

    Args:
        accept: the request's ``Accept-Encoding``, None when it has none.
    """
    best, best_weight = "identity", 0.0
    for item in (accept or "").split(","):
        name, _, parameters = item.partition(";")
        weight = _weight(parameters)
        if name.strip().lower() in ("gzip", "deflate", "identity") and weight > best_weight:
            best, best_weight = name.strip().lower(), weight
    return None if best == "identity" else best


def _weight(parameters: str) -> float:
    name, _, value = parameters.strip().partition("=")
    if name.strip().lower() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0


def compress(encoding: str, body: Sequence[Buffer]) -> bytes:
    """A response's body, compressed.

    Args:
        encoding: ``gzip`` or ``deflate``.
        body: the buffers that follow each other.
    """
    stream = zlib.compressobj(wbits=_FORMATS[encoding])
    parts = [stream.compress(buffer) for buffer in body]
    parts.append(stream.flush())
    return b"".join(parts)
