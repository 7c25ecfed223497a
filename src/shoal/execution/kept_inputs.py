"""Notices when a model keeps an input beyond its batch, so that the memory under it is not used again meanwhile.

Inputs are views of shared memory that the next batch will fill. A model that stores one (the last frame of a film, say,
or that of a request which it goes on answering) may go on reading it: what it holds is reported with the batch, and its
release with a later one or, when no batch runs, at once.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable

from shoal.backends.contract import Array
from shoal.execution.messages import BatchDone

UNKEPT_REFERENCES = 3
"""Of an input nobody else holds: the pair that it stands in, the loop's variable, and the argument of the count."""


class KeptInputs:
    """The inputs of one instance; used by one batch at a time. Only the release of an input may come from elsewhere.

    Args:
        tell: tells the server of releases while no batch runs; called on whatever thread let the input go.
    """

    __slots__ = ("_placed", "_released", "_running", "_tell")

    def __init__(self, tell: Callable[[list[int]], None]) -> None:
        self._placed: list[tuple[int, Array]] = []
        self._released: list[int] = []
        self._running = False
        self._tell = tell

    def place(self, offset: int, array: Array) -> None:
        """An input of the batch that begins lies here; views of it count as the array itself."""
        self._running = True
        self._placed.append((offset, array))

    def report(self, done: BatchDone) -> None:
        """Add to the answer which of the batch's inputs are still held, and which earlier ones are not any more."""
        for offset, array in self._placed:
            if sys.getrefcount(array) > UNKEPT_REFERENCES:
                weakref.finalize(array, self._release, offset).atexit = False
                done.kept = [*(done.kept or ()), offset]
        self._placed.clear()
        if self._released:
            done.released = self._take_released()

    def batch_over(self) -> None:
        """The answer is sent: what is let go from now on, or was since ``report``, has to be told by itself."""
        self._running = False
        if self._released:
            self._tell(self._take_released())

    def _release(self, offset: int) -> None:
        self._released.append(offset)
        if not self._running:
            self._tell(self._take_released())

    def _take_released(self) -> list[int]:
        return [self._released.pop() for _ in range(len(self._released))]
