"""The requests of one instance that are answered response by response, by their numbers; pure bookkeeping."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from shoal.errors import UnavailableError
from shoal.execution.marks import MOST_STREAMS
from shoal.requests import InferRequest

Deliver = Callable[[], None]
"""Hands one answer to whoever asked."""


class Stream:
    """One request that is being answered.

    Attributes:
        number: its number.
        request: the request.
        taken_ns: when it was taken from the queue.
        last_ns: when it began, when its last response came or its client took up reading again.
        responses: how many responses came.
        previous_ns: when the last of them was ready, by the worker's clock; 0 before the first.
        held: whether the model waits for the client, or for that of the stream whose turn it is.
        slow: whether the client does not keep up.
    """

    __slots__ = ("held", "last_ns", "number", "previous_ns", "request", "responses", "slow", "taken_ns")

    def __init__(self, number: int, request: InferRequest, now_ns: int) -> None:
        self.number = number
        self.request = request
        self.taken_ns = self.last_ns = now_ns
        self.responses = self.previous_ns = 0
        self.held = self.slow = False


class StreamTable:
    """The open streams of one instance.

    Numbers rise and are never used again, so what is told of a request that has ended reaches no other; no two that are
    open share a byte of the marks, which is found by the number modulo ``most``.

    Args:
        most: how many may be open.

    Attributes:
        last_ns: when the worker last told anything of any of them.
    """

    __slots__ = ("_most", "_next", "_numbers", "_open", "_used", "last_ns")

    def __init__(self, most: int = MOST_STREAMS) -> None:
        self.last_ns = 0
        self._most = most
        self._next = 0
        self._open: dict[int, Stream] = {}
        self._numbers: dict[InferRequest, int] = {}
        self._used: set[int] = set()

    def __len__(self) -> int:
        return len(self._open)

    def check_room(self, requests: int) -> None:
        """Check that so many more requests find a number.

        Raises:
            UnavailableError: too many are open.
        """
        if len(self._open) + requests > self._most:
            raise UnavailableError(
                f"{len(self._open)} requests of this model instance are still being answered, of {self._most} that "
                "there may be; send less at once, or give the model more instances"
            )

    def add(self, request: InferRequest, now_ns: int) -> Stream:
        """Open a stream under the next number; ``check_room`` was asked before."""
        while self._next % self._most in self._used:
            self._next += 1
        return self.put(self._next, request, now_ns)

    def put(self, number: int, request: InferRequest, now_ns: int) -> Stream:
        """Open a stream under this number."""
        stream = self._open[number] = Stream(number, request, now_ns)
        self._numbers[request] = number
        self._used.add(number % self._most)
        self._next = max(self._next, number + 1)
        return stream

    def get(self, number: int) -> Stream | None:
        """The stream with this number; None when it has ended."""
        return self._open.get(number)

    def of(self, request: InferRequest) -> Stream | None:
        """The stream of a request; None when it is not here."""
        number = self._numbers.get(request)
        return None if number is None else self._open[number]

    def remove(self, stream: Stream) -> None:
        """A stream has ended."""
        del self._open[stream.number]
        del self._numbers[stream.request]
        self._used.discard(stream.number % self._most)

    def streams(self) -> list[Stream]:
        """The open streams, the oldest first."""
        return list(self._open.values())


class StreamOrder:
    """Holds answers back until the streams before theirs have ended (``preserve_ordering``).

    A request of an iterative sequence has a stream for each of its runs, and the place of each is that of its dispatch.
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: OrderedDict[Stream, tuple[list[Deliver], list[Deliver]]] = OrderedDict()

    def add(self, stream: Stream) -> None:
        """A stream has begun."""
        self._waiting[stream] = ([], [])

    @property
    def first(self) -> Stream | None:
        """The stream whose answers go out at once."""
        return next(iter(self._waiting), None)

    def deliver(self, stream: Stream, deliver: Deliver, *, final: bool) -> list[Deliver]:
        """What is to be delivered now, in this order, when a stream was given an answer; ``final`` for its last."""
        answers, last = self._waiting[stream]
        (last if final else answers).append(deliver)
        ready: list[Deliver] = []
        while self._waiting:
            first, (answers, last) = next(iter(self._waiting.items()))
            ready += answers
            answers.clear()
            if not last:
                break
            ready += last
            del self._waiting[first]
        return ready
