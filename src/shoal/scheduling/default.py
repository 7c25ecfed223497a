"""The default scheduler: every request runs alone, first come first served (what Triton does without a batcher)."""

from __future__ import annotations

from shoal.errors import ShoalError
from shoal.requests import InferRequest
from shoal.scheduling.contract import Batch, CloseReason, QueueStatistics, queue_timeout
from shoal.scheduling.queue import RequestQueue


class DefaultScheduler:
    """Gives each free instance the oldest request; nothing is limited, delayed or timed out."""

    __slots__ = ("_queue",)

    follows = False
    per_instance = False

    def __init__(self) -> None:
        self._queue = RequestQueue()

    def enqueue(self, request: InferRequest, now_ns: int) -> None:
        """Take the request into the queue and mark it queued."""
        self._queue.append(request, now_ns)

    def cancel(self, request: InferRequest) -> bool:
        """Take a queued request out; False when it is not in the queue."""
        return self._queue.remove(request)

    def take(self, now_ns: int, instance: int = 0) -> Batch | None:  # noqa: ARG002 - all instances are alike
        """The oldest request, marked running; None when the queue is empty."""
        del now_ns
        queue = self._queue
        if not len(queue):
            return None
        requests = queue.pop(1)
        return Batch(requests, requests[0].plan.rows, CloseReason.IDLE)

    def done(self, batch: Batch, now_ns: int) -> None:
        """Nothing: what runs makes no difference to what waits."""

    def wake_ns(self, now_ns: int) -> int | None:
        """Now when a request waits, for it may run at any time; otherwise None."""
        return now_ns if len(self._queue) else None

    def expired(self, now_ns: int) -> list[InferRequest]:
        """Nothing: the default scheduler has no queue policy."""
        del now_ns
        return []

    def refusal(self, request: InferRequest) -> ShoalError:
        """Its queue timeout passed."""
        return queue_timeout(request)

    def drain(self) -> list[InferRequest]:
        """Take everything out, for a shutdown or an unload."""
        return self._queue.clear()

    def statistics(self) -> QueueStatistics:
        """The state of the queue."""
        return QueueStatistics(len(self._queue), self._queue.rows, self._queue.oldest_ns)
