"""The dynamic batcher: Triton's rules for which waiting requests run together (``dynamic_batch_scheduler.cc:487-700``).

What differs by design: a batch is formed when an instance is free and asks for it, so it holds all that arrived until
then. Triton forms it earlier and lets it grow while all instances are busy, which comes to the same batches but for
requests that arrive after a batch had to be closed.
"""

from __future__ import annotations

from typing import Protocol

from shoal.config.spec import BatchingSpec
from shoal.errors import ShoalError
from shoal.requests import InferRequest
from shoal.scheduling.contract import Batch, CloseReason, QueueStatistics, queue_timeout
from shoal.scheduling.queue import WaitingRequests


class SameContents(Protocol):
    """Whether requests with the same batch key may share a batch, judged by their data or by a rule of the user's.

    Attributes:
        reason: why a batch is closed by it.
    """

    reason: CloseReason

    def __call__(self, first: InferRequest, other: InferRequest) -> bool:
        """Whether the request may join those that were asked about since the batch was begun with ``first``.

        A batch is begun, or begun anew, by asking about its first request: ``other`` is ``first`` then.
        """

    def closed(self, count: int) -> None:
        """The first ``count`` of the requests asked about are sent as a batch."""


_NOT_WAITING = 0


class DynamicScheduler:
    """Joins waiting requests into batches of up to ``max_batch_size`` rows; a request is never split.

    Args:
        max_batch_size: most rows in a batch; requests of a model without batching have one row each, so 1 for those.
        batching: preferred sizes and delay.
        queue: the empty queue, which has the queue policies.
        same_contents: a test on top of the batch key, for models with shape tensors or a rule of their own.
    """

    __slots__ = (
        "_delay_ns",
        "_expired",
        "_largest_preferred",
        "_max_batch_size",
        "_preferred",
        "_queue",
        "_rewalks",
        "_same_contents",
        "_wait_key",
        "_wait_rows",
        "_wait_until_ns",
    )

    follows = False
    per_instance = False

    def __init__(
        self,
        max_batch_size: int,
        batching: BatchingSpec,
        queue: WaitingRequests,
        same_contents: SameContents | None = None,
    ) -> None:
        self._max_batch_size = max_batch_size
        self._preferred = frozenset(batching.preferred_batch_sizes or (max_batch_size,))
        self._largest_preferred = max(self._preferred)
        self._delay_ns = batching.max_queue_delay_us * 1_000
        self._queue = queue
        self._expired: list[InferRequest] = []
        self._same_contents = same_contents
        # An arrival at the end of the queue changes what was found before only through its rows and its batch key.
        self._rewalks = batching.priority_levels > 0 or same_contents is not None
        self._wait_rows = _NOT_WAITING
        self._wait_key: tuple[object, ...] = ()
        self._wait_until_ns = 0

    def enqueue(self, request: InferRequest, now_ns: int) -> None:
        """Take the request into the queue and mark it queued.

        Raises:
            QueueFullError: the queue is at its limit; the request was not taken.
        """
        self._queue.append(request, now_ns)
        if self._wait_rows and (self._rewalks or request.plan.batch_key != self._wait_key):
            self._wait_rows = _NOT_WAITING

    def cancel(self, request: InferRequest) -> bool:
        """Take a queued request out; False when it is not in the queue."""
        self._wait_rows = _NOT_WAITING
        return self._queue.remove(request)

    def take(self, now_ns: int, instance: int = 0) -> Batch | None:  # noqa: ARG002 - all instances are alike
        """The next batch for a free instance, marked running; None when nothing is to run now."""
        queue = self._queue
        if queue.rows < self._wait_rows and now_ns < self._wait_until_ns:
            return None
        self._wait_rows = _NOT_WAITING
        if gone := queue.expire(now_ns):
            self._expired += gone
        preferred, largest, most = self._preferred, self._largest_preferred, self._max_batch_size
        same_contents = self._same_contents
        count = rows = best_count = best_rows = 0
        oldest_ns = now_ns
        key: tuple[object, ...] = ()
        first: InferRequest | None = None
        stopped: CloseReason | None = None
        for request in queue:
            plan = request.plan
            total = rows + plan.rows
            if first is None:
                first, key = request, plan.batch_key
                if same_contents is not None:
                    same_contents(first, first)
            else:
                if total > largest and not best_count:
                    best_count, best_rows = count, rows
                if total > most:
                    stopped = CloseReason.FULL
                    break
                if plan.batch_key != key:
                    stopped = CloseReason.SHAPE
                    break
                if same_contents is not None and not same_contents(first, request):
                    stopped = same_contents.reason
                    break
            count += 1
            rows = total
            if request.queued_ns < oldest_ns:  # noqa: PLR1730 - min() costs more than all the rest of this loop's body
                oldest_ns = request.queued_ns
            if total in preferred:
                best_count, best_rows = count, total
        if not count:
            return None
        overdue = 0 < self._delay_ns <= now_ns - oldest_ns
        if best_count and not overdue:
            return self._close(best_count, best_rows, None)
        if stopped is None and not overdue and rows < largest and self._delay_ns:
            self._wait(rows, key, oldest_ns)
            return None
        if stopped is None and (overdue or rows < largest):
            stopped = CloseReason.DELAY if overdue else CloseReason.IDLE
        return self._close(count, rows, stopped)

    def done(self, batch: Batch, now_ns: int) -> None:
        """Nothing: what runs makes no difference to what waits."""

    def wake_ns(self, now_ns: int) -> int | None:
        """When the delay of the oldest request or the next queue timeout passes; None when nothing waits."""
        if self._expired:
            return now_ns
        oldest_ns = self._queue.oldest_ns
        if oldest_ns is None:
            return None
        return max(self._due_ns(oldest_ns), now_ns)

    def expired(self, now_ns: int) -> list[InferRequest]:
        """Take out the requests whose queue timeout has passed and that are to be rejected."""
        gone, self._expired = self._expired + self._queue.expire(now_ns), []
        return gone

    def refusal(self, request: InferRequest) -> ShoalError:
        """Its queue timeout passed."""
        return queue_timeout(request)

    def drain(self) -> list[InferRequest]:
        """Take everything out, for a shutdown or an unload."""
        self._wait_rows = _NOT_WAITING
        gone, self._expired = self._expired + self._queue.clear(), []
        return gone

    def statistics(self) -> QueueStatistics:
        """The state of the queue."""
        return QueueStatistics(len(self._queue), self._queue.rows, self._queue.oldest_ns)

    def _close(self, count: int, rows: int, stopped: CloseReason | None) -> Batch:
        """Take the first ``count`` requests as a batch; without a reason, it is for its size."""
        if rows >= self._max_batch_size:
            reason = CloseReason.FULL
        elif stopped is not None:
            reason = stopped
        else:
            reason = CloseReason.PREFERRED if rows in self._preferred else CloseReason.FULL
        if self._same_contents is not None:
            self._same_contents.closed(count)
        return Batch(self._queue.pop(count), rows, reason)

    def _wait(self, rows: int, key: tuple[object, ...], oldest_ns: int) -> None:
        """Remember what it takes to look at the queue again, so that arrivals in between cost nothing."""
        self._wait_rows = min(size for size in self._preferred if size > rows)
        self._wait_key = key
        self._wait_until_ns = self._due_ns(oldest_ns)

    def _due_ns(self, oldest_ns: int) -> int:
        """When time alone changes what ``take`` finds: the delay of the oldest or the next queue timeout passes."""
        deadline_ns = self._queue.next_deadline_ns()
        due_ns = oldest_ns + self._delay_ns
        return due_ns if deadline_ns is None else min(due_ns, deadline_ns)
