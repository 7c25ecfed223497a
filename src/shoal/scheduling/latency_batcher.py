"""The dynamic batcher of a model with a latency target: its own delay and batch size in place of configured ones.

Queues, priorities, queue policies and the rules for which requests may share a batch are those of the dynamic batcher.
"""

from __future__ import annotations

from itertools import islice

from shoal.config.spec import BatchingSpec
from shoal.errors import ShoalError
from shoal.requests import InferRequest
from shoal.scheduling.contract import Batch, CloseReason, QueueStatistics, queue_timeout
from shoal.scheduling.dynamic import SameContents
from shoal.scheduling.latency_target import LatencyTarget, LatencyTargetBeliefs
from shoal.scheduling.queue import WaitingRequests


class LatencyScheduler:
    """Joins waiting requests into batches of up to ``max_batch_size`` rows, as a latency target asks for.

    Args:
        max_batch_size: most rows in a batch.
        batching: the settings; ``latency_target_us`` is one of them.
        queue: the empty queue, which has the queue policies.
        instances: how many batches can run at once.
        same_contents: a test of data on top of the batch key, for models with shape tensors.
    """

    __slots__ = (
        "_count",
        "_expired",
        "_held",
        "_key",
        "_max_batch_size",
        "_oldest_ns",
        "_queue",
        "_rewalks",
        "_rows",
        "_same_contents",
        "_target",
        "_wait_until_ns",
    )

    follows = True
    per_instance = False

    def __init__(
        self,
        max_batch_size: int,
        batching: BatchingSpec,
        queue: WaitingRequests,
        instances: int,
        same_contents: SameContents | None = None,
    ) -> None:
        self._max_batch_size = max_batch_size
        self._queue = queue
        self._same_contents = same_contents
        self._target = LatencyTarget(batching.latency_target_us, instances)
        self._expired: list[InferRequest] = []
        self._rewalks = batching.priority_levels > 0 or same_contents is not None
        # What was found when the queue was held: arrivals add to it, so that they need not walk the queue again.
        self._count = self._rows = self._oldest_ns = 0
        self._key: tuple[object, ...] = ()
        self._held = False
        self._wait_until_ns = 0

    def enqueue(self, request: InferRequest, now_ns: int) -> None:
        """Take the request into the queue and mark it queued.

        Raises:
            QueueFullError: the queue is at its limit; the request was not taken.
        """
        self._queue.append(request, now_ns)
        self._target.arrived(request, now_ns)
        self._wait_until_ns = 0
        if self._count:
            plan = request.plan
            rows = self._rows + plan.rows
            if self._rewalks or plan.batch_key != self._key or rows > self._max_batch_size:
                self._count = 0
            else:
                self._count += 1
                self._rows = rows

    def cancel(self, request: InferRequest) -> bool:
        """Take a queued request out; False when it is not in the queue."""
        self._look_again()
        return self._queue.remove(request)

    def take(self, now_ns: int, instance: int = 0) -> Batch | None:  # noqa: ARG002 - all instances are alike
        """The next batch for a free instance, marked running; None when nothing is to run now."""
        if now_ns < self._wait_until_ns:
            return None
        if gone := self._queue.expire(now_ns):
            self._expired += gone
            self._count = 0
        stopped = None if self._count else self._walk(now_ns)
        count, rows, oldest_ns, target = self._count, self._rows, self._oldest_ns, self._target
        if not count:
            return None
        if stopped is None and rows < self._max_batch_size:
            until_ns = target.hold_until_ns(count, rows, oldest_ns, now_ns)
            if until_ns > now_ns:
                self._wait(until_ns)
                return None
        if target.must_look(rows, oldest_ns, now_ns):
            requests = list(islice(self._queue, count))
            count = target.cut(requests, rows, now_ns)
            if count < len(requests):
                stopped = CloseReason.TARGET
                rows = sum([request.plan.rows for request in requests[:count]])
        if self._same_contents is not None:
            self._same_contents.closed(count)
        batch = Batch(self._queue.pop(count), rows, self._reason(rows, stopped))
        self._held = False
        self._look_again()
        target.started(batch, now_ns)
        return batch

    def _wait(self, until_ns: int) -> None:
        """Hold what was found; a queue timeout may end that before its time."""
        deadline_ns = self._queue.next_deadline_ns()
        self._wait_until_ns = until_ns if deadline_ns is None else min(until_ns, deadline_ns)
        self._held = True

    def _look_again(self) -> None:
        """Whatever was found may not be so any more."""
        self._count = self._wait_until_ns = 0

    def _walk(self, now_ns: int) -> CloseReason | None:
        """Find the first waiting requests that may share a batch; gives what stopped them, None for nothing."""
        most, same_contents = self._max_batch_size, self._same_contents
        count = rows = 0
        oldest_ns = now_ns
        key: tuple[object, ...] = ()
        first: InferRequest | None = None
        stopped: CloseReason | None = None
        for request in self._queue:
            plan = request.plan
            if first is None:
                first, key = request, plan.batch_key
                if same_contents is not None:
                    same_contents(first, first)
            elif rows + plan.rows > most:
                stopped = CloseReason.FULL
                break
            elif plan.batch_key != key:
                stopped = CloseReason.SHAPE
                break
            elif same_contents is not None and not same_contents(first, request):
                stopped = same_contents.reason
                break
            count += 1
            rows += plan.rows
            if request.queued_ns < oldest_ns:  # noqa: PLR1730 - as in the dynamic batcher
                oldest_ns = request.queued_ns
        self._count, self._rows, self._oldest_ns, self._key = count, rows, oldest_ns, key
        return stopped

    def _reason(self, rows: int, stopped: CloseReason | None) -> CloseReason:
        if rows >= self._max_batch_size:
            return CloseReason.FULL
        return stopped or (CloseReason.DELAY if self._held else CloseReason.IDLE)

    def done(self, batch: Batch, now_ns: int) -> None:
        """A batch is done, or failed: what it took is learned."""
        self._wait_until_ns = 0
        self._target.ended(batch, now_ns)

    def wake_ns(self, now_ns: int) -> int | None:
        """When the hold or the next queue timeout is over; None when nothing waits."""
        if self._expired:
            return now_ns
        if not len(self._queue):
            return None
        due_ns = self._wait_until_ns
        deadline_ns = self._queue.next_deadline_ns()
        return max(now_ns, due_ns if deadline_ns is None else min(due_ns, deadline_ns))

    def expired(self, now_ns: int) -> list[InferRequest]:
        """Take out the requests whose queue timeout has passed and that are to be rejected."""
        gone = self._queue.expire(now_ns)
        if gone:
            self._look_again()
        gone, self._expired = self._expired + gone, []
        return gone

    def refusal(self, request: InferRequest) -> ShoalError:
        """Its queue timeout passed."""
        return queue_timeout(request)

    def drain(self) -> list[InferRequest]:
        """Take everything out, for a shutdown or an unload."""
        self._look_again()
        gone, self._expired = self._expired + self._queue.clear(), []
        return gone

    def statistics(self) -> QueueStatistics:
        """The state of the queue."""
        return QueueStatistics(len(self._queue), self._queue.rows, self._queue.oldest_ns)

    def beliefs(self) -> LatencyTargetBeliefs:
        """What the latency target has measured and chose last."""
        return self._target.beliefs()
