"""``pb_utils.Tensor``: a name and a NumPy array."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.backends.triton_python.dlpack import CPU_DEVICE, export_bf16, import_dlpack
from shoal.backends.triton_python.errors import TritonModelException
from shoal.backends.triton_python.types import numpy_to_triton_type
from shoal.datatypes import DataType

Array = NDArray[Any]

_KINDS = frozenset("?bBhHiIlLqQefdOS")
"""NumPy's type characters that have a data type in Triton."""


class Tensor:
    """One input or output tensor of a request.

    Args:
        name: the tensor's name; positional only, as in Triton.
        array: its elements; BYTES is an object array of bytes or text, or an array of NumPy bytes.
    """

    __slots__ = ("_array", "_name")

    def __init__(self, name: str, array: Array, /) -> None:
        if not isinstance(array, np.ndarray) or not isinstance(name, str):
            found = f"{type(name).__name__} and {type(array).__name__}"
            raise TypeError(f"Tensor(name, array) takes a str and a NumPy array, not {found}")
        if not name:
            raise TritonModelException("Tensor name cannot be an empty string.")
        dtype = array.dtype
        if dtype.char not in _KINDS or not dtype.isnative:
            raise TritonModelException(f"NumPy dtype is not supported: tensor '{name}' has dtype {dtype}.")
        self._name = name
        self._array = array

    def name(self) -> str:
        """The tensor's name."""
        return self._name

    def as_numpy(self) -> Array:
        """Its elements; always the same array, not a copy."""
        return self._array

    def triton_dtype(self) -> int | None:
        """The number of its data type, as ``numpy_to_triton_type`` gives it."""
        return numpy_to_triton_type(self._array.dtype)

    def shape(self) -> list[int]:
        """Its shape, the batch dimension included."""
        return list(self._array.shape)

    def is_cpu(self) -> bool:
        """Whether it lies in CPU memory; it always does."""
        return True

    def to_dlpack(self) -> Any:
        """A DLPack capsule over its memory."""
        return self.__dlpack__()

    def __dlpack__(self, *, stream: Any = None, **options: Any) -> Any:
        if self._array.dtype.kind in "OS":
            raise TritonModelException(f"tensor '{self._name}' is BYTES, which DLPack does not have")
        return self._array.__dlpack__(stream=stream, **options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return CPU_DEVICE

    @staticmethod
    def from_dlpack(name: str, tensor: Any, /) -> Tensor:
        """A tensor over the memory of a DLPack capsule or of any object with ``__dlpack__``, such as a PyTorch tensor.

        Raises:
            TritonModelException: it is no DLPack tensor, does not lie in CPU memory or has no data type in Triton.
        """
        array, is_bf16 = import_dlpack(tensor)
        return BF16Tensor(name, array) if is_bf16 else Tensor(name, array)


class BF16Tensor(Tensor):
    """A tensor of BF16, kept as the raw bits in ``uint16``: NumPy has no such type, DLPack has."""

    __slots__ = ()

    def as_numpy(self) -> Array:
        """Not possible.

        Raises:
            TritonModelException: always.
        """
        raise TritonModelException(
            f"tensor '{self._name}' is BF16, which NumPy does not have; use to_dlpack(), "
            "for example torch.from_dlpack(tensor)"
        )

    def triton_dtype(self) -> int:
        """The number of BF16."""
        return DataType.BF16.number

    def __dlpack__(self, **_: Any) -> Any:
        return export_bf16(self._array)


class InputTensor(Tensor):
    """A tensor of a request that the server made: what it holds was checked before."""

    __slots__ = ()

    def __init__(self, name: str, array: Array, /) -> None:
        self._name = name
        self._array = array
