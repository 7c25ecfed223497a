"""Shared memory between the server and the workers of one model, and the allocator that the server keeps over it.

The memory is one sparse ``memfd`` (so no ``/dev/shm`` to size), mapped once by the server and once by each worker; a
place in it is an offset. Where the system has no memfd, an unlinked temporary file does the same. Only the server
allocates and frees, so a worker that dies leaves nothing behind.

The allocator is a buddy system (Knuth, The Art of Computer Programming, volume 1, section 2.5): blocks are powers of
two, a larger one is halved until it fits, and two free halves become one again, so that no pattern of requests uses the
address space up. Lower addresses come first, which uses the same pages again; pages that a burst left behind go back to
the system.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import threading
import weakref
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shoal.errors import UnavailableError

if TYPE_CHECKING:
    import asyncio

ARENA_NBYTES = 1 << 34
"""Address space of an arena; pages exist only once they are touched."""
SMALLEST_ARENA_NBYTES = 1 << 26
SMALLEST_BLOCK_BITS = 12
KEPT_NBYTES = 1 << 27
"""Pages that a burst touched up to here are kept; beyond it they go back to the system when the burst is over."""
QUIET_S = 1.0
"""A burst is over when no other came for so long: getting pages back from the system takes longer than writing them."""
TRIMMED_BITS = 20
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
        self._top_bits = self.mapping.nbytes.bit_length() - 1
        self._free: list[set[int]] = [set() for _ in range(self._top_bits + 1)]
        self._free[self._top_bits].add(0)
        self._touched_nbytes = 0
        self._recent_nbytes = 0
        self._quiet: asyncio.TimerHandle | None = None
        self._thread = threading.get_ident()
        self._returned: deque[Block] = deque()

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
        while self._returned:
            self.free(self._returned.popleft())
        bits = max(SMALLEST_BLOCK_BITS, (nbytes - 1).bit_length())
        block = Block(self._take(bits, nbytes), bits)
        self.used_nbytes += block.nbytes
        end = block.offset + block.nbytes
        if end > self._recent_nbytes:
            self._recent_nbytes = end
            self._touched_nbytes = max(self._touched_nbytes, end)
        return block

    def _take(self, bits: int, nbytes: int) -> int:
        """The offset of a free block of this size, halving a larger one where there is none."""
        found = bits
        while found <= self._top_bits and not self._free[found]:
            found += 1
        if found > self._top_bits:
            raise UnavailableError(
                f"no shared memory left for {nbytes} bytes: {self.used_nbytes} of {self.mapping.nbytes} bytes "
                "hold requests that wait, run or are being sent; send less at once or set max_queue_size"
            )
        offset = min(self._free[found])
        self._free[found].discard(offset)
        while found > bits:
            found -= 1
            self._free[found].add(offset + (1 << found))
        return offset

    def free(self, block: Block) -> None:
        """Give a block back."""
        self.used_nbytes -= block.nbytes
        offset, bits = block.offset, block.bits
        while bits < self._top_bits and (buddy := offset ^ (1 << bits)) in self._free[bits]:
            self._free[bits].discard(buddy)
            offset = min(offset, buddy)
            bits += 1
        self._free[bits].add(offset)
        if self._touched_nbytes > KEPT_NBYTES and self.used_nbytes <= KEPT_NBYTES // 8 and self._quiet is None:
            self._trim_when_quiet()

    def _trim_when_quiet(self) -> None:
        """Wait for another burst; without an event loop to wait on, do not."""
        from asyncio import get_running_loop  # noqa: PLC0415 - workers import this file, and need no asyncio

        try:
            loop = get_running_loop()
        except RuntimeError:
            self._trim()
            return
        self._recent_nbytes = 0
        self._quiet = loop.call_later(QUIET_S, self._trim_if_quiet)

    def _trim_if_quiet(self) -> None:
        self._quiet = None
        if self._recent_nbytes > KEPT_NBYTES:
            self._trim_when_quiet()
        else:
            self._trim()

    def _trim(self) -> None:
        """Return the pages of large free blocks to the system; where it cannot, they stay."""
        advice = getattr(mmap, "MADV_REMOVE", None)
        for bits in range(TRIMMED_BITS, self._top_bits + 1):
            for offset in self._free[bits]:
                nbytes = min(1 << bits, self._touched_nbytes - offset)
                if advice is not None and nbytes > 0:
                    with suppress(OSError):
                        self.mapping.memory.madvise(advice, offset, nbytes)
        self._touched_nbytes = self._recent_nbytes = 0

    def lend(self, block: Block) -> memoryview:
        """The block's bytes as a view; the block is free again when the view and all its slices are gone."""
        array = self.mapping.bytes_at(block.offset, block.nbytes)
        weakref.finalize(array, self._give_back, block).atexit = False
        return array.data

    def _give_back(self, block: Block) -> None:
        """The last reader is gone, on whatever thread it was; only the arena's own thread changes its books."""
        if threading.get_ident() == self._thread:
            self.free(block)
        else:
            self._returned.append(block)

    def close(self) -> None:
        """Close the descriptor; the memory itself goes with its last view. Closing twice is harmless."""
        if self._quiet is not None:
            self._quiet.cancel()
            self._quiet = None
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
