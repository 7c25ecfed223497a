"""What a scheduler is: a pure keeper of queued requests that decides which of them run next.

A scheduler does no I/O, reads no clock and starts nothing: it is told the time, changes its own state, and returns a
decision. Execution calls ``take`` when an instance is free; when it gives nothing, ``wake_ns`` says when to call
``expired`` and ``take`` again. A scheduler marks a request queued and running; who answers one marks it done, also one
that ``cancel``, ``expired`` or ``drain`` took out of the queue.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from shoal.requests import InferRequest


class CloseReason(Enum):
    """Why a batch was closed and sent."""

    FULL = "full"
    PREFERRED = "preferred"
    DELAY = "delay"
    IDLE = "idle"
    SHAPE = "shape"

    __hash__ = object.__hash__  # counted per batch; Enum's own hash is a slow Python function


@dataclass(slots=True)
class Batch:
    """Requests that run together.

    Attributes:
        requests: in queue order.
        rows: their rows added up.
        reason: why the batch was closed.
    """

    requests: list[InferRequest]
    rows: int
    reason: CloseReason


@dataclass(frozen=True, slots=True)
class QueueStatistics:
    """A scheduler's state at one moment: requests and rows that wait, and when the oldest came (None when empty)."""

    requests: int
    rows: int
    oldest_ns: int | None


class Scheduler(Protocol):
    """Keeps a model's queue."""

    def enqueue(self, request: InferRequest, now_ns: int) -> None:
        """Take the request into the queue and mark it queued.

        Raises:
            QueueFullError: the queue is at its limit; the request was not taken.
        """

    def cancel(self, request: InferRequest) -> bool:
        """Take a queued request out; False when it is not in the queue (running or done)."""

    def take(self, now_ns: int) -> Batch | None:
        """The next batch for a free instance, marked running; None when nothing is to run now."""

    def wake_ns(self, now_ns: int) -> int | None:
        """When to call ``expired`` and ``take`` again although nothing arrived; None when only an arrival matters."""

    def expired(self, now_ns: int) -> list[InferRequest]:
        """Take out the requests whose queue timeout has passed and that are to be rejected."""

    def drain(self) -> list[InferRequest]:
        """Take everything out, for a shutdown or an unload."""

    def statistics(self) -> QueueStatistics:
        """The state of the queue."""
