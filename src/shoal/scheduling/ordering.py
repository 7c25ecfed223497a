"""Keeps the answers of several instances in the order of their batches' dispatch (``preserve_ordering``)."""

from __future__ import annotations

from collections.abc import Callable

from shoal.scheduling.contract import Batch

Deliver = Callable[[], None]
"""Hands a batch's answers, or its failure, to those who asked."""


class ResponseOrder:
    """Holds deliveries back until those of all batches dispatched earlier are there.

    Every dispatched batch must be completed, also one that failed, or nothing dispatched later is ever released.
    """

    __slots__ = ("_deliveries", "_dispatched")

    def __init__(self) -> None:
        # By identity, because batches are compared by value; in the order of dispatch.
        self._dispatched: dict[int, Batch] = {}
        self._deliveries: dict[int, Deliver] = {}

    def dispatched(self, batch: Batch) -> None:
        """A batch goes to an instance."""
        self._dispatched[id(batch)] = batch

    def completed(self, batch: Batch, deliver: Deliver) -> list[Deliver]:
        """A batch is done; gives the deliveries to make now, in the order of dispatch.

        Raises:
            ValueError: the batch was not dispatched or is completed already.
        """
        key = id(batch)
        if key not in self._dispatched or key in self._deliveries:
            raise ValueError("a batch is completed once after it was dispatched, not before and not again")
        self._deliveries[key] = deliver
        ready: list[Deliver] = []
        for earliest in list(self._dispatched):
            if earliest not in self._deliveries:
                break
            ready.append(self._deliveries.pop(earliest))
            del self._dispatched[earliest]
        return ready

    @property
    def waiting(self) -> int:
        """How many deliveries are held back."""
        return len(self._deliveries)
