"""Plays arrivals to a scheduler with instances whose execution time is given, in time that is only counted.

A second of traffic takes as long as its requests take to be scheduled, some microseconds each; the same arguments give
the same report, to the nanosecond. What it says of a scheduler holds for the server as far as the execution times do:
requests that come while an instance is free are looked at together, an instance that ends a batch gets the next one at
once, and queue timeouts are looked at as ``execution.runtime`` does.

::

    report = simulate(scheduler, poisson(800, seconds=10, seed=1), affine(fixed_us=2_000, row_us=150), instances=2)
    print(report.percentile_us(99), report.requests_per_second, report.batch_rows())
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from math import ceil

from shoal.config.spec import ModelSpec
from shoal.errors import ShoalError
from shoal.requests import NOBODY, InferRequest, RequestState
from shoal.scheduling.contract import Batch, CloseReason, Scheduler
from shoal.scheduling.make import make_scheduler
from shoal.testing.arrivals import Arrival, Clients, Schedule
from shoal.testing.execution_times import ExecutionTime

BUSY_CHECK_NS = 10_000_000
"""How often queue timeouts are looked at while no instance is free, as in ``execution.runtime``."""

_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class SimulationReport:
    """What came of a simulation.

    Attributes:
        latencies_ns: from arrival to answer, of every request that was answered, in rising order.
        waits_ns: the part of it in the queue, in rising order.
        queue_lengths: how many requests waited when each request came, in rising order.
        rejected: how many requests were refused, by the beginning of the refusal's text.
        batches: how many batches there were, by their rows and the reason for which they were closed.
        unserved: requests that the scheduler kept although an instance was free and time had no end; always 0 for a
            scheduler that works.
        rows: the rows of the answered requests.
        duration_ns: from the first arrival to the last answer.
        busy_ns: the time that all instances together ran batches.
        instances: how many instances there were.
    """

    latencies_ns: Sequence[int]
    waits_ns: Sequence[int]
    queue_lengths: Sequence[int]
    rejected: Mapping[str, int]
    batches: Mapping[tuple[int, CloseReason], int]
    unserved: int
    rows: int
    duration_ns: int
    busy_ns: int
    instances: int

    @property
    def requests(self) -> int:
        """How many requests were answered."""
        return len(self.latencies_ns)

    @property
    def requests_per_second(self) -> float:
        """Answered requests per second."""
        return self.requests * _NS / self.duration_ns if self.duration_ns else 0.0

    @property
    def rows_per_second(self) -> float:
        """Answered rows per second."""
        return self.rows * _NS / self.duration_ns if self.duration_ns else 0.0

    @property
    def mean_us(self) -> float:
        """The mean latency."""
        return sum(self.latencies_ns) / self.requests / 1_000 if self.requests else 0.0

    @property
    def utilization(self) -> float:
        """The share of their time that the instances ran batches, from 0 to 1."""
        return self.busy_ns / (self.duration_ns * self.instances) if self.duration_ns else 0.0

    @property
    def mean_batch_rows(self) -> float:
        """Rows per batch on average."""
        count = sum(self.batches.values())
        return sum(rows * times for (rows, _), times in self.batches.items()) / count if count else 0.0

    @property
    def mean_queue_length(self) -> float:
        """How many requests waited on average over time (by Little's law)."""
        return sum(self.waits_ns) / self.duration_ns if self.duration_ns else 0.0

    def percentile_us(self, percent: float) -> float:
        """The latency that this part of the answered requests did not pass (nearest rank); 0 when there are none."""
        return percentile(self.latencies_ns, percent) / 1_000

    def in_time(self, target_us: float) -> int:
        """How many requests were answered within this time."""
        return sum(latency_ns <= target_us * 1_000 for latency_ns in self.latencies_ns)

    def batch_rows(self) -> dict[int, int]:
        """How many batches had how many rows."""
        counts: Counter[int] = Counter()
        for (rows, _), times in sorted(self.batches.items(), key=lambda entry: entry[0][0]):
            counts[rows] += times
        return dict(counts)

    def batch_reasons(self) -> dict[CloseReason, int]:
        """How many batches were closed for which reason."""
        counts: Counter[CloseReason] = Counter()
        for (_, reason), times in self.batches.items():
            counts[reason] += times
        return dict(counts)


def percentile(ordered: Sequence[int], percent: float) -> int:
    """The smallest value that at least this part of all values does not pass; 0 of nothing."""
    return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)] if ordered else 0


def simulate(
    scheduler: Scheduler,
    arrivals: Iterable[Arrival] | Clients,
    execution_ns: ExecutionTime,
    instances: int = 1,
    *,
    preserve_ordering: bool = False,
    warm_up_s: float = 0.0,
) -> SimulationReport:
    """Play arrivals to a scheduler until all requests have ended.

    Args:
        scheduler: with an empty queue.
        arrivals: requests in the order of time, or clients.
        execution_ns: how long a batch of so many rows runs.
        instances: how many batches run at the same time.
        preserve_ordering: whether answers wait for those of the batches dispatched before.
        warm_up_s: requests that come before this moment are played but not reported.
    """
    source = arrivals if isinstance(arrivals, Clients) else Schedule(arrivals)
    run = _Simulation(scheduler, source, execution_ns, instances)
    run.preserve_ordering = preserve_ordering
    run.counted_from_ns = round(warm_up_s * _NS)
    run.play()
    return run.report()


def simulate_model(
    spec: ModelSpec, arrivals: Iterable[Arrival] | Clients, execution_ns: ExecutionTime, *, warm_up_s: float = 0.0
) -> SimulationReport:
    """The same for a model's configuration: with the scheduler, the instances and the order that it asks for."""
    instances = sum(not instance.passive for instance in spec.instances)
    ordered = spec.batching is not None and spec.batching.preserve_ordering
    scheduler = make_scheduler(spec)
    return simulate(scheduler, arrivals, execution_ns, instances, preserve_ordering=ordered, warm_up_s=warm_up_s)


class _Simulation:
    """The state of a simulation: what runs, what comes next, and what was counted."""

    def __init__(
        self, scheduler: Scheduler, source: Schedule | Clients, execution_ns: ExecutionTime, instances: int
    ) -> None:
        self.preserve_ordering = False
        self.counted_from_ns = 0
        self._scheduler = scheduler
        self._source = source
        self._execution_ns = execution_ns
        self._instances = instances
        self._idle = deque(range(instances))
        self._ends: list[tuple[int, int, int, Batch]] = []  # when, a number that orders equal times, instance, batch
        self._answers: list[tuple[int, int, Batch]] = []  # only with preserve_ordering: those that are held back
        self._last_answer_ns = 0
        self._wake_ns: int | None = None
        self._waiting = self._number = 0
        self._first_ns: int | None = None
        self._end_ns = self._busy_ns = self._rows = 0
        self._latencies: list[int] = []
        self._waits: list[int] = []
        self._queue_lengths: list[int] = []
        self._rejected: Counter[str] = Counter()
        self._batches: Counter[tuple[int, CloseReason]] = Counter()

    def play(self) -> None:
        """Go from event to event until there is none."""
        ends, answers, source = self._ends, self._answers, self._source
        while True:
            now_ns = self._next_event_ns()
            if now_ns is None:
                return
            while ends and ends[0][0] <= now_ns:
                self._end(now_ns)
            while answers and answers[0][0] <= now_ns:
                self._answer(heappop(answers)[2], now_ns)
            while (at_ns := source.next_ns()) is not None and at_ns <= now_ns:
                self._arrive(source.take())
            if self._idle:
                self._dispatch(now_ns)
            elif self._wake_ns is None:
                self._wake_ns = now_ns + BUSY_CHECK_NS if self._waiting else None
            elif self._wake_ns <= now_ns:
                self._expire(now_ns)
                self._wake_ns = now_ns + BUSY_CHECK_NS if self._waiting else None

    def _next_event_ns(self) -> int | None:
        """When something happens next; None when nothing ever will."""
        now_ns = self._source.next_ns()
        if self._ends and (now_ns is None or self._ends[0][0] < now_ns):
            now_ns = self._ends[0][0]
        if self._answers and (now_ns is None or self._answers[0][0] < now_ns):
            now_ns = self._answers[0][0]
        if self._wake_ns is not None and (now_ns is None or self._wake_ns < now_ns):
            now_ns = self._wake_ns
        return now_ns

    def _arrive(self, arrival: Arrival) -> None:
        at_ns, kind = arrival
        request = InferRequest(kind.plan, (), NOBODY, None, at_ns)
        if at_ns >= self.counted_from_ns:
            if self._first_ns is None:
                self._first_ns = at_ns
            self._queue_lengths.append(self._waiting)
        try:
            self._scheduler.enqueue(request, at_ns)
        except ShoalError as error:
            self._refuse(request, error, at_ns)
        else:
            self._waiting += 1

    def _dispatch(self, now_ns: int) -> None:
        """Give every free instance a batch, as far as there are batches to give."""
        scheduler, idle = self._scheduler, self._idle
        self._expire(now_ns)
        for instance in tuple(idle):
            batch = scheduler.take(now_ns, instance)
            if batch is not None:
                idle.remove(instance)
                self._start(batch, instance, now_ns)
            elif not scheduler.per_instance:
                break
        wake_ns = scheduler.wake_ns(now_ns) if idle else None
        self._wake_ns = wake_ns if wake_ns is None or wake_ns > now_ns else now_ns + 1

    def _expire(self, now_ns: int) -> None:
        gone = self._scheduler.expired(now_ns)
        self._waiting -= len(gone)
        for request in gone:
            self._refuse(request, self._scheduler.refusal(request), now_ns)

    def _start(self, batch: Batch, instance: int, now_ns: int) -> None:
        took_ns = self._execution_ns(batch.rows)
        self._waiting -= len(batch.requests)
        self._number += 1
        heappush(self._ends, (now_ns + took_ns, self._number, instance, batch))
        counted_from_ns, waits = self.counted_from_ns, self._waits
        if now_ns >= counted_from_ns:
            self._busy_ns += took_ns
            self._batches[batch.rows, batch.reason] += 1
        for request in batch.requests:
            if request.arrival_ns >= counted_from_ns:
                waits.append(now_ns - request.arrival_ns)
        if self.preserve_ordering:
            self._last_answer_ns = max(self._last_answer_ns, now_ns + took_ns)
            heappush(self._answers, (self._last_answer_ns, self._number, batch))

    def _end(self, now_ns: int) -> None:
        _, _, instance, batch = heappop(self._ends)
        if self._scheduler.follows:
            self._scheduler.done(batch, now_ns)
        self._idle.append(instance)
        if not self.preserve_ordering:
            self._answer(batch, now_ns)

    def _answer(self, batch: Batch, now_ns: int) -> None:
        counted_from_ns, latencies = self.counted_from_ns, self._latencies
        done = RequestState.DONE
        for request in batch.requests:
            request.state = done
            if request.arrival_ns >= counted_from_ns:
                latencies.append(now_ns - request.arrival_ns)
                self._rows += request.plan.rows
        self._end_ns = now_ns
        self._source.ended(len(batch.requests), now_ns)

    def _refuse(self, request: InferRequest, error: ShoalError, now_ns: int) -> None:
        request.state = RequestState.DONE
        if request.arrival_ns >= self.counted_from_ns:
            self._rejected[error.message.rpartition("] ")[2]] += 1
        self._source.ended(1, now_ns)

    def report(self) -> SimulationReport:
        """What was counted."""
        return SimulationReport(
            latencies_ns=sorted(self._latencies),
            waits_ns=sorted(self._waits),
            queue_lengths=sorted(self._queue_lengths),
            rejected=dict(self._rejected),
            batches=dict(self._batches),
            unserved=self._waiting,
            rows=self._rows,
            duration_ns=self._end_ns - (self._first_ns or 0) if self._latencies else 0,
            busy_ns=self._busy_ns,
            instances=self._instances,
        )
