"""The worker's side of requests that are answered response by response: by any thread, during their batch or after it.

::

    model --> ResponseStream.send --> (wait while the client does not keep up) --> Streamed --> the instance's channel
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from shoal.backends.contract import RequestResult, ResponseStream
from shoal.errors import Status, UnavailableError
from shoal.execution.marks import CANCELLED, HELD, MOST_STREAMS, MarkReader
from shoal.execution.messages import BlockingChannel, Outcome, Streamed, ToInstance

ABANDONED = (
    "the model gave up its request without a final response: nothing in it holds the request or its response sender "
    "any more; the last call of send needs flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL"
)
UNANSWERED = (
    "the model returned no response for its request, and nothing in it holds the request's response sender any more, "
    "which could still send one"
)
HELD_POLL_S = 0.002
"""How often a response that waits for its client looks whether it may go."""

Store = Callable[[RequestResult], tuple[Outcome, bytes | memoryview]]
"""Turns a response into its outcome, and the bytes of its outputs."""


class InstanceStreams:
    """The streams of one instance.

    Args:
        channel: where messages go.
        marks: what the server says of single requests.
        store: makes messages of responses.

    Attributes:
        numbers: those of the requests of the next batch, of a decoupled model.
    """

    def __init__(self, channel: BlockingChannel[ToInstance], marks: MarkReader, store: Store) -> None:
        self.numbers: Sequence[int] | None = None
        self.channel = channel
        self.marks = marks
        self.store = store
        self._next = 0
        self._open: set[int] = set()
        self._lock = threading.Lock()

    def control(self, input_ns: int) -> Control:
        """The control of the batch that begins."""
        numbers, self.numbers = self.numbers, None
        return Control(self, numbers, input_ns)

    def later(self, results: Sequence[RequestResult]) -> dict[int, int] | None:
        """The numbers of those requests that are answered later, by their places; None when there is none."""
        numbers = {}
        for place, result in enumerate(results):
            if result.later is not None:
                assert isinstance(result.later, Stream)
                numbers[place] = result.later.number
        return numbers or None

    def take_number(self) -> int:
        """A number for a request that is answered later, no two open ones of which share a byte of the marks.

        Raises:
            UnavailableError: too many are open.
        """
        with self._lock:
            if len(self._open) >= MOST_STREAMS:
                raise UnavailableError(f"the model has still to answer {MOST_STREAMS} requests, the most there can be")
            while self._next % MOST_STREAMS in self._open:
                self._next += 1
            self._open.add(self._next % MOST_STREAMS)
            self._next += 1
            return self._next - 1

    def give_number(self, number: int) -> None:
        """A request that was answered later has its answer."""
        self._open.discard(number % MOST_STREAMS)


class Control:
    """What can be asked about one batch's requests (a ``backends.contract.BatchControl``)."""

    __slots__ = ("_input_ns", "_late", "_numbers", "_over", "_streams")

    def __init__(self, streams: InstanceStreams, numbers: Sequence[int] | None, input_ns: int) -> None:
        self._streams = streams
        self._numbers = numbers
        self._input_ns = input_ns
        self._over = False
        self._late: LateAnswers | None = None

    def is_cancelled(self, place: int) -> bool:
        """Whether nobody waits for the request's answer any more."""
        return not self._over and bool(self._streams.marks.place(place) & CANCELLED)

    def stream(self, place: int) -> ResponseStream:
        """What answers the request."""
        if self._numbers is not None:
            return Stream(self._streams, self._numbers[place], self._input_ns)
        self._late = self._late or LateAnswers()
        return LateStream(self._streams, self._streams.take_number(), self._input_ns, self._late)

    def batch_over(self) -> None:
        """The server was told of the batch's end."""
        self._over = True
        if self._late is not None:
            self._late.may_go.set()
            self._late.send_abandoned()


class Stream:
    """Answers one request of a decoupled model (a ``backends.contract.ResponseStream``).

    Attributes:
        number: the request's number.
    """

    __slots__ = ("_input_ns", "_streams", "number")

    def __init__(self, streams: InstanceStreams, number: int, input_ns: int) -> None:
        self._streams = streams
        self.number = number
        self._input_ns = input_ns

    def send(self, result: RequestResult | None, *, final: bool) -> None:
        """Send a response, or the mere word that there are no more."""
        infer_ns = time.monotonic_ns()
        outcome, data = (None, b"") if result is None else self._streams.store(result)
        message = Streamed(
            self.number, outcome, memoryview(data), final, (self._input_ns, infer_ns, time.monotonic_ns())
        )
        while self._streams.marks.number(self.number) == HELD:  # not when it is cancelled besides
            time.sleep(HELD_POLL_S)
        with suppress(BrokenPipeError):  # the server is gone, and with it whoever waited
            self._streams.channel.send(message)

    def is_cancelled(self) -> bool:
        """Whether nobody waits for the answers any more."""
        return bool(self._streams.marks.number(self.number) & CANCELLED)

    def abandon(self) -> None:
        """End the request with an error."""
        self._give_up(ABANDONED)

    def _give_up(self, text: str) -> None:
        now_ns = time.monotonic_ns()
        outcome = Outcome([], Status.INTERNAL.name, text)
        message = Streamed(self.number, outcome, memoryview(b""), True, (self._input_ns, now_ns, now_ns))
        self._streams.channel.send_afterthought(message)


class LateAnswers:
    """Those requests of one batch that are answered later; not before the server has been told their numbers.

    Attributes:
        may_go: set when the server has been told.
        abandoned: what was given up before.
    """

    __slots__ = ("abandoned", "may_go")

    def __init__(self) -> None:
        self.may_go = threading.Event()
        self.abandoned: deque[LateStream] = deque()

    def send_abandoned(self) -> None:
        """Tell what was given up, once that may be told."""
        while self.abandoned and self.may_go.is_set():
            with suppress(IndexError):  # another thread took the last one
                self.abandoned.popleft().send_abandoned()


class LateStream(Stream):
    """Answers one request of a batch that is done, with one response."""

    __slots__ = ("_late",)

    def __init__(self, streams: InstanceStreams, number: int, input_ns: int, late: LateAnswers) -> None:
        Stream.__init__(self, streams, number, input_ns)
        self._late = late

    def send(self, result: RequestResult | None, *, final: bool) -> None:
        """Send the response."""
        self._late.may_go.wait()
        Stream.send(self, result, final=final)
        self._streams.give_number(self.number)

    def abandon(self) -> None:
        """End the request with an error."""
        self._late.abandoned.append(self)
        self._late.send_abandoned()

    def send_abandoned(self) -> None:
        """Send the error of a request that was given up."""
        self._give_up(UNANSWERED)
        self._streams.give_number(self.number)
