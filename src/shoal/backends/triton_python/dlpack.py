"""DLPack through NumPy, BF16 included.

NumPy has no BF16, but its bits fit an array of ``uint16``: on the way in and out only the type code in the capsule's
header differs, which is patched in place (``DLTensor`` in DLPack's ``dlpack.h``).
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.backends.triton_python.errors import TritonModelException

CPU_DEVICE = (1, 0)
_CAPSULE_NAME = b"dltensor"
_DATA_TYPE_OFFSET = 20  # after the data pointer (8), the device (8) and the number of dimensions (4)
_UINT, _BFLOAT = 1, 4


class _Exporter:
    """Wraps a bare capsule as the protocol object that NumPy asks for."""

    __slots__ = ("_capsule",)

    def __init__(self, capsule: Any) -> None:
        self._capsule = capsule

    def __dlpack__(self, **_: Any) -> Any:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return CPU_DEVICE


def export_bf16(bits: NDArray[Any]) -> Any:
    """A capsule of BF16 elements over an array of their raw ``uint16`` bits."""
    capsule = bits.__dlpack__()
    _type_code(capsule).value = _BFLOAT
    return capsule


def import_dlpack(source: Any) -> tuple[NDArray[Any], bool]:
    """An array over the memory of a DLPack capsule, or of an object that exports one; nothing is copied.

    Returns:
        The array, and whether its ``uint16`` elements are the bits of BF16 numbers.

    Raises:
        TritonModelException: it is no DLPack tensor, or it does not lie in CPU memory.
    """
    if hasattr(source, "__dlpack__"):
        device = source.__dlpack_device__()
        if int(device[0]) != CPU_DEVICE[0]:
            raise TritonModelException(
                f"a DLPack tensor on device {tuple(device)} cannot be used: it must lie on the CPU"
            )
        source = source.__dlpack__()
    elif type(source).__name__ != "PyCapsule":
        raise TritonModelException(f"from_dlpack needs a DLPack capsule or tensor, not {type(source).__name__}")
    code = _type_code(source)
    is_bf16 = code.value == _BFLOAT
    if is_bf16:
        code.value = _UINT
    return np.from_dlpack(_Exporter(source)), is_bf16


def _type_code(capsule: Any) -> ctypes.c_uint8:
    pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
    pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    try:
        address = pointer_of(capsule, _CAPSULE_NAME)
    except ValueError as error:
        raise TritonModelException("the DLPack capsule was consumed before, or is of another kind") from error
    return ctypes.c_uint8.from_address(address + _DATA_TYPE_OFFSET)
