"""Shared memory between the server and the workers of one model, and the allocator that the server keeps over it.

The memory is one sparse ``memfd`` (so no ``/dev/shm`` to size), mapped once by the server and once by each worker; a
place in it is an offset. Where the system has no memfd, an unlinked temporary file does the same. Only the server
allocates and frees, so a worker that dies leaves nothing behind.

Blocks come in powers of two, each size with its own list of free blocks: taking and giving back is one list operation.
Large free blocks are given back to the system beyond ``KEPT_NBYTES``.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.errors import UnavailableError

ARENA_NBYTES = 1 << 34
"""Address space of an arena; pages exist only once they are touched."""
SMALLEST_ARENA_NBYTES = 1 << 26
SMALLEST_BLOCK_BITS = 12
KEPT_NBYTES = 1 << 26
PUNCH_BITS = 20
ALIGNMENT = 64


def create_shared_file(nbytes: int) -> int:
    """A file descriptor of ``nbytes`` of sparse shared memory that vanishes with its last user."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("shoal", os.MFD_CLOEXEC)
    else:
        descriptor, path = tempfile.mkstemp(prefix="shoal-")
        Path(path).unlink()
    os.ftruncate(descriptor, nbytes)
    return descriptor


def align(nbytes: int) -> int:
    """The next multiple of the alignment that vector instructions and ONNX Runtime like."""
    return (nbytes + ALIGNMENT - 1) & -ALIGNMENT


class Mapping:
    """Shared memory as one process sees it.

    Attributes:
        memory: the mapping.
        view: the same as writable bytes.
        nbytes: its length.
    """

    def __init__(self, descriptor: int, nbytes: int) -> None:
        self.memory = mmap.mmap(descriptor, nbytes)
        self.view = memoryview(self.memory)
        self.nbytes = nbytes
        self._base = np.frombuffer(self.memory, np.uint8, 1).__array_interface__["data"][0]

    def offset_of(self, buffer: object) -> int:
        """Where in this memory a contiguous buffer lies; -1 when it lies elsewhere."""
        address: int = np.frombuffer(buffer, np.uint8, 1).__array_interface__["data"][0]  # type: ignore[call-overload]
        offset = address - self._base
        return offset if 0 <= offset < self.nbytes else -1

    def bytes_at(self, offset: int, nbytes: int) -> NDArray[Any]:
        """The bytes at a place, as an array that is not copied."""
        return np.ndarray((nbytes,), np.uint8, self.memory, offset)


class Block:
    """A piece of an arena. Freed explicitly with ``Arena.free`` or, after ``Arena.lend``, with its last reader."""

    __slots__ = ("bits", "nbytes", "offset")

    def __init__(self, offset: int, bits: int) -> None:
        self.offset = offset
        self.bits = bits
        self.nbytes = 1 << bits

    def __repr__(self) -> str:
        return f"Block(offset={self.offset}, nbytes={self.nbytes})"


class Arena:
    """The server's side: the mapping and its free blocks.

    Attributes:
        descriptor: the file descriptor that workers map.
        mapping: the server's mapping.
        used_nbytes: bytes in blocks that are in use.
    """

    def __init__(self, nbytes: int = ARENA_NBYTES) -> None:
        self.descriptor, self.mapping = self._map(nbytes)
        self.used_nbytes = 0
        self._top = 0
        self._free: dict[int, list[Block]] = {}
        self._kept_nbytes = 0

    @staticmethod
    def _map(nbytes: int) -> tuple[int, Mapping]:
        """Map as much as the process's address space limit allows, halving until it fits."""
        while True:
            descriptor = create_shared_file(nbytes)
            try:
                return descriptor, Mapping(descriptor, nbytes)
            except OSError:
                os.close(descriptor)
                if nbytes <= SMALLEST_ARENA_NBYTES:
                    raise
                nbytes >>= 1

    def allocate(self, nbytes: int) -> Block:
        """A block of at least ``nbytes``; its content is what was there before.

        Raises:
            UnavailableError: the arena is full.
        """
        bits = max(SMALLEST_BLOCK_BITS, (nbytes - 1).bit_length())
        free = self._free.get(bits)
        if free:
            block = free.pop()
            if bits >= PUNCH_BITS:
                self._kept_nbytes = max(0, self._kept_nbytes - block.nbytes)
        else:
            block = self._carve(bits)
        self.used_nbytes += block.nbytes
        return block

    def _carve(self, bits: int) -> Block:
        block = Block(self._top, bits)
        if block.offset + block.nbytes > self.mapping.nbytes:
            raise UnavailableError(
                f"no shared memory left for {block.nbytes} bytes: {self.used_nbytes} of {self.mapping.nbytes} bytes "
                "hold requests that wait, run or are being sent; send less at once or set max_queue_size"
            )
        self._top += block.nbytes
        return block

    def free(self, block: Block) -> None:
        """Give a block back."""
        self.used_nbytes -= block.nbytes
        if block.bits >= PUNCH_BITS:
            if self._kept_nbytes + block.nbytes > KEPT_NBYTES:
                self._punch(block)
            else:
                self._kept_nbytes += block.nbytes
        self._free.setdefault(block.bits, []).append(block)

    def _punch(self, block: Block) -> None:
        """Return a block's pages to the system; where it cannot, they stay, which is only less thrifty."""
        advice = getattr(mmap, "MADV_REMOVE", None)
        if advice is not None:
            with suppress(OSError):
                self.mapping.memory.madvise(advice, block.offset, block.nbytes)

    def lend(self, block: Block) -> memoryview:
        """The block's bytes as a view; the block is free again when the view and all its slices are gone."""
        array = self.mapping.bytes_at(block.offset, block.nbytes)
        weakref.finalize(array, self.free, block).atexit = False
        return array.data

    def close(self) -> None:
        """Close the descriptor; the memory itself goes with its last view. Closing twice is harmless."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
