"""What all models of a server have waiting together, and how soon it is worth asking again.

A queue that grows without limit serves nobody: its requests are answered after their clients gave up, and the server
runs out of memory. So what waits is limited in number and in bytes, over all models, besides the ``max_queue_size`` of
each; what finds no place is refused at once, and told when to come back.
"""

from __future__ import annotations

import sys
from math import ceil

from shoal.errors import QueueFullError
from shoal.requests import NOBODY, InferRequest, RequestState
from shoal.scheduling.contract import Batch, Scheduler
from shoal.scheduling.texts import request_prefix

MAX_QUEUED_REQUESTS = 65_536
MAX_QUEUED_NBYTES = 1024**3
"""What a server takes when nobody says otherwise."""

LONGEST_RETRY_S = 60
_WINDOW_NS = 1_000_000_000
_STALE_WINDOWS = 10
_RETRY_GOOD_NS = 100_000_000


class ServerQueue:
    """Counts what waits in the queues of all models.

    Args:
        most_requests: how many requests may wait; 0 for any number.
        most_nbytes: how many bytes of tensors they may have; 0 for any number.

    Attributes:
        requests: requests that wait.
        nbytes: the bytes of their tensors.
        most_requests: the limit of requests.
        most_nbytes: the limit of bytes.
    """

    __slots__ = ("most_nbytes", "most_requests", "nbytes", "requests")

    def __init__(self, most_requests: int = 0, most_nbytes: int = 0) -> None:
        self.requests = self.nbytes = 0
        self.most_requests = most_requests or sys.maxsize
        self.most_nbytes = most_nbytes or sys.maxsize

    def has_room(self, nbytes: int) -> bool:
        """Whether a request with so many bytes may wait, too; where nothing waits, one of any size may."""
        return not self.requests or (self.requests < self.most_requests and self.nbytes + nbytes <= self.most_nbytes)

    def refusal(self, request: InferRequest) -> QueueFullError:
        """The error of a request that no place was left for."""
        if self.requests >= self.most_requests:
            limit = f"{self.most_requests} waiting requests (--max-queued-requests)"
        else:
            limit = f"{self.most_nbytes} waiting bytes (--max-queued-nbytes)"
        return QueueFullError(f"{request_prefix(request.plan.head)}Exceeds the server's limit of {limit}")


class ModelQueue:
    """Counts what waits in one model's queue, and adds it to what waits in all.

    ``ModelRuntime.submit`` adds by itself and compares with the limits, because a call for every request is too much.

    Args:
        server: counts what waits in the queues of all models.

    Attributes:
        server: the same.
        requests: requests that wait for this model.
    """

    __slots__ = ("requests", "server")

    def __init__(self, server: ServerQueue) -> None:
        self.server = server
        self.requests = 0

    def enter(self, request: InferRequest) -> None:
        """A request begins to wait."""
        self._add(1, request.plan.nbytes)

    def leave(self, request: InferRequest) -> None:
        """A request waits no more."""
        self._add(-1, -request.plan.nbytes)

    def run(self, batch: Batch) -> None:
        """The requests of a batch wait no more; those that only fill it never did."""
        requests = batch.requests
        if batch.turns is not None:
            requests = [request for request in requests if request.responder is not NOBODY]
        nbytes = 0
        for request in requests:
            nbytes += request.plan.nbytes
        self._add(-len(requests), -nbytes)

    def enter_again(self, batch: Batch) -> None:
        """Those of a batch's requests wait again that are to run again, and are back in their queue."""
        for request in batch.requests:
            if request.state is RequestState.QUEUED:
                self.enter(request)

    def _add(self, requests: int, nbytes: int) -> None:
        self.requests += requests
        self.server.requests += requests
        self.server.nbytes += nbytes


class Pace:
    """How many requests a model starts per second, as far as it matters to those that it refuses.

    Nothing is measured but a count, until somebody asks; the pace is then that since the last time.

    Attributes:
        started: requests that the model has started.
    """

    __slots__ = ("_per_s", "_retry_s", "_retry_until_ns", "_since_ns", "_since_started", "started")

    def __init__(self) -> None:
        self.started = 0
        self._per_s = 0.0
        self._since_ns = 0
        self._since_started = 0
        self._retry_s = 1
        self._retry_until_ns = 0

    def retry_after_s(self, queue: Scheduler, now_ns: int) -> int:
        """In how many seconds those who wait now will have been started; 1 as long as that is not known.

        Args:
            queue: has those who wait.
            now_ns: the time.
        """
        if now_ns >= self._retry_until_ns:  # a flood of refusals must cost little
            self._measure(now_ns)
            waiting = queue.statistics().requests
            soon_s = waiting / self._per_s if self._per_s else 0.0
            self._retry_s = min(LONGEST_RETRY_S, max(1, ceil(soon_s)))
            self._retry_until_ns = now_ns + _RETRY_GOOD_NS
        return self._retry_s

    def _measure(self, now_ns: int) -> None:
        """Take the pace since the last time, if that is neither too short nor too long ago."""
        passed_ns = now_ns - self._since_ns
        started = self.started - self._since_started
        stale = passed_ns > _WINDOW_NS * _STALE_WINDOWS
        if stale or (passed_ns >= _WINDOW_NS and started):
            self._per_s = 0.0 if stale else started * 1e9 / passed_ns
            self._since_ns, self._since_started = now_ns, self.started
