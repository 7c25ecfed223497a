"""What became of every batch of a model version: totals by size, reason, instance and priority, and the latest batches.

A batch costs one tuple when it is done. The tuples are added up some dozens at a time, or when somebody asks, which is
cheaper than to touch every counter for each batch in the middle of serving it. All of it happens on the event loop's
thread; a reader on another thread asks for ``settle`` there first.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import deque
from typing import Any, NamedTuple

from shoal.execution.recorder import BatchTimes
from shoal.observe.buckets import DURATION_BOUNDS_NS, RowsHistogram
from shoal.scheduling.contract import Batch, CloseReason

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
        compute_input_ns: time until their inputs lay before the model.
        compute_infer_ns: time that the model took.
        compute_output_ns: time until their outputs lay before the server.
    """

    __slots__ = (
        "batches", "busy_ns", "compute_infer_ns", "compute_input_ns", "compute_output_ns", "requests", "rows",
        "waited_ns",
    )  # fmt: skip

    def __init__(self) -> None:
        self.batches = self.requests = self.rows = self.waited_ns = self.busy_ns = 0
        self.compute_input_ns = self.compute_infer_ns = self.compute_output_ns = 0

    def merge(self, other: Totals) -> None:
        """Add other totals."""
        for name in Totals.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


_Raw = tuple[int, CloseReason, int, int, int, int, int, int, int, int, int, int, int]
"""The fields of a ``BatchRecord``, which would take longer to make."""


class BatchLog:
    """The batches of one model version.

    Args:
        epoch_ns: what makes the time since the epoch of the monotonic clock's; None to find out.

    Attributes:
        batches: how many ran; like all that follows, as of the last ``settle``.
        last_ms: when the last one was done, in milliseconds since the epoch; 0 for never.
        by_priority: requests by priority level; empty for a model without levels.
        infer_buckets: batches by the time that the model took.
        elements: elements of padded inputs, as the clients sent them.
        padded_elements: the same with the padding.
    """

    __slots__ = (
        "_epoch_ns", "_new", "_recent", "_totals", "batches", "by_priority", "elements", "infer_buckets",
        "last_ms", "padded_elements",
    )  # fmt: skip

    def __init__(self, epoch_ns: int | None = None) -> None:
        self._epoch_ns = time.time_ns() - time.monotonic_ns() if epoch_ns is None else epoch_ns
        self._new: list[_Raw] = []
        self._recent: deque[_Raw] = deque(maxlen=KEPT_BATCHES)
        self._totals: dict[tuple[int, CloseReason, int], Totals] = {}  # by rows, reason and instance
        self.batches = self.last_ms = self.elements = self.padded_elements = 0
        self.by_priority: dict[int, Totals] = {}
        self.infer_buckets = [0] * (len(DURATION_BOUNDS_NS) + 1)

    @property
    def recent(self) -> list[BatchRecord]:
        """The latest batches, the newest last."""
        return [BatchRecord(*each) for each in self._recent]

    @property
    def total(self) -> Totals:
        """All batches."""
        total = Totals()
        for totals in self._totals.copy().values():
            total.merge(totals)
        return total

    @property
    def by_size(self) -> dict[int, Totals]:
        """The batches by their rows."""
        return self._by(0)

    @property
    def by_reason(self) -> dict[CloseReason, Totals]:
        """The batches by the reason for which they were closed."""
        return self._by(1)

    @property
    def by_instance(self) -> dict[int, Totals]:
        """The batches by the instance that ran them."""
        return self._by(2)

    @property
    def rows_by_reason(self) -> dict[CloseReason, RowsHistogram]:
        """The rows per batch, by the reason for which the batch was closed."""
        found: dict[CloseReason, RowsHistogram] = {}
        for (rows, reason, _), totals in self._totals.copy().items():
            found.setdefault(reason, RowsHistogram()).add(rows, totals.batches)
        return found

    def _by(self, place: int) -> dict[Any, Totals]:
        found: dict[Any, Totals] = {}
        for key, totals in self._totals.copy().items():
            found.setdefault(key[place], Totals()).merge(totals)
        return found

    def add(self, batch: Batch, times: BatchTimes) -> None:
        """Take down a batch that ran."""
        requests = batch.requests
        first_queued_ns, last_queued_ns = batch.queued_ns or (requests[0].queued_ns, requests[-1].queued_ns)
        new = self._new
        new.append(
            (
                batch.instance, batch.reason, len(requests), batch.rows, batch.elements, batch.padded_elements,
                first_queued_ns, last_queued_ns,
                times.taken_ns, times.input_ns, times.infer_ns, times.output_ns, times.done_ns,
            )
        )  # fmt: skip
        if requests[0].plan.priority:
            self._add_priorities(batch, times.taken_ns)
        if len(new) >= SETTLED_AT:
            self.settle()

    def settle(self) -> None:
        """Add up the batches that were taken down since the last time."""
        new = self._new
        if not new:
            return
        self._new = []
        buckets, table = self.infer_buckets, self._totals
        for instance, reason, requests, rows, elements, padded, first_ns, _, taken_ns, input_ns, infer_ns, output_ns, done_ns in new:  # fmt: skip # noqa: E501
            totals = table.get((rows, reason, instance))
            if totals is None:
                totals = table[rows, reason, instance] = Totals()
            compute_infer_ns = infer_ns - input_ns
            totals.batches += 1
            totals.requests += requests
            totals.rows += rows
            totals.waited_ns += taken_ns - first_ns
            totals.busy_ns += done_ns - taken_ns
            totals.compute_input_ns += input_ns - taken_ns
            totals.compute_infer_ns += compute_infer_ns
            totals.compute_output_ns += output_ns - infer_ns
            buckets[bisect_left(DURATION_BOUNDS_NS, compute_infer_ns)] += 1
            if padded:
                self.elements += elements
                self.padded_elements += padded
        self._recent.extend(new)
        self.batches += len(new)
        self.last_ms = (self._epoch_ns + new[-1][-1]) // 1_000_000

    def _add_priorities(self, batch: Batch, taken_ns: int) -> None:
        for request in batch.requests:
            totals = self.by_priority.setdefault(request.plan.priority, Totals())
            totals.requests += 1
            totals.rows += request.plan.rows
            totals.waited_ns += taken_ns - request.queued_ns
