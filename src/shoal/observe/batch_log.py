"""What became of every batch of a model version: totals by reason, instance and priority, and the latest batches.

Written once per batch on the event loop's thread, with plain integers; read when somebody asks (``explanation``).
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, TypeVar

from shoal.execution.recorder import BatchTimes
from shoal.scheduling.contract import Batch, CloseReason

Key = TypeVar("Key")

KEPT_BATCHES = 256
"""How many of the latest batches are kept one by one."""


class BatchRecord(NamedTuple):
    """One batch that ran.

    Attributes:
        instance: which instance ran it.
        reason: why it was closed.
        requests: how many requests it had.
        rows: their rows.
        elements: elements of its padded inputs as the clients sent them; 0 without padding.
        padded_elements: the same with the padding.
        first_queued_ns: when its first request came into the queue (monotonic, as all times here).
        last_queued_ns: when its last request did.
        taken_ns: when it was taken from the queue.
        infer_ns: when the model was done.
        done_ns: when its answers were handed over.
    """

    instance: int
    reason: CloseReason
    requests: int
    rows: int
    elements: int
    padded_elements: int
    first_queued_ns: int
    last_queued_ns: int
    taken_ns: int
    infer_ns: int
    done_ns: int


class Totals:
    """Batches added up.

    Attributes:
        batches: how many.
        requests: their requests.
        rows: their rows.
        waited_ns: the time in the queue of the first request of each (of every request in the totals of a priority).
        busy_ns: the time from taking each from the queue to its answers.
    """

    __slots__ = ("batches", "busy_ns", "requests", "rows", "waited_ns")

    def __init__(self) -> None:
        self.batches = self.requests = self.rows = self.waited_ns = self.busy_ns = 0


class BatchLog:
    """The batches of one model version.

    Attributes:
        recent: the latest, the newest last.
        by_reason: totals by the reason for which batches were closed.
        by_instance: totals by instance.
        by_priority: requests by priority level; empty for a model without levels.
        elements: elements of padded inputs, as the clients sent them.
        padded_elements: the same with the padding.
    """

    __slots__ = ("by_instance", "by_priority", "by_reason", "elements", "padded_elements", "recent")

    def __init__(self) -> None:
        self.recent: deque[BatchRecord] = deque(maxlen=KEPT_BATCHES)
        self.by_reason: dict[CloseReason, Totals] = {}
        self.by_instance: dict[int, Totals] = {}
        self.by_priority: dict[int, Totals] = {}
        self.elements = self.padded_elements = 0

    def add(self, batch: Batch, times: BatchTimes) -> None:
        """Take down a batch that ran."""
        requests, rows, instance, reason = batch.requests, batch.rows, batch.instance, batch.reason
        taken_ns, done_ns = times.taken_ns, times.done_ns
        first_ns = requests[0].queued_ns
        count = len(requests)
        self.recent.append(
            BatchRecord(
                instance, reason, count, rows, batch.elements, batch.padded_elements,
                first_ns, requests[-1].queued_ns, taken_ns, times.infer_ns, done_ns,
            )
        )  # fmt: skip
        for totals in (_of(self.by_reason, reason), _of(self.by_instance, instance)):
            totals.batches += 1
            totals.requests += count
            totals.rows += rows
            totals.waited_ns += taken_ns - first_ns
            totals.busy_ns += done_ns - taken_ns
        if batch.padded_elements:
            self.elements += batch.elements
            self.padded_elements += batch.padded_elements
        if requests[0].plan.priority:
            self._add_priorities(batch, taken_ns)

    def _add_priorities(self, batch: Batch, taken_ns: int) -> None:
        for request in batch.requests:
            totals = _of(self.by_priority, request.plan.priority)
            totals.requests += 1
            totals.rows += request.plan.rows
            totals.waited_ns += taken_ns - request.queued_ns


def _of(totals: dict[Key, Totals], key: Key) -> Totals:
    found = totals.get(key)
    if found is None:
        found = totals[key] = Totals()
    return found
