"""Priority levels: a queue for each, a lower one served only when all above it are empty (rule 36)."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import chain

from shoal.requests import InferRequest
from shoal.scheduling.queue import WaitingRequests


class PriorityQueue:
    """Queues by level, 1 first; each has its own policy and limit.

    Levels are made when they are first used, for a configuration may name very many. No operation gets slower with the
    number of levels where nothing waits, nor, but for its timeouts, with that of requests.

    Args:
        make_level: makes the empty queue of a level.

    Attributes:
        rows: the rows of all waiting requests.
    """

    __slots__ = ("_arrived", "_due_ns", "_levels", "_make_level", "_occupied", "rows")

    def __init__(self, make_level: Callable[[int], WaitingRequests]) -> None:
        self._make_level = make_level
        self._levels: dict[int, WaitingRequests] = {}
        self._occupied: list[int] = []
        self._arrived: OrderedDict[InferRequest, None] = OrderedDict()
        self._due_ns: int | None = None  # no timeout passes before this moment; None when there is none at all
        self.rows = 0

    @property
    def oldest_ns(self) -> int | None:
        """When the request that waits longest came in; None when nothing waits."""
        for request in self._arrived:
            return request.queued_ns
        return None

    def __len__(self) -> int:
        return len(self._arrived)

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
        queue.append(request, now_ns)
        if len(queue) == 1:
            insort(self._occupied, level)
        self._arrived[request] = None
        self.rows += request.plan.rows
        deadline_ns = queue.next_deadline_ns()
        if deadline_ns is not None and (self._due_ns is None or deadline_ns < self._due_ns):
            self._due_ns = deadline_ns

    def remove(self, request: InferRequest) -> bool:
        """Take the request out, wherever it stands; False when it is not in the queue."""
        level = request.plan.priority
        queue = self._levels.get(level)
        if queue is None or not queue.remove(request):
            return False
        self._left(level, queue, [request])
        return True

    def pop(self, count: int) -> list[InferRequest]:
        """Take the first ``count`` requests out and mark them running."""
        taken: list[InferRequest] = []
        while len(taken) < count:
            level = self._occupied[0]
            queue = self._levels[level]
            part = queue.pop(min(count - len(taken), len(queue)))
            self._left(level, queue, part)
            taken += part
        return taken

    def clear(self) -> list[InferRequest]:
        """Take everything out."""
        taken = [request for queue in self._queues() for request in queue.clear()]
        self._occupied.clear()
        self._arrived.clear()
        self._due_ns = None
        self.rows = 0
        return taken

    def expire(self, now_ns: int) -> list[InferRequest]:
        """Apply the timeouts of every level; gives the requests that were taken out."""
        if self._due_ns is None or now_ns < self._due_ns:
            return []
        gone: list[InferRequest] = []
        for level in list(self._occupied):
            queue = self._levels[level]
            late = queue.expire(now_ns)
            self._left(level, queue, late)
            gone += late
        self._due_ns = self.next_deadline_ns()
        return gone

    def next_deadline_ns(self) -> int | None:
        """When the next timeout of any level passes; None when no waiting request has one."""
        if self._due_ns is None:
            return None
        times_ns = (queue.next_deadline_ns() for queue in self._queues())
        return min((time_ns for time_ns in times_ns if time_ns is not None), default=None)

    def _queues(self) -> Iterator[WaitingRequests]:
        """The queues that hold anything, in the order of their levels."""
        return (self._levels[level] for level in self._occupied)

    def _left(self, level: int, queue: WaitingRequests, requests: list[InferRequest]) -> None:
        """These requests have left their level's queue."""
        arrived, rows = self._arrived, 0
        for request in requests:
            del arrived[request]
            rows += request.plan.rows
        self.rows -= rows
        if requests and not len(queue):
            del self._occupied[bisect_left(self._occupied, level)]
