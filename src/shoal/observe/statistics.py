"""What a model version has done so far: plain integers that the event loop's thread adds to and that a reader reads.

Counting follows the statistics extension of Triton: a request that succeeded counts once whatever its rows, its compute
times are those of the whole batch it ran in (so they add up to more than the wall time when requests share batches),
and the per-batch-size table counts each execution once, a failed one too.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from shoal.errors import FailureReason, ShoalError
from shoal.execution.recorder import BatchTimes, ResponseTimes
from shoal.observe.batch_log import BatchLog, Totals
from shoal.observe.buckets import DURATION_BOUNDS_NS, Json, duration
from shoal.observe.response_statistics import ResponseStatistics
from shoal.requests import InferRequest
from shoal.scheduling.contract import Batch


class ModelStatistics:
    """Counts what happens to one model version; implements ``execution.recorder.Recorder``.

    All of it runs on the event loop's thread and takes no lock. A reader on another thread gets whole numbers, at worst
    one batch apart from each other.

    Attributes:
        name: the model.
        version: its version.
        success_count: requests answered with a result.
        request_ns: their time from arrival to answer, added up; likewise the other sums of nanoseconds.
        queue_ns: their time in the queue.
        compute_input_ns: until their batch's inputs lay before the model.
        compute_infer_ns: until the model was done with their batch.
        compute_output_ns: until their batch's outputs lay before the server.
        fail_ns: the time from arrival to answer of the requests that failed.
        failures: how many failed, by reason.
        inference_count: rows answered with a result.
        request_buckets: succeeded requests by duration, in the buckets of ``DURATION_BOUNDS_S``.
        queue_buckets: succeeded requests by time in the queue.
        log: what is counted once per batch.
        responses: the responses of a decoupled model.
        cache_hit_count: requests answered from the response cache; they succeeded, and ran no model.
        cache_hit_ns: the time that their lookups took.
        cache_miss_count: requests that the response cache was asked for in vain.
        cache_miss_ns: the time that their lookups and insertions took.
    """

    __slots__ = (
        "cache_hit_count",
        "cache_hit_ns",
        "cache_miss_count",
        "cache_miss_ns",
        "compute_infer_ns",
        "compute_input_ns",
        "compute_output_ns",
        "fail_ns",
        "failures",
        "inference_count",
        "log",
        "name",
        "queue_buckets",
        "queue_ns",
        "request_buckets",
        "request_ns",
        "responses",
        "success_count",
        "version",
    )

    def __init__(self, name: str, version: int, epoch_ns: int | None = None) -> None:
        self.name = name
        self.version = version
        self.success_count = self.inference_count = 0
        self.request_ns = self.queue_ns = self.fail_ns = 0
        self.compute_input_ns = self.compute_infer_ns = self.compute_output_ns = 0
        self.cache_hit_count = self.cache_hit_ns = self.cache_miss_count = self.cache_miss_ns = 0
        self.failures = dict.fromkeys(FailureReason, 0)
        self.request_buckets = [0] * (len(DURATION_BOUNDS_NS) + 1)
        self.queue_buckets = [0] * (len(DURATION_BOUNDS_NS) + 1)
        self.log = BatchLog(epoch_ns)
        self.responses = ResponseStatistics()

    @property
    def fail_count(self) -> int:
        """Requests that failed, for whatever reason."""
        return sum(self.failures.values())

    # --- Recorder ---------------------------------------------------------------------------------------------------

    def batch_done(self, batch: Batch, times: BatchTimes, answered: Sequence[InferRequest]) -> None:
        """Count a batch that ran, and those of its requests that got a result."""
        taken_ns, done_ns, input_ns, infer_ns = times.taken_ns, times.done_ns, times.input_ns, times.infer_ns
        compute_input_ns = input_ns - taken_ns
        compute_infer_ns = infer_ns - input_ns
        compute_output_ns = times.output_ns - infer_ns
        request_buckets, queue_buckets, bounds = self.request_buckets, self.queue_buckets, DURATION_BOUNDS_NS
        request_ns = queue_ns = 0
        for request in answered:
            waited_ns = taken_ns - request.queued_ns
            took_ns = done_ns - request.arrival_ns
            queue_ns += waited_ns
            request_ns += took_ns
            queue_buckets[bisect_left(bounds, waited_ns)] += 1
            request_buckets[bisect_left(bounds, took_ns)] += 1
        count = len(answered)
        self.success_count += count
        self.request_ns += request_ns
        self.queue_ns += queue_ns
        self.compute_input_ns += compute_input_ns * count
        self.compute_infer_ns += compute_infer_ns * count
        self.compute_output_ns += compute_output_ns * count
        rows = batch.rows
        all_answered = count == len(batch.requests)
        self.inference_count += rows if all_answered else sum(request.plan.rows for request in answered)
        self.log.add(batch, times)

    def response_sent(self, index: int, times: ResponseTimes, error: ShoalError | None, *, empty: bool) -> None:
        """Count one of the responses of a decoupled model's request."""
        self.responses.add(index, times, error, empty=empty)

    def request_streamed(self, request: InferRequest, times: BatchTimes) -> None:
        """Count a request whose responses came one by one, after the last of them."""
        waited_ns, took_ns = times.taken_ns - request.queued_ns, times.done_ns - request.arrival_ns
        compute_input_ns, compute_infer_ns, compute_output_ns = times.compute_ns
        self.success_count += 1
        self.inference_count += request.plan.rows
        self.request_ns += took_ns
        self.queue_ns += waited_ns
        self.compute_input_ns += compute_input_ns
        self.compute_infer_ns += compute_infer_ns
        self.compute_output_ns += compute_output_ns
        self.request_buckets[bisect_left(DURATION_BOUNDS_NS, took_ns)] += 1
        self.queue_buckets[bisect_left(DURATION_BOUNDS_NS, waited_ns)] += 1

    def request_failed(self, request: InferRequest, reason: FailureReason, now_ns: int) -> None:
        """Count a request that was answered with an error, at any stage (rule 43)."""
        self.failures[reason] += 1
        self.fail_ns += now_ns - request.arrival_ns

    def cache_hit(self, request: InferRequest, lookup_ns: int, now_ns: int) -> None:
        """Count a request that the response cache answered: it succeeded, and waited in no queue."""
        took_ns = now_ns - request.arrival_ns
        self.success_count += 1
        self.request_ns += took_ns
        self.request_buckets[bisect_left(DURATION_BOUNDS_NS, took_ns)] += 1
        self.queue_buckets[0] += 1
        self.cache_hit_count += 1
        self.cache_hit_ns += lookup_ns

    def cache_miss(self, took_ns: int) -> None:
        """Count a request that the response cache was asked for in vain."""
        self.cache_miss_count += 1
        self.cache_miss_ns += took_ns

    # --- readers ----------------------------------------------------------------------------------------------------

    def to_dict(self) -> Json:
        """The model's entry of the statistics extension, in the REST interface's JSON shape (section 2.9)."""
        log = self.log
        log.settle()
        success = self.success_count
        ran = success - self.cache_hit_count
        return {
            "name": self.name,
            "version": str(self.version),
            "last_inference": log.last_ms,
            "inference_count": self.inference_count,
            "execution_count": log.batches,
            "inference_stats": {
                "success": duration(success, self.request_ns),
                "fail": duration(self.fail_count, self.fail_ns),
                "queue": duration(success, self.queue_ns),
                "compute_input": duration(ran, self.compute_input_ns),
                "compute_infer": duration(ran, self.compute_infer_ns),
                "compute_output": duration(ran, self.compute_output_ns),
                "cache_hit": duration(self.cache_hit_count, self.cache_hit_ns),
                "cache_miss": duration(self.cache_miss_count, self.cache_miss_ns),
            },
            "response_stats": self.responses.to_dict(),
            "batch_stats": [_batch_size(rows, totals) for rows, totals in sorted(log.by_size.items())],
            "memory_usage": [],
        }


def _batch_size(rows: int, totals: Totals) -> Json:
    """The entry of ``batch_stats`` for this many rows."""
    return {
        "batch_size": rows,
        "compute_input": duration(totals.batches, totals.compute_input_ns),
        "compute_infer": duration(totals.batches, totals.compute_infer_ns),
        "compute_output": duration(totals.batches, totals.compute_output_ns),
    }
