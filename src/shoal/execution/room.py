"""Where a worker puts outputs: the room in shared memory that the server set aside for a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from shoal.backends.contract import Array
from shoal.execution.arena import Mapping, align

LARGE_NBYTES = 64 * 1024
"""Below this a second copy costs less than an array over the room."""

Grow = Callable[[int], tuple[int, int]]
"""Asks the server for more room: wanted bytes -> offset and length."""


class Room:
    """Shared memory for the outputs of one batch, used from front to back.

    ``array`` is what a backend sees (``backends.contract.OutputRoom``): an output that it writes there needs no copy.
    """

    __slots__ = ("_end", "_given", "_grow", "_mapping", "_next")

    def __init__(self, mapping: Mapping, grow: Grow) -> None:
        self._mapping = mapping
        self._grow = grow
        self._next = 0
        self._end = 0
        self._given: dict[int, tuple[Array, int]] = {}

    def reset(self, offset: int, nbytes: int) -> None:
        """Begin a new batch with this room."""
        self._next = offset
        self._end = offset + nbytes
        self._given.clear()

    def array(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array | None:
        """An array in the room, or None when it does not fit or its type has no fixed size."""
        del name  # the contract tells it for backends' own bookkeeping; places are found by the array itself
        if dtype.hasobject:
            return None
        nbytes = dtype.itemsize
        for dimension in shape:
            nbytes *= dimension
        offset = self._next
        if offset + nbytes > self._end:
            return None
        self._next = align(offset + nbytes)
        array: Array = np.ndarray(shape, dtype, self._mapping.memory, offset)
        self._given[id(array)] = array, offset  # holding the array keeps its id from being used again
        return array

    def store(self, array: Array) -> int:
        """The offset of an array's bytes, copied into the room unless it was given by ``array``."""
        given = self._given.get(id(array))
        if given is not None:
            return given[1]
        if array.nbytes < LARGE_NBYTES:
            return self.store_bytes(array.tobytes())
        offset = self._take(array.nbytes)
        np.ndarray(array.shape, array.dtype, self._mapping.memory, offset)[...] = array
        return offset

    def store_bytes(self, data: bytes) -> int:
        """The offset of a copy of ``data``."""
        offset = self._take(len(data))
        self._mapping.view[offset : offset + len(data)] = data
        return offset

    def _take(self, nbytes: int) -> int:
        if self._next + nbytes > self._end:
            offset, granted = self._grow(nbytes)
            self._next, self._end = offset, offset + granted
        offset = self._next
        self._next = align(offset + nbytes)
        return offset


class InlineRoom:
    """Where the outputs of one response go that travels inside its message: places are counted from its start."""

    __slots__ = ("_nbytes", "_parts")

    def __init__(self) -> None:
        self._parts: list[bytes | memoryview] = []
        self._nbytes = 0

    def store(self, array: Array) -> int:
        """The place of an array's bytes."""
        return self.store_bytes(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)

    def store_bytes(self, data: bytes | memoryview) -> int:
        """The place of these bytes."""
        offset = self._nbytes
        self._parts.append(data)
        self._nbytes += len(data)
        return offset

    def data(self) -> bytes | memoryview:
        """All of them; a single one is not copied."""
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
