"""Notices when a model keeps an input beyond its batch, so that the memory under it is not used again meanwhile.

Inputs are views of shared memory that the next batch will fill. A model that stores one (the last frame of a film, say)
may go on reading it: what it holds is reported with the batch, and its release with a later one.
"""

from __future__ import annotations

import sys
import weakref

from shoal.backends.contract import Array
from shoal.execution.messages import BatchDone

UNKEPT_REFERENCES = 3
"""Of an input nobody else holds: the pair that it stands in, the loop's variable, and the argument of the count."""


class KeptInputs:
    """The inputs of one instance; used by one batch at a time."""

    __slots__ = ("_placed", "_released")

    def __init__(self) -> None:
        self._placed: list[tuple[int, Array]] = []
        self._released: list[int] = []

    def place(self, offset: int, array: Array) -> None:
        """An input of the batch that begins lies here; views of it count as the array itself."""
        self._placed.append((offset, array))

    def report(self, done: BatchDone) -> None:
        """Add to the answer which of the batch's inputs are still held, and which earlier ones are not any more."""
        for offset, array in self._placed:
            if sys.getrefcount(array) > UNKEPT_REFERENCES:
                weakref.finalize(array, self._released.append, offset).atexit = False
                done.kept = [*(done.kept or ()), offset]
        self._placed.clear()
        if self._released:
            done.released = [self._released.pop() for _ in range(len(self._released))]
