"""The tensor data types of the v2 protocol, each with its three names, its size and its NumPy type.

Everywhere inside Shoal a tensor is its little-endian, row-major wire bytes: what the binary extension and gRPC's raw
contents carry. ``BYTES`` elements are a 4-byte little-endian length and that many bytes each.
"""

from __future__ import annotations

from enum import Enum


class DataType(Enum):
    """A tensor element type.

    Attributes:
        wire: the name in the v2 protocol, such as ``FP32``.
        config: the name in ``config.pbtxt``, such as ``TYPE_FP32``.
        number: the enum value in ``config.pbtxt``'s protobuf.
        itemsize: bytes per element; 0 for ``BYTES``, whose elements vary.
        numpy: NumPy's type string; ``""`` for BF16 (NumPy has none) and ``"O"`` for BYTES.
    """

    BOOL = ("BOOL", 1, 1, "?")
    UINT8 = ("UINT8", 2, 1, "u1")
    UINT16 = ("UINT16", 3, 2, "<u2")
    UINT32 = ("UINT32", 4, 4, "<u4")
    UINT64 = ("UINT64", 5, 8, "<u8")
    INT8 = ("INT8", 6, 1, "i1")
    INT16 = ("INT16", 7, 2, "<i2")
    INT32 = ("INT32", 8, 4, "<i4")
    INT64 = ("INT64", 9, 8, "<i8")
    FP16 = ("FP16", 10, 2, "<f2")
    FP32 = ("FP32", 11, 4, "<f4")
    FP64 = ("FP64", 12, 8, "<f8")
    BYTES = ("BYTES", 13, 0, "O")
    BF16 = ("BF16", 14, 2, "")

    def __init__(self, wire: str, number: int, itemsize: int, numpy: str) -> None:
        self.wire = wire
        self.config = "TYPE_STRING" if wire == "BYTES" else f"TYPE_{wire}"
        self.number = number
        self.itemsize = itemsize
        self.numpy = numpy

    __hash__ = object.__hash__  # members are single objects; Enum's own hash is a slow Python function

    def __repr__(self) -> str:
        return self.wire


BY_WIRE: dict[str, DataType] = {datatype.wire: datatype for datatype in DataType}
BY_CONFIG: dict[str, DataType] = {datatype.config: datatype for datatype in DataType}
BY_NUMBER: dict[int, DataType] = {datatype.number: datatype for datatype in DataType}
BY_NUMPY: dict[str, DataType] = {
    datatype.numpy.lstrip("<"): datatype for datatype in DataType if datatype.numpy not in ("", "O")
}
"""Keyed by NumPy's kind and size without byte order, such as ``f4``; BOOL is ``?``."""


def element_count(shape: tuple[int, ...]) -> int:
    """The number of elements of a tensor of this shape; 1 for a scalar, 0 when any dimension is 0."""
    count = 1
    for dimension in shape:
        count *= dimension
    return count
