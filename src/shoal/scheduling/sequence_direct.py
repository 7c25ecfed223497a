"""The direct strategy: a sequence's requests always run in the row of its slot (``sequence_batch_scheduler.cc``)."""

from __future__ import annotations

from math import ceil

from shoal.config.spec import DirectSpec
from shoal.scheduling.contract import CloseReason
from shoal.scheduling.dynamic import SameContents
from shoal.scheduling.sequence_batcher import Pick
from shoal.scheduling.sequence_table import LiveSequence

_ROUNDING = 1e-6
"""The utilization is configured as a 32-bit float; this is more than what that can be off."""


class DirectBatcher:
    """Runs one request of each slot that has one; slots below the highest of those are filled up.

    A batch waits only where both a delay and a slot utilization are set: until so many slots have a request, or the
    oldest request has waited for the delay. Requests that may not share a batch go by turns, that of the oldest first
    (in Triton it is that of the lowest slot, which can keep the others waiting for ever).

    Args:
        slots: how many slots the instance has.
        strategy: delay and utilization.
        same_contents: a test of data on top of the batch key, for models with shape tensors.
    """

    __slots__ = ("_count", "_delay_ns", "_enough", "_heads", "_same_contents", "due_ns")

    def __init__(self, slots: int, strategy: DirectSpec, same_contents: SameContents | None = None) -> None:
        self._heads: list[LiveSequence | None] = [None] * slots
        self._count = 0
        self._delay_ns = strategy.max_queue_delay_us * 1_000
        self._enough = ceil(strategy.minimum_slot_utilization * slots - _ROUNDING)
        self._same_contents = same_contents
        self.due_ns: int | None = None

    def offer(self, sequence: LiveSequence, now_ns: int) -> None:
        """The sequence's first request may run from now on; its delay counts from its arrival."""
        del now_ns
        assert sequence.slot is not None
        sequence.offered_ns = sequence.requests[0].queued_ns
        self._heads[sequence.slot.index] = sequence
        self._count += 1

    def withdraw(self, sequence: LiveSequence) -> None:
        """It may not any more."""
        assert sequence.slot is not None
        self._heads[sequence.slot.index] = None
        self._count -= 1

    def take(self, now_ns: int) -> Pick | None:
        """One request of each slot that has one; None when nothing is to run now."""
        self.due_ns = None
        if not self._count:
            return None
        oldest = min([head for head in self._heads if head is not None], key=_offered_ns)
        overdue = 0 < self._delay_ns <= now_ns - oldest.offered_ns
        if self._delay_ns and self._enough and not overdue and self._count < self._enough:
            self.due_ns = oldest.offered_ns + self._delay_ns
            return None
        picked = self._pick(oldest)
        return Pick(picked, self._reason(picked, overdue=overdue))

    def _pick(self, oldest: LiveSequence) -> list[LiveSequence | None]:
        """Take out the requests that may share a batch with that of ``oldest``, each in the row of its slot."""
        heads, first, same_contents = self._heads, oldest.requests[0], self._same_contents
        key = first.plan.batch_key
        picked: list[LiveSequence | None] = []
        used = 0
        for row, head in enumerate(heads):
            if head is None:
                picked.append(None)
                continue
            used = row + 1
            request = head.requests[0]
            if request.plan.batch_key != key or (same_contents is not None and not same_contents(first, request)):
                picked.append(None)
                continue
            picked.append(head)
            heads[row] = None
            self._count -= 1
        return picked[:used]

    def _reason(self, picked: list[LiveSequence | None], *, overdue: bool) -> CloseReason:
        if self._count:
            return CloseReason.SHAPE
        rows = len(picked) - picked.count(None)
        if rows == len(self._heads):
            return CloseReason.FULL
        if overdue:
            return CloseReason.DELAY
        return CloseReason.PREFERRED if self._delay_ns and self._enough else CloseReason.IDLE


def _offered_ns(sequence: LiveSequence) -> int:
    return sequence.offered_ns
