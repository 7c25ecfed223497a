"""A queue whose requests time out (rules 38 and 39; Triton ``scheduler_utils.cc:165-330``)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from shoal.config.spec import QueuePolicySpec, TimeoutAction
from shoal.requests import InferRequest
from shoal.scheduling.deadlines import Deadlines
from shoal.scheduling.queue import RequestQueue, queue_full


class TimeoutQueue:
    """Requests in the order of their arrival, with a queue timeout each.

    When its timeout passes, a request is taken out (REJECT) or moved behind all whose timeout has not (DELAY). A
    request's own timeout counts only where the policy allows it, and only to shorten the default (rule 38).

    Args:
        policy: the queue policy; its default timeout is not 0.
    """

    __slots__ = ("_deadlines", "_delayed", "_delayed_arrivals", "_in_time", "_policy")

    def __init__(self, policy: QueuePolicySpec) -> None:
        self._policy = policy
        self._in_time = RequestQueue()
        self._delayed = RequestQueue()
        self._deadlines = Deadlines()
        # Delayed requests are in the order of their timeouts, which need not be that of their arrival.
        self._delayed_arrivals = Deadlines()

    @property
    def rows(self) -> int:
        """The rows of all waiting requests."""
        return self._in_time.rows + self._delayed.rows

    @property
    def oldest_ns(self) -> int | None:
        """When the request that waits longest came in; None when nothing waits."""
        in_time_ns = self._in_time.oldest_ns
        delayed_ns = self._delayed_arrivals.next_ns() if len(self._delayed) else None
        if in_time_ns is None or delayed_ns is None:
            return delayed_ns if in_time_ns is None else in_time_ns
        return min(in_time_ns, delayed_ns)

    def __len__(self) -> int:
        return len(self._in_time) + len(self._delayed)

    def __iter__(self) -> Iterator[InferRequest]:
        return chain(self._in_time, self._delayed)

    def append(self, request: InferRequest, now_ns: int) -> None:
        """Put the request behind those in time and mark it queued.

        Raises:
            QueueFullError: the queue, delayed requests included, is at ``max_queue_size``.
        """
        if 0 < self._policy.max_queue_size <= len(self):
            raise queue_full(request)
        self._in_time.append(request, now_ns)
        self._deadlines.add(request, now_ns + timeout_us(self._policy, request) * 1_000)

    def remove(self, request: InferRequest) -> bool:
        """Take the request out, wherever it stands; False when it is not in the queue."""
        if self._in_time.remove(request):
            self._deadlines.discard(request)
            return True
        self._delayed_arrivals.discard(request)
        return self._delayed.remove(request)

    def pop(self, count: int) -> list[InferRequest]:
        """Take the first ``count`` requests out and mark them running."""
        in_time = min(count, len(self._in_time))
        taken = self._in_time.pop(in_time)
        for request in taken:
            self._deadlines.discard(request)
        if in_time == count:
            return taken
        late = self._delayed.pop(count - in_time)
        for request in late:
            self._delayed_arrivals.discard(request)
        return taken + late

    def clear(self) -> list[InferRequest]:
        """Take everything out."""
        self._deadlines.clear()
        self._delayed_arrivals.clear()
        return self._in_time.clear() + self._delayed.clear()

    def expire(self, now_ns: int) -> list[InferRequest]:
        """Delay or take out the requests whose timeout has passed; gives those that were taken out."""
        due = self._deadlines.pop_due(now_ns)
        for request in due:
            self._in_time.remove(request)
        if self._policy.timeout_action is TimeoutAction.REJECT:
            return due
        for request in due:
            self._delayed_arrivals.add(request, request.queued_ns)
            self._delayed.append(request, request.queued_ns)
        return []

    def next_deadline_ns(self) -> int | None:
        """When the next timeout passes; None when no waiting request has one."""
        return self._deadlines.next_ns()


def timeout_us(policy: QueuePolicySpec, request: InferRequest) -> int:
    """The queue timeout of a request: its own only where the policy allows it, and only to shorten the default."""
    default_us, asked_us = policy.default_timeout_us, request.plan.timeout_us
    return asked_us if policy.allow_timeout_override and 0 < asked_us < default_us else default_us
