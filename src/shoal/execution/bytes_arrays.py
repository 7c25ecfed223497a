"""BYTES tensors between wire bytes and NumPy object arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.datatypes import element_count
from shoal.errors import InvalidArgumentError
from shoal.protocols.bytes_tensors import pack, unpack
from shoal.requests import Buffer, Shape


def decode_bytes(data: Buffer, shape: Shape) -> NDArray[Any]:
    """The elements of a BYTES tensor as an object array of bytes.

    Raises:
        InvalidArgumentError: the data holds fewer elements than the shape.
    """
    count = element_count(shape)
    elements = unpack(data, count)
    if elements is None:
        raise InvalidArgumentError(f"a BYTES tensor of {len(data)} bytes holds fewer than {count} elements")
    array = np.empty(count, dtype=object)
    array[:] = elements
    return array.reshape(shape)


def encode_bytes(array: NDArray[Any]) -> bytes:
    """The wire bytes of an array of bytes or text; text becomes UTF-8."""
    elements = array.reshape(-1).tolist()
    return pack(element if isinstance(element, bytes) else str(element).encode() for element in elements)
