"""Header blocks that we send, encoded without state: indices into the static table, and literals that are not stored.

A stateless block is the same bytes on every connection, so constant responses are built once (RFC 7541 section 6.2).
"""

from __future__ import annotations

from collections.abc import Iterable

from hpack.table import HeaderTable

SHRINK_TABLE = b"\x20"
"""Tells the client that we use no dynamic table; owed after it announced a smaller one (RFC 7541 section 4.2)."""

_CONNECTION_SPECIFIC = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}
_MEMO_ENTRIES = 512
_translated: dict[tuple[int, bytes], bytes] = {}


def integer(value: int, prefix_bits: int, pattern: int) -> bytes:
    """An HPACK integer (RFC 7541 section 5.1) whose first byte also carries ``pattern``."""
    limit = (1 << prefix_bits) - 1
    if value < limit:
        return bytes((pattern | value,))
    value -= limit
    encoded = bytearray((pattern | limit,))
    while value >= 128:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _string(value: bytes) -> bytes:
    return integer(len(value), 7, 0) + value


def field(name: bytes, value: bytes) -> bytes:
    """One header field: from the static table where it stands there whole, else a literal without indexing."""
    index, values = HeaderTable.STATIC_TABLE_MAPPING.get(name, (0, {}))
    exact = values.get(value)
    if exact is not None:
        return integer(exact, 7, 0x80)
    if index:
        return integer(index, 4, 0) + _string(value)
    return b"\0" + _string(name) + _string(value)


def block(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The header block of these fields."""
    return b"".join([field(name, value) for name, value in headers])


def response_block(status: int, headers: bytes) -> bytes:
    """The header block of an HTTP response whose headers are lines as HTTP/1.1 has them, remembered by its bytes.

    Fields that belong to an HTTP/1.1 connection are left out (RFC 9113 section 8.2.2).
    """
    key = (status, headers)
    known = _translated.get(key)
    if known is None:
        if len(_translated) >= _MEMO_ENTRIES:
            _translated.clear()
        known = _translated[key] = _translate(status, headers)
    return known


def _translate(status: int, headers: bytes) -> bytes:
    encoded = field(b":status", b"%d" % status)
    for line in headers.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        name = name.strip().lower()
        if colon and name.decode("latin-1") not in _CONNECTION_SPECIFIC:
            encoded += field(name, value.strip())
    return encoded
