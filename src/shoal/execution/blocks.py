"""The shared memory of one instance: where its batch's inputs and outputs lie, and how outputs leave it.

Small outputs are copied out at once and the block serves the next batch. Large ones leave as views: the block is lent
to them, the next batch gets another, and the lent one is free again when its last row has left the socket.
"""

from __future__ import annotations

from shoal.execution.arena import Arena, Block
from shoal.execution.marks import Marks
from shoal.requests import Buffer, InferRequest

KEPT_NBYTES = 1 << 20
"""A block up to this size is kept for the next batch; a larger one goes back to the arena after each."""
LARGE_NBYTES = 64 * 1024
"""A row or tensor at least this long leaves as a view instead of a copy."""


class InstanceBlocks:
    """The blocks of one instance; used by one batch at a time.

    Attributes:
        marks: what the worker is told of single requests.
    """

    __slots__ = ("_arena", "_input", "_kept", "_lent", "_outputs", "marks")

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._input: Block | None = None
        self._outputs: list[Block] = []
        self._lent: list[tuple[Block, memoryview]] = []
        self._kept: dict[int, Block | list[InferRequest]] = {}
        self.marks = Marks(arena)

    def input_room(self, nbytes: int) -> Block:
        """The block for a batch's gathered inputs.

        Raises:
            UnavailableError: the arena is full.
        """
        block = self._input
        if block is None or block.nbytes < nbytes:
            if block is not None:
                self._input = None
                self._arena.free(block)
            block = self._input = self._arena.allocate(nbytes)
        return block

    def output_room(self, nbytes: int) -> Block:
        """The block for a batch's outputs.

        Raises:
            UnavailableError: the arena is full.
        """
        if self._outputs:
            block = self._outputs[0]
            if block.nbytes >= nbytes:
                return block
            self._arena.free(self._outputs.pop())
        return self.more_output_room(nbytes)

    def more_output_room(self, nbytes: int) -> Block:
        """Another block for the outputs of the same batch.

        Raises:
            UnavailableError: the arena is full.
        """
        block = self._arena.allocate(nbytes)
        self._outputs.append(block)
        return block

    def read(self, offset: int, nbytes: int) -> bytes:
        """A copy of output bytes."""
        return bytes(self._arena.mapping.view[offset : offset + nbytes])

    def view(self, offset: int, nbytes: int) -> Buffer:
        """A view of output bytes, which lends their block to whoever holds it."""
        for block, lent in self._lent:
            if block.offset <= offset < block.offset + block.nbytes:
                start = offset - block.offset
                return lent[start : start + nbytes]
        for block in self._outputs:
            if block.offset <= offset < block.offset + block.nbytes:
                self._outputs.remove(block)
                self._lent.append((block, self._arena.lend(block)))
                return self.view(offset, nbytes)
        return self.read(offset, nbytes)

    def end_batch(self) -> None:
        """The batch's outputs were read: keep what the next one can use, give back the rest."""
        self._lent.clear()
        while len(self._outputs) > 1 or (self._outputs and self._outputs[0].nbytes > KEPT_NBYTES):
            self._arena.free(self._outputs.pop())
        if self._input is not None and self._input.nbytes > KEPT_NBYTES:
            self._arena.free(self._input)
            self._input = None

    def keep(self, offset: int, requests: list[InferRequest]) -> None:
        """The model goes on reading the input at this offset: leave its memory alone until ``unkeep``.

        Args:
            offset: where the input lies.
            requests: those of the batch, in whose own buffers it may lie: they are held as long.
        """
        block = self._input
        if block is not None and block.offset <= offset < block.offset + block.nbytes:
            self._input = None
            self._kept[offset] = block
            return
        neighbour = self._kept_block(offset)
        self._kept[offset] = requests if neighbour is None else neighbour

    def unkeep(self, offset: int) -> None:
        """The model let go of the input at this offset."""
        kept = self._kept.pop(offset, None)
        if isinstance(kept, Block) and kept not in self._kept.values():
            self._arena.free(kept)

    def _kept_block(self, offset: int) -> Block | None:
        """The kept block that holds this offset: several inputs of a batch share one."""
        for kept in self._kept.values():
            if isinstance(kept, Block) and kept.offset <= offset < kept.offset + kept.nbytes:
                return kept
        return None

    def release(self) -> None:
        """Give everything back; only after the worker is gone, which might still read or write."""
        self.marks.release()
        for offset in tuple(self._kept):
            self.unkeep(offset)
        self._lent.clear()
        for block in self._outputs:
            self._arena.free(block)
        self._outputs.clear()
        if self._input is not None:
            self._arena.free(self._input)
            self._input = None
