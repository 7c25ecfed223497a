"""BYTES tensors between wire bytes and NumPy object arrays, for the worker's side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LENGTH_NBYTES = 4


def decode_bytes(data: memoryview, shape: Sequence[int]) -> NDArray[Any]:
    """An object array of bytes out of a 4-byte little-endian length and that many bytes per element."""
    elements, position, end = [], 0, len(data)
    while position < end:
        start = position + LENGTH_NBYTES
        position = start + int.from_bytes(data[position:start], "little")
        elements.append(bytes(data[start:position]))
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array.reshape(shape)


def encode_bytes(array: NDArray[Any]) -> bytes:
    """The wire bytes of an array of bytes or text; text becomes UTF-8."""
    return b"".join(_encoded(array.reshape(-1).tolist()))


def _encoded(elements: Iterable[object]) -> Iterable[bytes]:
    for element in elements:
        data = element if isinstance(element, bytes) else str(element).encode()
        yield len(data).to_bytes(LENGTH_NBYTES, "little")
        yield data
