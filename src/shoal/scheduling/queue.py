"""Where requests wait: first in, first out, with any of them taken out at once when its client is gone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice
from typing import Protocol

from shoal.errors import QueueFullError
from shoal.requests import InferRequest, RequestState
from shoal.scheduling.texts import request_prefix


class WaitingRequests(Protocol):
    """What the dynamic batcher asks of a queue, whatever its policies."""

    @property
    def rows(self) -> int:
        """The rows of all waiting requests."""

    @property
    def oldest_ns(self) -> int | None:
        """When the request that waits longest came in; None when nothing waits."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[InferRequest]: ...

    def append(self, request: InferRequest, now_ns: int) -> None:
        """Take the request in and mark it queued; raises ``QueueFullError``."""

    def remove(self, request: InferRequest) -> bool:
        """Take the request out, wherever it stands; False when it is not in the queue."""

    def pop(self, count: int) -> list[InferRequest]:
        """Take the first ``count`` requests out and mark them running."""

    def clear(self) -> list[InferRequest]:
        """Take everything out."""

    def expire(self, now_ns: int) -> list[InferRequest]:
        """Apply the queue timeouts; gives the requests that were taken out because theirs has passed."""

    def next_deadline_ns(self) -> int | None:
        """When the next queue timeout passes; None when no waiting request has one."""


class RequestQueue:
    """Requests in the order of their arrival, without timeouts.

    Every operation on one request takes constant time. Who takes a request out other than by ``pop`` answers it, and
    marks it done.

    Args:
        max_queue_size: most requests that may wait; 0 for no limit (rule 40: requests count, not their rows).

    Attributes:
        rows: the rows of all waiting requests.
    """

    __slots__ = ("_max_queue_size", "_requests", "rows")

    def __init__(self, max_queue_size: int = 0) -> None:
        self._max_queue_size = max_queue_size
        # An OrderedDict and not a dict: taking the first key out of a long dict again and again is quadratic.
        self._requests: OrderedDict[InferRequest, None] = OrderedDict()
        self.rows = 0

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[InferRequest]:
        return iter(self._requests)

    @property
    def oldest_ns(self) -> int | None:
        """When the first request came in; None when the queue is empty."""
        for request in self._requests:
            return request.queued_ns
        return None

    def append(self, request: InferRequest, now_ns: int) -> None:
        """Put the request at the end and mark it queued.

        Raises:
            QueueFullError: the queue is at ``max_queue_size``; the request was not taken.
        """
        requests = self._requests
        if 0 < self._max_queue_size <= len(requests):
            raise queue_full(request)
        requests[request] = None
        self.rows += request.plan.rows
        request.queued_ns = now_ns
        request.state = RequestState.QUEUED

    def remove(self, request: InferRequest) -> bool:
        """Take the request out, wherever it stands; False when it is not in the queue."""
        if request not in self._requests:
            return False
        del self._requests[request]
        self.rows -= request.plan.rows
        return True

    def pop(self, count: int) -> list[InferRequest]:
        """Take the first ``count`` requests out and mark them running."""
        requests = self._requests
        taken = list(requests) if count == len(requests) else list(islice(requests, count))
        running = RequestState.RUNNING
        rows = 0
        for request in taken:
            del requests[request]
            request.state = running
            rows += request.plan.rows
        self.rows -= rows
        return taken

    def clear(self) -> list[InferRequest]:
        """Take everything out."""
        taken = list(self._requests)
        self._requests.clear()
        self.rows = 0
        return taken

    def expire(self, now_ns: int) -> list[InferRequest]:
        """Nothing: this queue has no timeouts."""
        del now_ns
        return []

    def next_deadline_ns(self) -> int | None:
        """None: this queue has no timeouts."""
        return None


def queue_full(request: InferRequest) -> QueueFullError:
    """The refusal of a request that no place was left for (rule 40; Triton ``scheduler_utils.cc:169-176``)."""
    return QueueFullError(request_prefix(request.plan.head) + "Exceeds maximum queue size")
