"""When waiting requests time out: the next deadline at hand, whatever order they were added in."""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from shoal.requests import InferRequest

_STALE_ALLOWED = 64


class Deadlines:
    """A heap of deadlines from which any request can be taken out.

    A request that is taken out leaves two numbers behind, which go when their time comes or when they outnumber the
    requests, so that adding and taking out stay cheap and nothing holds a request that has left.
    """

    __slots__ = ("_heap", "_next_number", "_numbers", "_requests")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int]] = []
        self._requests: dict[int, InferRequest] = {}
        self._numbers: dict[InferRequest, int] = {}
        self._next_number = 0

    def add(self, request: InferRequest, deadline_ns: int) -> None:
        """Keep the request's deadline; a request has one at most."""
        number = self._next_number
        self._next_number = number + 1
        self._requests[number] = request
        self._numbers[request] = number
        heappush(self._heap, (deadline_ns, number))

    def discard(self, request: InferRequest) -> None:
        """Forget the request's deadline, if it has one."""
        number = self._numbers.pop(request, None)
        if number is None:
            return
        del self._requests[number]
        if len(self._heap) > 2 * len(self._requests) + _STALE_ALLOWED:
            self._heap = [entry for entry in self._heap if entry[1] in self._requests]
            heapify(self._heap)

    def next_ns(self) -> int | None:
        """The nearest deadline; None when there is none."""
        heap, requests = self._heap, self._requests
        while heap and heap[0][1] not in requests:
            heappop(heap)
        return heap[0][0] if heap else None

    def pop_due(self, now_ns: int) -> list[InferRequest]:
        """Take out the requests whose deadline has come, the earliest first."""
        due: list[InferRequest] = []
        while (deadline_ns := self.next_ns()) is not None and deadline_ns <= now_ns:
            request = self._requests.pop(heappop(self._heap)[1])
            del self._numbers[request]
            due.append(request)
        return due

    def clear(self) -> None:
        """Forget all deadlines."""
        self._heap.clear()
        self._requests.clear()
        self._numbers.clear()
