"""The wire form of BYTES tensors: per element a 4-byte little-endian length and that many bytes (rule 8)."""

from __future__ import annotations

from collections.abc import Iterable

from shoal.requests import Buffer


def pack(elements: Iterable[bytes]) -> bytes:
    """The wire bytes of these elements."""
    parts: list[bytes] = []
    for element in elements:
        parts.append(len(element).to_bytes(4, "little"))
        parts.append(element)
    return b"".join(parts)


def unpack(data: Buffer, count: int) -> list[bytes] | None:
    """The first ``count`` elements of a BYTES tensor; None when the data holds fewer or its last is cut off."""
    view = memoryview(data)
    elements: list[bytes] = []
    start = 0
    for _ in range(count):
        content = start + 4
        end = content + int.from_bytes(view[start:content], "little")
        if content > len(view) or end > len(view):
            return None
        elements.append(bytes(view[content:end]))
        start = end
    return elements
