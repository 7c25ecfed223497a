"""JSON text to objects, as strict and as lenient as Triton's parser, and with its errors (rules 11 and 12).

Three parsers, the fastest first. msgspec reads what is plain JSON. The standard library reads ``NaN``, ``Infinity``
and strings that are not UTF-8. What is left is malformed, or uses something that only Triton's own parser takes, and
goes to ``rest_json_strict``, which knows Triton's error texts; it is slow, so for a very long text the error is
approximate.
"""

from __future__ import annotations

import json
import re
from typing import NoReturn

import msgspec

from shoal.errors import InternalError
from shoal.protocols import rest_json_strict
from shoal.requests import Buffer

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

_STRICT_NBYTES = 64 * 1024
"""A longer text never goes to the strict parser: it takes about a microsecond per byte, on the event loop."""

_NEEDS_STRICT = re.compile(rb"\\u[dD]|[eE]\+?[0-9]{3}|[0-9]{300}")
"""What the standard library reads in another way than Triton: lone surrogates, and numbers beyond FP64."""


def parse(text: Buffer) -> object:
    """Parse a JSON text into dicts, lists, strings, ints, floats, bools and None.

    Bytes of a string that are not UTF-8 become lone surrogates (``surrogateescape``). Of a repeated key the last value
    counts.

    Raises:
        InternalError: the text is not JSON; Triton's message with the position.
        InvalidArgumentError: it is nested far too deep.
    """
    try:
        return _decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return _parse_unusual(bytes(text))


def _parse_unusual(text: bytes) -> object:
    short = len(text) <= _STRICT_NBYTES
    if not short or not _NEEDS_STRICT.search(text):
        try:
            return json.loads(text.decode("utf-8", "surrogateescape"))
        except (ValueError, RecursionError) as error:
            if not short:
                _raise_approximate(error)
    return rest_json_strict.parse(text)


def _raise_approximate(error: Exception) -> NoReturn:
    if isinstance(error, RecursionError):
        raise rest_json_strict.too_deep() from None
    position = error.pos if isinstance(error, json.JSONDecodeError) else 0
    raise InternalError(f"failed to parse the request JSON buffer: Invalid value. at {position}") from None


def dump(value: object) -> bytes:
    """An object as compact JSON; ``NaN`` and the infinities are written as such (rule 11).

    Lone surrogates in strings become the bytes that they stand for.
    """
    try:
        text = _encode(value)
    except (UnicodeEncodeError, OverflowError):
        return _dump_unusual(value)
    # msgspec writes null for a number that plain JSON does not have.
    return _dump_unusual(value) if b"null" in text else text


def _dump_unusual(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogateescape")
