"""Keeps the answers of several instances in the order of their batches' dispatch (``preserve_ordering``)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from shoal.config.spec import ModelSpec, OldestSpec
from shoal.scheduling.contract import Batch

Deliver = Callable[[], None]
"""Hands a batch's answers, or its failure, to those who asked."""


def keeps_order(spec: ModelSpec) -> bool:
    """Whether a model's answers are to come in the order of its batches."""
    if spec.batching is not None:
        return spec.batching.preserve_ordering
    strategy = None if spec.sequence is None else spec.sequence.strategy
    return isinstance(strategy, OldestSpec) and strategy.preserve_ordering


class ResponseOrder:
    """Holds deliveries back until those of all batches dispatched earlier are there.

    Every dispatched batch must be completed, also one that failed, or nothing dispatched later is ever released.
    """

    __slots__ = ("_deliveries", "_dispatched")

    def __init__(self) -> None:
        # By identity, because batches are compared by value; in the order of dispatch.
        self._dispatched: OrderedDict[int, Batch] = OrderedDict()
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
        while self._dispatched and (earliest := next(iter(self._dispatched))) in self._deliveries:
            ready.append(self._deliveries.pop(earliest))
            del self._dispatched[earliest]
        return ready

    @property
    def waiting(self) -> int:
        """How many deliveries are held back."""
        return len(self._deliveries)
