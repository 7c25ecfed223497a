"""The oldest strategy: a dynamic batcher over the first request of each of an instance's sequences."""

from __future__ import annotations

from shoal.requests import InferRequest
from shoal.scheduling.dynamic import DynamicScheduler
from shoal.scheduling.sequence_batcher import Pick
from shoal.scheduling.sequence_table import LiveSequence


class OldestBatcher:
    """Joins the requests that have been first in their sequences for longest.

    As in Triton, a request enters the dynamic batcher when the one before it in its sequence is done, and the delay
    counts from there; so two requests of one sequence can never meet.

    Args:
        dynamic: the batcher, empty, with a plain queue.
    """

    __slots__ = ("_dynamic", "_sequences", "due_ns")

    def __init__(self, dynamic: DynamicScheduler) -> None:
        self._dynamic = dynamic
        self._sequences: dict[InferRequest, LiveSequence] = {}
        self.due_ns: int | None = None

    def offer(self, sequence: LiveSequence, now_ns: int) -> None:
        """The sequence's first request may run from now on."""
        request = sequence.requests[0]
        sequence.offered_ns = request.queued_ns
        self._dynamic.enqueue(request, now_ns)
        self._sequences[request] = sequence

    def withdraw(self, sequence: LiveSequence) -> None:
        """It may not any more."""
        request = sequence.requests[0]
        self._dynamic.cancel(request)
        del self._sequences[request]
        request.queued_ns = sequence.offered_ns

    def take(self, now_ns: int) -> Pick | None:
        """The oldest requests that make a batch; None when nothing is to run now."""
        batch = self._dynamic.take(now_ns)
        if batch is None:
            self.due_ns = self._dynamic.wake_ns(now_ns)
            return None
        self.due_ns = None
        sequences = []
        for request in batch.requests:
            sequence = self._sequences.pop(request)
            request.queued_ns = sequence.offered_ns  # the time in the queue counts from the arrival
            sequences.append(sequence)
        return Pick(sequences, batch.reason)
