"""What became of every batch of a model version: totals by size, reason, instance and priority, and the latest batches.

A batch costs one tuple when it is done. The tuples are added up some dozens at a time, or when somebody asks, which is
cheaper than to touch every counter for each batch in the middle of serving it. All of it happens on the event loop's
thread; a reader on another thread asks for ``settle`` there first.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from shoal.execution.recorder import BatchTimes
from shoal.observe.buckets import DURATION_BOUNDS_NS, Json, RowsHistogram, duration
from shoal.scheduling.contract import Batch, CloseReason

Key = TypeVar("Key")

KEPT_BATCHES = 256
"""How many of the latest batches are kept one by one."""
SETTLED_AT = 64
"""So many batches are added up together."""


class BatchRecord(NamedTuple):
    """One batch that ran; all times are monotonic.

    Attributes:
        instance: which instance ran it.
        reason: why it was closed.
        requests: how many requests it had.
        rows: their rows.
        elements: elements of its padded inputs as the clients sent them; 0 without padding.
        padded_elements: the same with the padding.
        first_queued_ns: when its first request came into the queue.
        last_queued_ns: when its last request did.
        taken_ns: when it was taken from the queue.
        input_ns: when its inputs lay before the model.
        infer_ns: when the model was done.
        output_ns: when its outputs lay before the server.
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
    input_ns: int
    infer_ns: int
    output_ns: int
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

    def add(self, record: BatchRecord) -> None:
        """Count one batch."""
        self.batches += 1
        self.requests += record.requests
        self.rows += record.rows
        self.waited_ns += record.taken_ns - record.first_queued_ns
        self.busy_ns += record.done_ns - record.taken_ns


class SizeTotals:
    """The executions of one batch size.

    Attributes:
        count: executions.
        compute_input_ns: time until their inputs lay before the model, added up.
        compute_infer_ns: time that the model took.
        compute_output_ns: time until their outputs lay before the server.
    """

    __slots__ = ("compute_infer_ns", "compute_input_ns", "compute_output_ns", "count")

    def __init__(self) -> None:
        self.count = self.compute_input_ns = self.compute_infer_ns = self.compute_output_ns = 0

    def add(self, record: BatchRecord) -> None:
        """Count one execution."""
        self.count += 1
        self.compute_input_ns += record.input_ns - record.taken_ns
        self.compute_infer_ns += record.infer_ns - record.input_ns
        self.compute_output_ns += record.output_ns - record.infer_ns

    def to_dict(self, rows: int) -> Json:
        """The entry of ``batch_stats`` for this many rows."""
        return {
            "batch_size": rows,
            "compute_input": duration(self.count, self.compute_input_ns),
            "compute_infer": duration(self.count, self.compute_infer_ns),
            "compute_output": duration(self.count, self.compute_output_ns),
        }


class BatchLog:
    """The batches of one model version.

    Args:
        epoch_ns: what makes the time since the epoch of the monotonic clock's; None to find out.

    Attributes:
        recent: the latest, the newest last; like all that follows, as of the last ``settle``.
        batches: how many ran.
        last_ms: when the last one was done, in milliseconds since the epoch; 0 for never.
        by_size: the executions by batch size in rows.
        by_reason: totals by the reason for which batches were closed.
        by_instance: totals by instance.
        by_priority: requests by priority level; empty for a model without levels.
        rows_by_reason: rows per batch, by the reason for which the batch was closed.
        infer_buckets: batches by the time that the model took.
        infer_ns: that time added up, each batch once.
        elements: elements of padded inputs, as the clients sent them.
        padded_elements: the same with the padding.
    """

    __slots__ = (
        "_epoch_ns", "_new", "batches", "by_instance", "by_priority", "by_reason", "by_size", "elements",
        "infer_buckets", "infer_ns", "last_ms", "padded_elements", "recent", "rows_by_reason",
    )  # fmt: skip

    def __init__(self, epoch_ns: int | None = None) -> None:
        self._epoch_ns = time.time_ns() - time.monotonic_ns() if epoch_ns is None else epoch_ns
        self._new: list[tuple[object, ...]] = []
        self.recent: deque[BatchRecord] = deque(maxlen=KEPT_BATCHES)
        self.batches = self.last_ms = self.infer_ns = self.elements = self.padded_elements = 0
        self.by_size: dict[int, SizeTotals] = {}
        self.by_reason: dict[CloseReason, Totals] = {}
        self.by_instance: dict[int, Totals] = {}
        self.by_priority: dict[int, Totals] = {}
        self.rows_by_reason: dict[CloseReason, RowsHistogram] = {}
        self.infer_buckets = [0] * (len(DURATION_BOUNDS_NS) + 1)

    def add(self, batch: Batch, times: BatchTimes) -> None:
        """Take down a batch that ran."""
        requests = batch.requests
        new = self._new
        new.append(
            (
                batch.instance, batch.reason, len(requests), batch.rows, batch.elements, batch.padded_elements,
                requests[0].queued_ns, requests[-1].queued_ns,
                times.taken_ns, times.input_ns, times.infer_ns, times.output_ns, times.done_ns,
            )
        )  # fmt: skip
        if requests[0].plan.priority:
            self._add_priorities(batch, times.taken_ns)
        if len(new) >= SETTLED_AT:
            self.settle()

    def settle(self) -> None:
        """Add up the batches that were taken down since the last time."""
        if not self._new:
            return
        records, self._new = [BatchRecord(*each) for each in self._new], []  # type: ignore[arg-type] # made in ``add``
        for record in records:
            self._add_up(record)
        self.recent.extend(records)
        self.batches += len(records)
        self.last_ms = (self._epoch_ns + records[-1].done_ns) // 1_000_000

    def _add_up(self, record: BatchRecord) -> None:
        _of(self.by_size, record.rows, SizeTotals).add(record)
        _of(self.by_reason, record.reason, Totals).add(record)
        _of(self.by_instance, record.instance, Totals).add(record)
        _of(self.rows_by_reason, record.reason, RowsHistogram).add(record.rows)
        infer_ns = record.infer_ns - record.input_ns
        self.infer_ns += infer_ns
        self.infer_buckets[bisect_left(DURATION_BOUNDS_NS, infer_ns)] += 1
        if record.padded_elements:
            self.elements += record.elements
            self.padded_elements += record.padded_elements

    def _add_priorities(self, batch: Batch, taken_ns: int) -> None:
        for request in batch.requests:
            totals = _of(self.by_priority, request.plan.priority, Totals)
            totals.requests += 1
            totals.rows += request.plan.rows
            totals.waited_ns += taken_ns - request.queued_ns


Kind = TypeVar("Kind")


def _of(table: dict[Key, Kind], key: Key, make: Callable[[], Kind]) -> Kind:
    found = table.get(key)
    if found is None:
        found = table[key] = make()
    return found
