"""A live sequence, and the table of all that a model has: by correlation id, by waiting request, by idleness.

Two sequences may have the same correlation id: one that had its END and still has requests to run, and the next one
that a client began meanwhile. The next one is blocked until the one before it is finished, so that a model never sees
two of them at once, and never the START of one before the END of the other.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from shoal.requests import InferRequest

CorrelationId = int | str


class Slot:
    """A place for one sequence on one instance.

    Attributes:
        index: which of the instance's slots it is; with the direct strategy also the row in the batch.
        instance: the number of the instance.
        sequence: the sequence that has it, None when it is free.
    """

    __slots__ = ("index", "instance", "sequence")

    def __init__(self, index: int, instance: int) -> None:
        self.index = index
        self.instance = instance
        self.sequence: LiveSequence | None = None


class LiveSequence:
    """One sequence, from its START until its last request is done.

    Attributes:
        correlation_id: its id; 5 and "5" are different ones.
        requests: those that wait, in order.
        slot: its place on an instance; None while it is in the backlog, and again when it has left its place.
        offered: whether its first request may run as far as the sequence is concerned.
        offered_ns: when that request had arrived, as the batcher counts the delay.
        running: whether a request of it runs.
        begun: whether a request of it was given to an instance, which then has a state for it.
        again: whether the first request runs not for the first time (iterative sequences).
        closed: whether it takes no more requests.
        dropped: whether it was cancelled or abandoned.
        lost: whether its instance is gone, and its state with it; such a sequence is only remembered.
        blocked: whether an earlier sequence with the same id is not finished.
        successor: the sequence that is blocked by this one.
        deadline_ns: when it is to have left the backlog; None when it may wait.
        idle_ns: since when nothing of it waits or runs.
    """

    __slots__ = (
        "again",
        "begun",
        "blocked",
        "closed",
        "correlation_id",
        "deadline_ns",
        "dropped",
        "idle_ns",
        "lost",
        "offered",
        "offered_ns",
        "requests",
        "running",
        "slot",
        "successor",
    )

    def __init__(self, correlation_id: CorrelationId) -> None:
        self.correlation_id = correlation_id
        self.requests: deque[InferRequest] = deque()
        self.slot: Slot | None = None
        self.offered = self.running = self.begun = self.again = False
        self.closed = self.dropped = self.lost = self.blocked = False
        self.offered_ns = self.idle_ns = 0
        self.successor: LiveSequence | None = None
        self.deadline_ns: int | None = None


class SequenceTable:
    """All sequences of a model. Every operation takes constant time, however many there are.

    Attributes:
        waiting: the requests that wait, in the order of their arrival, and the sequence of each.
        running: the requests that run, and the sequence of each.
        idle: the sequences of which nothing waits or runs, the longest idle first.
    """

    __slots__ = ("_closing", "_next_number", "_open", "idle", "running", "waiting")

    def __init__(self) -> None:
        self.waiting: OrderedDict[InferRequest, LiveSequence] = OrderedDict()
        self.running: dict[InferRequest, LiveSequence] = {}
        self.idle: OrderedDict[LiveSequence, None] = OrderedDict()
        self._open: dict[CorrelationId, LiveSequence] = {}
        self._closing: dict[CorrelationId, LiveSequence] = {}
        self._next_number = 1

    def __len__(self) -> int:
        return len(self._open)

    def find(self, correlation_id: CorrelationId) -> LiveSequence | None:
        """The sequence with this id that takes requests, or is remembered as lost; None when there is none."""
        return self._open.get(correlation_id)

    def unused_id(self) -> int:
        """An id that no sequence has, for a request that came without one."""
        while self._next_number in self._open or self._next_number in self._closing:
            self._next_number += 1
        number = self._next_number
        self._next_number += 1
        return number

    def open(self, correlation_id: CorrelationId) -> LiveSequence:
        """Begin a sequence; it is blocked if one with the same id is not finished."""
        sequence = LiveSequence(correlation_id)
        earlier = self._closing.get(correlation_id)
        if earlier is not None:
            earlier.successor = sequence
            sequence.blocked = True
        self._open[correlation_id] = sequence
        return sequence

    def close(self, sequence: LiveSequence) -> None:
        """Let the sequence take no more requests: those with its id belong to the next one."""
        if not sequence.closed:
            sequence.closed = True
            del self._open[sequence.correlation_id]
            self._closing[sequence.correlation_id] = sequence

    def finish(self, sequence: LiveSequence) -> LiveSequence | None:
        """Forget a closed sequence of which nothing waits or runs; gives the one that it blocked."""
        if self._closing.get(sequence.correlation_id) is sequence:
            del self._closing[sequence.correlation_id]
        successor, sequence.successor = sequence.successor, None
        if successor is not None:
            successor.blocked = False
        return successor

    def everything(self) -> list[LiveSequence]:
        """All sequences that are not finished, for a drain."""
        found = dict.fromkeys([*self._closing.values(), *self._open.values()])
        found.update(dict.fromkeys(self.waiting.values()))
        return list(found)

    @property
    def oldest_ns(self) -> int | None:
        """When the request that waits longest arrived; None when nothing waits."""
        for request, sequence in self.waiting.items():
            offered = sequence.offered and sequence.requests[0] is request
            return sequence.offered_ns if offered else request.queued_ns
        return None
