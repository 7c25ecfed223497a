"""What a scheduler is: a pure keeper of queued requests that decides which of them run next.

A scheduler does no I/O, reads no clock and starts nothing: it is told the time, changes its own state, and returns a
decision. Execution calls ``take`` when an instance is free; when it gives nothing, ``wake_ns`` says when to call
``expired`` and ``take`` again. A scheduler marks a request queued and running; who answers one marks it done, also one
that ``cancel``, ``expired`` or ``drain`` took out of the queue.

::

    enqueue -> (take -> done)      a request that ran; done is told of its batch, before anybody is answered
            -> cancel | expired | drain      a request that did not
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol, runtime_checkable

from shoal.errors import QueueTimeoutError, ShoalError
from shoal.requests import Buffer, InferRequest, Shape

TIMEOUT_TEXT = "Request timeout expired"
"""The message of a queue timeout (Triton ``dynamic_batch_scheduler.cc:69-71``)."""


class CloseReason(Enum):
    """Why a batch was closed and sent."""

    FULL = "full"
    PREFERRED = "preferred"
    DELAY = "delay"
    IDLE = "idle"
    SHAPE = "shape"
    RULE = "rule"
    TARGET = "target"

    __hash__ = object.__hash__  # counted per batch; Enum's own hash is a slow Python function


class MadeInput(NamedTuple):
    """An input of a batch that the server made itself.

    Attributes:
        input: which of the model's inputs (an index into ``ModelSpec.all_inputs``).
        data: its wire bytes, of all rows.
        shape: its shape, the batch dimension included.
        rows: the same row by row, with ``data`` empty, where joining them would be one copy more.
    """

    input: int
    data: Buffer
    shape: Shape
    rows: Sequence[Buffer] | None = None


class SequenceTurn(NamedTuple):
    """What a sequence model is told of one request of a batch.

    Attributes:
        correlation_id: the sequence's id; 0 or "" for an empty slot.
        start: whether the sequence begins.
        end: whether it ends.
        ready: whether there is a request; False for a slot that only fills the batch.
    """

    correlation_id: int | str
    start: bool
    end: bool
    ready: bool = True


@dataclass(slots=True)
class Batch:
    """Requests that run together.

    Attributes:
        requests: in queue order.
        rows: their rows added up.
        reason: why the batch was closed.
        turns: for a sequence model, what it is told of each request, in their order.
        instance: which of the model's instances runs it.
        elements: elements of its padded inputs as the clients sent them; 0 without padding.
        padded_elements: the same with the padding.
        queued_ns: when its first and its last request came into the queue, once any of them is back there and has a
            new time; None while they tell it themselves.
    """

    requests: list[InferRequest]
    rows: int
    reason: CloseReason
    turns: Sequence[SequenceTurn] | None = None
    instance: int = 0
    elements: int = 0
    padded_elements: int = 0
    queued_ns: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class QueueStatistics:
    """A scheduler's state at one moment: requests and rows that wait, and when the oldest came (None when empty)."""

    requests: int
    rows: int
    oldest_ns: int | None


class Scheduler(Protocol):
    """Keeps a model's queue.

    Attributes:
        follows: whether it is to be told of the end of every batch.
        per_instance: whether ``take`` may have nothing for one free instance and something for another.
    """

    follows: bool
    per_instance: bool

    def enqueue(self, request: InferRequest, now_ns: int) -> None:
        """Take the request into the queue and mark it queued.

        Raises:
            QueueFullError: the queue is at its limit; the request was not taken.
        """

    def cancel(self, request: InferRequest) -> bool:
        """Take a queued request out; False when it is not in the queue (running or done)."""

    def take(self, now_ns: int, instance: int = 0) -> Batch | None:
        """The next batch for a free instance, marked running; None when nothing is to run now.

        Args:
            now_ns: the time.
            instance: which of the model's instances is free.
        """

    def done(self, batch: Batch, now_ns: int) -> None:
        """A batch is done, or failed; told if ``follows`` is set, before its requests are answered."""

    def wake_ns(self, now_ns: int) -> int | None:
        """When to call ``expired`` and ``take`` again although nothing arrived; None when only an arrival matters."""

    def expired(self, now_ns: int) -> list[InferRequest]:
        """Take out the requests that are not to run any more, such as those whose queue timeout has passed."""

    def refusal(self, request: InferRequest) -> ShoalError:
        """Why a request that ``expired`` gave was taken out."""

    def drain(self) -> list[InferRequest]:
        """Take everything out, for a shutdown or an unload."""

    def statistics(self) -> QueueStatistics:
        """The state of the queue."""


@runtime_checkable
class DecidesByMeasurement(Protocol):
    """A scheduler that can say what it has measured and what it decided from that."""

    def beliefs(self) -> object:
        """A dataclass of plain values, for people to read."""


class KeepsSequences(Scheduler, Protocol):
    """A scheduler that keeps sequences besides requests.

    Requests that leave the queue because their sequence ends come with the next ``expired``, with their ``refusal``.

    Attributes:
        on_finished: called with an id of which no sequence is left, whatever ended it, so that what was kept for it can
            be let go. Where the next one with the same id waits already, it takes over with its START.
    """

    on_finished: Callable[[int | str], None]

    def reschedule(self, request: InferRequest, now_ns: int) -> None:
        """Let a running request of an iterative sequence run again; to be called before ``done`` of its batch."""

    def abandon(self, correlation_id: int | str) -> None:
        """The client of a sequence is gone: what waits of it is cancelled, and its slot is freed."""

    def instance_lost(self, instance: int, now_ns: int) -> None:
        """An instance is gone, and what it kept for its sequences; to be called after ``done`` of its batch."""


def queue_timeout(request: InferRequest) -> QueueTimeoutError:
    """The refusal of a request that waited too long (rule 39)."""
    del request
    return QueueTimeoutError(TIMEOUT_TEXT)
