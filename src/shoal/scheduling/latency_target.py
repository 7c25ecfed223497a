"""Chooses how long to hold a batch and how large to make it, from a latency target and what is measured.

The reasons stand in ``docs/latency-target.md``. In short: a batcher that never waits keeps up with any load that can be
kept up with, so waiting is never needed for throughput; it pays where the next request is likely to come so soon that
those who wait lose less than it gains. And a batch is made smaller than it could be where more requests are in time
that way, or where smaller batches do more rows per second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shoal.requests import InferRequest
from shoal.scheduling.arrival_gaps import ArrivalGaps
from shoal.scheduling.contract import Batch
from shoal.scheduling.execution_times import ExecutionTimes, MeasuredTime

_HALF_LIVES_PER_TARGET = 10
_LATE_WEIGHT = 1 / 32
_ROWS_WEIGHT = 1 / 64
_WAIT_WEIGHT = 1 / 16
_HEADROOM = 1.1
_TRIED_STARTS = 4


@dataclass(frozen=True, slots=True)
class LatencyTargetBeliefs:
    """What a latency target's batcher believes and what it chose last.

    Attributes:
        target_us: the target.
        requests_per_second: the rate at which requests came lately.
        execution_times: what is known of each batch size.
        fixed_us: what a batch costs whatever its rows; 0 while all batches had one size.
        row_us: what each row adds.
        running: batches that run now.
        late_share: which part of the requests of late took longer than the target, from 0 to 1.
        hold_us: for how long the last batch that was thought about was to be held for one more request; 0 for not.
        aim_rows: the rows that such a batch was to have, or was cut down to.
    """

    target_us: int
    requests_per_second: float
    execution_times: tuple[MeasuredTime, ...]
    fixed_us: float
    row_us: float
    running: int
    late_share: float
    hold_us: float
    aim_rows: int


class LatencyTarget:
    """The decisions of a batcher with a latency target; pure.

    Args:
        target_us: how long a request may take, from its arrival in the queue to the end of its batch.
        instances: how many batches can run at once.
    """

    __slots__ = (
        "_aim_rows",
        "_busy_arrivals",
        "_busy_arrivals_ns",
        "_busy_since_ns",
        "_gaps",
        "_hold_ns",
        "_instances",
        "_late_share",
        "_mean_rows",
        "_running",
        "_target_ns",
        "_times",
        "_wait_share",
    )

    def __init__(self, target_us: int, instances: int) -> None:
        self._target_ns = target_us * 1_000
        self._instances = instances
        self._gaps = ArrivalGaps(_HALF_LIVES_PER_TARGET * self._target_ns)
        self._times = ExecutionTimes()
        self._running: dict[int, tuple[int, Batch]] = {}
        self._late_share = 0.0
        self._mean_rows = 1.0
        self._wait_share = 0.5
        self._busy_arrivals = self._busy_arrivals_ns = self._busy_since_ns = 0
        self._hold_ns = self._aim_rows = 0

    # --- what it is told --------------------------------------------------------------------------------------------

    def arrived(self, request: InferRequest, now_ns: int) -> None:
        """A request came."""
        self._gaps.arrived(now_ns)
        if len(self._running) >= self._instances:
            self._busy_arrivals += 1
            self._busy_arrivals_ns += now_ns
        self._mean_rows += _ROWS_WEIGHT * (request.plan.rows - self._mean_rows)

    def started(self, batch: Batch, now_ns: int) -> None:
        """A batch runs."""
        self._running[id(batch)] = (now_ns, batch)
        self._busy_since_ns = now_ns

    def ended(self, batch: Batch, now_ns: int) -> None:
        """A batch is done."""
        self._gaps.ended(now_ns)
        self._learn_wait(now_ns)
        started_ns, _ = self._running.pop(id(batch), (now_ns, batch))
        if now_ns > started_ns:  # one that could not even be sent tells nothing
            self._times.learn(batch.rows, now_ns - started_ns)
        limit_ns = now_ns - self._target_ns
        late = sum([request.queued_ns < limit_ns for request in batch.requests])
        self._late_share += _LATE_WEIGHT * (late / len(batch.requests) - self._late_share)

    def _learn_wait(self, now_ns: int) -> None:
        """How long those who came while all instances ran waited for one, against the time that all of them ran."""
        count, busy_ns = self._busy_arrivals, now_ns - self._busy_since_ns
        if count and busy_ns > 0:
            waited = (now_ns - self._busy_arrivals_ns / count) / busy_ns
            self._wait_share += _WAIT_WEIGHT * (waited - self._wait_share)
        self._busy_arrivals = self._busy_arrivals_ns = 0

    # --- what it decides --------------------------------------------------------------------------------------------

    def hold_until_ns(self, count: int, rows: int, oldest_ns: int, now_ns: int) -> int:
        """Until when a batch that could grow is to be held for one more request; ``now_ns`` for not at all.

        Args:
            count: its requests.
            rows: their rows.
            oldest_ns: when the first of them came.
            now_ns: the time.
        """
        gain_ns = self._gain_ns(rows, now_ns)
        hold_ns = self._gaps.worth_waiting_ns(now_ns, gain_ns, count) if gain_ns > 0 else 0
        if hold_ns:
            latest_ns = oldest_ns + self._target_ns - self._times.safe_ns(rows + rows // count)
            hold_ns = min(hold_ns, max(0, int(latest_ns) - now_ns))
        self._hold_ns = hold_ns
        self._aim_rows = rows + rows // count if hold_ns else rows
        return now_ns + hold_ns

    def _gain_ns(self, rows: int, now_ns: int) -> float:
        """What the next request gains by joining these: its wait for an instance, less what it costs the others.

        Of the time until an instance is free only that share counts that requests usually wait: those who come evenly
        gain half of it, for a later start of this batch is also one of the next, for which some then wait less.
        """
        running = self._running
        if len(running) + 1 < self._instances:
            return 0.0  # it would find a free instance
        times = self._times
        wait_ns = times.expected_ns(rows)
        for started_ns, batch in running.values():
            wait_ns = min(wait_ns, max(0.0, started_ns + times.expected_ns(batch.rows) - now_ns))
        return self._wait_share * wait_ns - rows * times.row_ns

    def cut(self, requests: Sequence[InferRequest], rows: int, now_ns: int) -> int:
        """How many of these requests, which could run together, are to.

        Args:
            requests: in queue order.
            rows: their rows.
            now_ns: the time.
        """
        efficient = self._times.efficient_rows(rows)
        if efficient < rows:
            requests = requests[: _requests_within(requests, efficient) or len(requests)]
        count = self._in_time(requests, now_ns)
        self._aim_rows = sum([request.plan.rows for request in requests[:count]])
        return count

    def must_look(self, rows: int, oldest_ns: int, now_ns: int) -> bool:
        """Whether a batch may be worth cutting: it may end late, or smaller ones do more rows per second."""
        times = self._times
        late = now_ns + times.safe_ns(rows) > oldest_ns + self._target_ns
        if late and 2 * times.expected_ns(rows) > self._target_ns:
            return True
        return times.efficient_rows(rows) < rows

    def _in_time(self, requests: Sequence[InferRequest], now_ns: int) -> int:
        """How many of them to run now, the others right after, so that the most are in time."""
        times, target_ns = self._times, self._target_ns
        rows = sum([request.plan.rows for request in requests])
        best_count, best = len(requests), _in_time(requests, now_ns + times.safe_ns(rows) - target_ns)
        least = self._rows_to_keep_up(rows)
        for part in range(_TRIED_STARTS):
            left_ns = requests[part * len(requests) // _TRIED_STARTS].queued_ns + target_ns - now_ns
            first_rows = times.most_rows(left_ns, rows)
            count = _requests_within(requests, first_rows)
            if not count or first_rows < least:
                continue
            first_ns = times.safe_ns(first_rows)
            rest_ns = times.safe_ns(max(1, rows - first_rows))
            in_time = _in_time(requests[:count], now_ns + first_ns - target_ns)
            in_time += _in_time(requests[count:], now_ns + first_ns + rest_ns - target_ns)
            if in_time > best:
                best_count, best = count, in_time
        return best_count

    def _rows_to_keep_up(self, most: int) -> int:
        """The smallest batches that are enough for the requests that come; ``most`` where none up to it are."""
        times = self._times
        needed = _HEADROOM * self._gaps.per_second * self._mean_rows / self._instances / 1e9
        room = 1 - needed * times.row_ns
        return min(most, int(needed * times.fixed_ns / room) + 1) if room > 0 else most

    def beliefs(self) -> LatencyTargetBeliefs:
        """What it believes now."""
        times = self._times
        return LatencyTargetBeliefs(
            target_us=self._target_ns // 1_000,
            requests_per_second=self._gaps.per_second,
            execution_times=times.table(),
            fixed_us=times.fixed_ns / 1_000,
            row_us=times.row_ns / 1_000,
            running=len(self._running),
            late_share=self._late_share,
            hold_us=self._hold_ns / 1_000,
            aim_rows=self._aim_rows,
        )


def _requests_within(requests: Sequence[InferRequest], rows: int) -> int:
    """How many of the first requests have no more rows than that together."""
    for count, request in enumerate(requests):
        rows -= request.plan.rows
        if rows < 0:
            return count
    return len(requests)


def _in_time(requests: Sequence[InferRequest], since_ns: float) -> int:
    """How many of them came at this moment or later."""
    return sum([request.queued_ns >= since_ns for request in requests])
