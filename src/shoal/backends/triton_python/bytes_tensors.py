"""BYTES tensors as Triton's wire bytes: a 4-byte little-endian length and that many bytes per element."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_LENGTH_NBYTES = 4


def serialize_byte_tensor(input_tensor: NDArray[Any]) -> bytes | tuple[()] | None:
    """The wire bytes of an array of bytes or text.

    Args:
        input_tensor: an object array, whose elements that are not bytes go as the UTF-8 of their text, or an array of
            NumPy bytes (which drops trailing zeros).

    Returns:
        The bytes; an empty tuple for an array without elements and None for other arrays, as in Triton.
    """
    if input_tensor.size == 0:
        return ()
    if input_tensor.dtype.kind not in "OS":
        return None
    pieces = []
    for element in input_tensor.reshape(-1).tolist():
        data = element if isinstance(element, bytes) else str(element).encode()
        pieces += [len(data).to_bytes(_LENGTH_NBYTES, "little"), data]
    return b"".join(pieces)


def deserialize_bytes_tensor(encoded_tensor: bytes) -> NDArray[Any]:
    """The one-dimensional object array of bytes that ``serialize_byte_tensor`` was given.

    Raises:
        ValueError: the bytes end in the middle of an element.
    """
    elements, position, end = [], 0, len(encoded_tensor)
    while position < end:
        start = position + _LENGTH_NBYTES
        position = start + int.from_bytes(encoded_tensor[position:start], "little")
        if position > end:
            raise ValueError(f"the serialized tensor ends after {end} bytes, in the middle of an element")
        elements.append(bytes(encoded_tensor[start:position]))
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array
