"""Strategies and helpers for tensors, shared by the protocol tests."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shoal.datatypes import DataType
from shoal.protocols import bytes_tensors

JSON_TYPES = [datatype for datatype in DataType if datatype not in (DataType.FP16, DataType.BF16)]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


def arrays(datatype: DataType) -> st.SearchStrategy[np.ndarray]:
    """Arrays of a type: any shape, zero elements and scalars too, any values."""
    if datatype is DataType.BYTES:
        return hnp.arrays(object, SHAPES, elements=st.text(max_size=6).map(str.encode))
    if datatype is DataType.BF16:
        return hnp.arrays(np.uint16, SHAPES)
    return hnp.arrays(np.dtype(datatype.numpy), SHAPES)


def wire_bytes(array: np.ndarray) -> bytes:
    """An array's wire bytes."""
    if array.dtype == object:
        return bytes_tensors.pack(array.ravel().tolist())
    return array.tobytes()


def no_labels(name: str) -> tuple[str, ...]:
    """A model without labels."""
    del name
    return ()
