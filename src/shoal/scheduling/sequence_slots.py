"""The slots of a model's instances and the sequences that wait for one (Triton's backlog)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from heapq import heapify, heappop, heappush

from shoal.requests import InferRequest
from shoal.scheduling.deadlines import Deadlines
from shoal.scheduling.sequence_table import LiveSequence, Slot


class SlotPool:
    """Gives sequences slots: the lowest free one of all instances first, so that batches stay as small as possible.

    Args:
        instances: the numbers of the instances.
        slots_each: how many sequences an instance has room for.

    Attributes:
        slots: the slots of each instance.
        lost: the instances that are gone at the moment; nobody gets a slot of those.
    """

    __slots__ = ("_backlog", "_deadlines", "_free", "lost", "slots")

    def __init__(self, instances: Iterable[int], slots_each: int) -> None:
        self.slots = {instance: [Slot(index, instance) for index in range(slots_each)] for instance in instances}
        self.lost: set[int] = set()
        self._free = [(index, instance) for instance in self.slots for index in range(slots_each)]
        heapify(self._free)
        self._backlog: OrderedDict[LiveSequence, None] = OrderedDict()
        self._deadlines: Deadlines = Deadlines()

    @property
    def free(self) -> int:
        """How many slots are free."""
        return len(self._free)

    @property
    def backlog(self) -> int:
        """How many sequences wait for a slot."""
        return len(self._backlog)

    def place(self, sequence: LiveSequence) -> bool:
        """Give a new sequence a slot, or put it at the end of the backlog and say False."""
        if self._free:
            self._give(sequence)
            return True
        self._backlog[sequence] = None
        return False

    def limit_wait(self, sequence: LiveSequence, deadline_ns: int) -> None:
        """Have the sequence, which waits in the backlog with its first request, given up at this time at the latest."""
        if sequence.deadline_ns is None or deadline_ns < sequence.deadline_ns:
            sequence.deadline_ns = deadline_ns
            self._deadlines.discard(sequence.requests[0])
            self._deadlines.add(sequence.requests[0], deadline_ns)

    def leave(self, sequence: LiveSequence) -> None:
        """Take the sequence out of its slot, or out of the backlog."""
        slot = sequence.slot
        if slot is None:
            if sequence in self._backlog:
                del self._backlog[sequence]
                self._deadlines.discard(sequence.requests[0])
            return
        sequence.slot = slot.sequence = None
        if slot.instance not in self.lost:
            heappush(self._free, (slot.index, slot.instance))

    def next_placed(self) -> LiveSequence | None:
        """Give a free slot to the first of the backlog; None when there is no free slot or nobody waits for one."""
        if not self._free or not self._backlog:
            return None
        sequence, _ = self._backlog.popitem(last=False)
        self._deadlines.discard(sequence.requests[0])
        self._give(sequence)
        return sequence

    def put_back(self, sequence: LiveSequence) -> None:
        """Put a sequence that lost its slot at the front of the backlog."""
        self._backlog[sequence] = None
        self._backlog.move_to_end(sequence, last=False)
        if sequence.deadline_ns is not None:
            self._deadlines.add(sequence.requests[0], sequence.deadline_ns)

    def overdue(self, now_ns: int) -> list[InferRequest]:
        """The first request of each sequence that waited in the backlog for too long; its deadline is forgotten."""
        return self._deadlines.pop_due(now_ns)

    def next_deadline_ns(self) -> int | None:
        """When the next sequence has waited in the backlog for too long; None when none has a limit."""
        return self._deadlines.next_ns()

    def lose(self, instance: int) -> list[LiveSequence]:
        """The instance is gone: gives the sequences that had its slots, which nobody gets until ``regain``."""
        self.lost.add(instance)
        self._free = [entry for entry in self._free if entry[1] != instance]
        heapify(self._free)
        return [slot.sequence for slot in self.slots[instance] if slot.sequence is not None]

    def regain(self, instance: int) -> None:
        """The instance is back: its slots are free."""
        self.lost.remove(instance)
        for slot in self.slots[instance]:
            heappush(self._free, (slot.index, instance))

    def _give(self, sequence: LiveSequence) -> None:
        index, instance = heappop(self._free)
        slot = self.slots[instance][index]
        slot.sequence, sequence.slot = sequence, slot
