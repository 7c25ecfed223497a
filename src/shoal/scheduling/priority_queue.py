"""Priority levels: a queue for each, a lower one served only when all above it are empty (rule 36)."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator
from itertools import chain

from shoal.requests import InferRequest
from shoal.scheduling.queue import WaitingRequests


class PriorityQueue:
    """Queues by level, 1 first; each has its own policy and limit.

    Levels are made when they are first used, for a configuration may name very many.

    Args:
        make_level: makes the empty queue of a level.
    """

    __slots__ = ("_levels", "_make_level", "_order")

    def __init__(self, make_level: Callable[[int], WaitingRequests]) -> None:
        self._make_level = make_level
        self._levels: dict[int, WaitingRequests] = {}
        self._order: list[int] = []

    @property
    def rows(self) -> int:
        """The rows of all waiting requests."""
        return sum(queue.rows for queue in self._levels.values())

    @property
    def oldest_ns(self) -> int | None:
        """When the request that waits longest came in; None when nothing waits."""
        return _earliest(queue.oldest_ns for queue in self._levels.values())

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._levels.values())

    def __iter__(self) -> Iterator[InferRequest]:
        return chain.from_iterable(self._queues())

    def append(self, request: InferRequest, now_ns: int) -> None:
        """Put the request at the end of its level and mark it queued.

        Raises:
            QueueFullError: its level is at the limit.
        """
        level = request.plan.priority
        queue = self._levels.get(level)
        if queue is None:
            queue = self._levels[level] = self._make_level(level)
            insort(self._order, level)
        queue.append(request, now_ns)

    def remove(self, request: InferRequest) -> bool:
        """Take the request out, wherever it stands; False when it is not in the queue."""
        queue = self._levels.get(request.plan.priority)
        return queue is not None and queue.remove(request)

    def pop(self, count: int) -> list[InferRequest]:
        """Take the first ``count`` requests out and mark them running."""
        taken: list[InferRequest] = []
        for queue in self._queues():
            taken += queue.pop(min(count - len(taken), len(queue)))
        return taken

    def clear(self) -> list[InferRequest]:
        """Take everything out."""
        return [request for queue in self._queues() for request in queue.clear()]

    def expire(self, now_ns: int) -> list[InferRequest]:
        """Apply the timeouts of every level; gives the requests that were taken out."""
        return [request for queue in self._queues() for request in queue.expire(now_ns)]

    def next_deadline_ns(self) -> int | None:
        """When the next timeout of any level passes; None when no waiting request has one."""
        return _earliest(queue.next_deadline_ns() for queue in self._levels.values())

    def _queues(self) -> Iterator[WaitingRequests]:
        return (self._levels[level] for level in self._order)


def _earliest(times_ns: Iterator[int | None]) -> int | None:
    return min((time_ns for time_ns in times_ns if time_ns is not None), default=None)
