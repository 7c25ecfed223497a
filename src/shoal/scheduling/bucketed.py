"""Length buckets: requests share a batch within their bucket only, and no bucket holds up another.

Each bucket in use has a queue and a batcher of its own, so that the next request in the queue never closes a batch by
being of another length. A free instance is given the bucket whose first request is to run first: by priority level,
then those in time before the delayed ones, then by age. A bucket that still waits for more is passed over. So a bucket
that is full does not wait for one that is older and waits, and none is starved by a busy one.

All of it costs the number of buckets, and nothing grows with the number of requests that wait.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from operator import itemgetter
from typing import NamedTuple

from shoal.config.spec import BatchingSpec, QueuePolicySpec, TimeoutAction
from shoal.errors import ShoalError
from shoal.requests import InferRequest
from shoal.scheduling.batch_key import bucket_of
from shoal.scheduling.contract import Batch, QueueStatistics, Scheduler, queue_timeout
from shoal.scheduling.queue import WaitingRequests, queue_full
from shoal.scheduling.timeout_queue import timeout_us


class Bucket(NamedTuple):
    """One bucket: its queue, and the batcher that takes from it."""

    queue: WaitingRequests
    batcher: Scheduler


MakeBucket = Callable[[BatchingSpec], Bucket]
"""Makes an empty bucket with these settings."""


class BucketedScheduler:
    """Batches by bucket (a ``contract.Scheduler``).

    Args:
        batching: the batcher's settings. Delay and sizes hold within each bucket, ``max_queue_size`` over all of them.
        make_bucket: makes the bucket's queue and batcher.
        follows: whether the batchers are to be told of the end of their batches.
    """

    __slots__ = ("_batching", "_buckets", "_expired", "_make_bucket", "_unlimited", "_waiting", "follows")

    per_instance = False

    def __init__(self, batching: BatchingSpec, make_bucket: MakeBucket, *, follows: bool = False) -> None:
        self.follows = follows
        self._batching = batching
        self._unlimited = _without_limits(batching)
        self._make_bucket = make_bucket
        self._buckets: dict[object, Bucket] = {}
        self._waiting: dict[int, int] = {}
        self._expired: list[InferRequest] = []

    def enqueue(self, request: InferRequest, now_ns: int) -> None:
        """Take the request into its bucket and mark it queued.

        Raises:
            QueueFullError: the queues of its level are at their limit together; the request was not taken.
        """
        level = request.plan.priority
        waiting = self._waiting.get(level, 0)
        if 0 < self._policy(level).max_queue_size <= waiting:
            raise queue_full(request)
        key = bucket_of(request)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = self._make_bucket(self._unlimited)
        bucket.batcher.enqueue(request, now_ns)
        self._waiting[level] = waiting + 1

    def cancel(self, request: InferRequest) -> bool:
        """Take a queued request out; False when it is not in the queue."""
        bucket = self._buckets.get(bucket_of(request))
        if bucket is None or not bucket.batcher.cancel(request):
            return False
        self._waiting[request.plan.priority] -= 1
        return True

    def take(self, now_ns: int, instance: int = 0) -> Batch | None:
        """The next batch for a free instance, marked running; None when nothing is to run now."""
        self._expire(now_ns)
        heads = [
            (self._rank(request, now_ns), bucket)
            for bucket in self._buckets.values()
            if (request := next(iter(bucket.queue), None)) is not None
        ]
        heads.sort(key=itemgetter(0))
        for _, bucket in heads:
            batch = bucket.batcher.take(now_ns, instance)
            if batch is not None:
                self._left(batch.requests)
                return batch
        return None

    def done(self, batch: Batch, now_ns: int) -> None:
        """A batch is done, or failed: its bucket is told."""
        self._buckets[bucket_of(batch.requests[0])].batcher.done(batch, now_ns)

    def wake_ns(self, now_ns: int) -> int | None:
        """When the first of the buckets has something to do; None when nothing waits."""
        if self._expired:
            return now_ns
        times_ns = [bucket.batcher.wake_ns(now_ns) for bucket in self._buckets.values()]
        return min((time_ns for time_ns in times_ns if time_ns is not None), default=None)

    def expired(self, now_ns: int) -> list[InferRequest]:
        """Take out the requests whose queue timeout has passed and that are to be rejected."""
        self._expire(now_ns)
        gone, self._expired = self._expired, []
        return gone

    def refusal(self, request: InferRequest) -> ShoalError:
        """Its queue timeout passed."""
        return queue_timeout(request)

    def drain(self) -> list[InferRequest]:
        """Take everything out, for a shutdown or an unload."""
        gone, self._expired = self._expired, []
        for bucket in self._buckets.values():
            gone += bucket.batcher.drain()
        self._waiting.clear()
        return gone

    def statistics(self) -> QueueStatistics:
        """The state of all buckets together."""
        each = [bucket.batcher.statistics() for bucket in self._buckets.values()]
        oldest_ns = min((one.oldest_ns for one in each if one.oldest_ns is not None), default=None)
        return QueueStatistics(sum(one.requests for one in each), sum(one.rows for one in each), oldest_ns)

    def _expire(self, now_ns: int) -> None:
        for bucket in self._buckets.values():
            if gone := bucket.batcher.expired(now_ns):
                self._left(gone)
                self._expired += gone

    def _left(self, requests: list[InferRequest]) -> None:
        waiting = self._waiting
        for request in requests:
            waiting[request.plan.priority] -= 1

    def _policy(self, level: int) -> QueuePolicySpec:
        return self._batching.priority_queue_policies.get(level, self._batching.default_queue_policy)

    def _rank(self, request: InferRequest, now_ns: int) -> tuple[int, bool, int]:
        """The place of a bucket's first request among those of the others: the lowest goes first."""
        policy = self._policy(request.plan.priority)
        delayed = False
        if policy.timeout_action is TimeoutAction.DELAY and policy.default_timeout_us:
            delayed = now_ns - request.queued_ns >= timeout_us(policy, request) * 1_000
        return request.plan.priority, delayed, request.queued_ns


def _without_limits(batching: BatchingSpec) -> BatchingSpec:
    """The settings of one bucket: the limits hold over all of them, and are looked at here."""
    policies = batching.priority_queue_policies
    return replace(
        batching,
        default_queue_policy=replace(batching.default_queue_policy, max_queue_size=0),
        priority_queue_policies={level: replace(policies[level], max_queue_size=0) for level in policies},
    )
