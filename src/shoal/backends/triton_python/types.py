"""Triton's element types and NumPy's: the conversions of ``triton_python_backend_utils``."""

from __future__ import annotations

from typing import Any

import numpy as np

from shoal.datatypes import BY_NUMBER, DataType

_SCALARS: dict[DataType, Any] = {
    datatype: np.dtype(datatype.numpy).type for datatype in DataType if datatype is not DataType.BF16
}

TRITON_STRING_TO_NUMPY: dict[str, Any] = {
    datatype.config: bool if datatype is DataType.BOOL else scalar for datatype, scalar in _SCALARS.items()
}
"""NumPy types by the configuration's names, such as ``TYPE_FP32``."""

_NUMBERS: dict[Any, int] = {np.dtype(scalar): datatype.number for datatype, scalar in _SCALARS.items()}


def triton_to_numpy_type(data_type: int) -> Any:
    """The NumPy type of a data type's number; None for BF16 and for numbers that are no type."""
    datatype = BY_NUMBER.get(data_type)
    return None if datatype is None else _SCALARS.get(datatype)


def numpy_to_triton_type(data_type: Any) -> int | None:
    """The number of a NumPy type's data type; None when Triton has none for it."""
    dtype = np.dtype(data_type)
    if dtype.kind == "S":
        return DataType.BYTES.number
    return _NUMBERS.get(dtype)


def triton_string_to_numpy(triton_type_string: str) -> Any:
    """The NumPy type of a configuration's data type, such as ``TYPE_FP32``.

    Raises:
        KeyError: it is no data type, or one without a NumPy type (``TYPE_BF16``).
    """
    return TRITON_STRING_TO_NUMPY[triton_type_string]
