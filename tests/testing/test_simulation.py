"""The simulator: what it reports is what the scheduler, the arrivals and the execution times make."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.config.spec import BatchingSpec, InstanceKind, InstanceSpec, ModelSpec, QueuePolicySpec
from shoal.scheduling.contract import CloseReason
from shoal.scheduling.default import DefaultScheduler
from shoal.testing.arrivals import Arrival, Clients, RequestKind, bursts, poisson, recorded, steady
from shoal.testing.execution_times import affine, noisy
from shoal.testing.simulation import percentile, simulate, simulate_model
from shoal.testing.strategies import batching_specs

S, MS, US = 1_000_000_000, 1_000_000, 1_000
ONE = RequestKind()


def model(batching: BatchingSpec | None, max_batch_size: int = 8, instances: int = 1) -> ModelSpec:
    each = tuple(InstanceSpec(f"m_{number}", InstanceKind.CPU, 0) for number in range(instances))
    return ModelSpec("m", 1, "python", "python", max_batch_size, (), (), each, batching)


def at(*moments_ms: float, kind: RequestKind = ONE) -> list[Arrival]:
    return [Arrival(round(moment * MS), kind) for moment in moments_ms]


def test_one_request_takes_its_execution_time():
    report = simulate(DefaultScheduler(), at(5), affine(2_000, 0))
    assert report.latencies_ns == [2 * MS]
    assert report.waits_ns == [0]
    assert (report.requests, report.rows, report.duration_ns, report.busy_ns) == (1, 1, 2 * MS, 2 * MS)
    assert (report.mean_us, report.percentile_us(99), report.utilization) == (2_000, 2_000, 1.0)
    assert report.unserved == 0


def test_requests_behind_a_busy_instance_wait_and_share_the_next_batch():
    report = simulate_model(model(BatchingSpec()), at(0, 1, 3), affine(10_000, 0))
    assert report.batches == {(1, CloseReason.IDLE): 1, (2, CloseReason.IDLE): 1}
    assert report.latencies_ns == [10 * MS, 17 * MS, 19 * MS]
    assert report.waits_ns == [0, 7 * MS, 9 * MS]
    assert report.queue_lengths == [0, 0, 1]
    assert report.mean_queue_length == pytest.approx(16 / 20)
    assert report.batch_rows() == {1: 1, 2: 1}
    assert report.batch_reasons() == {CloseReason.IDLE: 2}
    assert report.mean_batch_rows == 1.5
    assert report.requests_per_second == pytest.approx(150)


def test_instances_run_at_the_same_time():
    report = simulate_model(model(None, instances=2), at(0, 0, 0), affine(10_000, 0))
    assert report.latencies_ns == [10 * MS, 10 * MS, 20 * MS]
    assert report.utilization == pytest.approx(0.75)


def test_the_delay_is_waited_for():
    report = simulate_model(model(BatchingSpec(max_queue_delay_us=500)), at(0, 0.2), affine(1_000, 0))
    assert report.batches == {(2, CloseReason.DELAY): 1}
    assert report.latencies_ns == [1_300 * US, 1_500 * US]


def test_answers_are_held_back_where_order_is_kept():
    times_ns = iter([10 * MS, 2 * MS])
    spec = model(BatchingSpec(preserve_ordering=True), max_batch_size=1, instances=2)
    report = simulate_model(spec, at(0, 1), lambda _: next(times_ns))
    assert report.latencies_ns == [9 * MS, 10 * MS]


def test_a_full_queue_and_a_timeout_refuse():
    limited = BatchingSpec(default_queue_policy=QueuePolicySpec(max_queue_size=1))
    report = simulate_model(model(limited), at(0, 1, 2), affine(10_000, 0))
    assert report.rejected == {"Exceeds maximum queue size": 1}
    timed = BatchingSpec(default_queue_policy=QueuePolicySpec(default_timeout_us=3_000))
    report = simulate_model(model(timed), at(0, 1, 2), affine(20_000, 0))
    assert (report.requests, report.rejected) == (1, {"Request timeout expired": 2})
    assert report.unserved == 0


def test_priorities_and_rows_and_keys_reach_the_scheduler():
    batching = BatchingSpec(priority_levels=2, default_priority_level=2)
    low, high = RequestKind(rows=2, priority=2), RequestKind(rows=3, priority=1, key=((5,),))
    arrivals = [*at(0, 1, kind=low), *at(2, kind=high)]
    report = simulate_model(model(batching), arrivals, affine(10_000, 0))
    assert report.batches == {(2, CloseReason.IDLE): 2, (3, CloseReason.SHAPE): 1}
    assert report.waits_ns == [0, 8 * MS, 19 * MS]


def test_the_warm_up_is_played_but_not_reported():
    report = simulate_model(model(None), at(0, 100), affine(10_000, 0), warm_up_s=0.05)
    assert (report.requests, report.duration_ns, report.busy_ns) == (1, 10 * MS, 10 * MS)
    assert report.queue_lengths == [0]


def test_clients_are_never_more_in_flight_than_there_are():
    report = simulate_model(model(BatchingSpec()), Clients(3, seconds=0.1, think_us=1), affine(1_000, 0))
    assert max(report.queue_lengths) <= 2
    assert max(report.batch_rows()) <= 3
    assert report.requests_per_second == pytest.approx(3 / 0.001, rel=0.1)


def test_a_trace_is_replayed():
    report = simulate_model(model(BatchingSpec()), recorded([(0.0, 8), (0.001, 8)]), affine(5_000, 0))
    assert report.batches == {(8, CloseReason.FULL): 2}
    assert report.rows == 16
    assert report.rows_per_second == pytest.approx(1_600)


def test_nothing_comes_of_nothing():
    report = simulate_model(model(BatchingSpec()), [], affine(1_000, 0))
    assert (report.requests, report.mean_us, report.percentile_us(50)) == (0, 0.0, 0.0)
    assert (report.requests_per_second, report.rows_per_second, report.utilization) == (0.0, 0.0, 0.0)
    assert (report.mean_batch_rows, report.mean_queue_length, report.in_time(10)) == (0.0, 0.0, 0)


def test_percentiles_are_the_nearest_rank():
    values = list(range(1, 101))
    assert [percentile(values, percent) for percent in (0, 50, 99, 99.9, 100)] == [1, 50, 99, 100, 100]
    assert percentile([], 50) == 0


def test_the_same_arguments_give_the_same_report():
    def play():
        arrivals = bursts(3_000, 0.02, 0.08, 1, seed=4)
        return simulate_model(model(BatchingSpec(latency_target_us=20_000)), arrivals, noisy(affine(900, 80), seed=9))

    assert play() == play()


def test_a_batch_server_does_what_theory_says():
    """M/D/1: the mean wait is rho / (2 (1 - rho)) service times (Pollaczek and Khinchine)."""
    report = simulate_model(model(None), poisson(500, 60, seed=3), affine(1_000, 0))
    assert report.mean_us == pytest.approx(1_000 + 1_000 * 0.5 / (2 * 0.5), rel=0.03)


@given(
    batching=st.none() | batching_specs(8),
    instances=st.integers(1, 3),
    per_second=st.integers(50, 4_000),
    seed=st.integers(0, 1_000),
)
@settings(max_examples=60, deadline=None)
def test_every_request_is_answered_or_refused(batching, instances, per_second, seed):
    kinds = [RequestKind(rows, min(level, batching.priority_levels if batching else 0)) for rows, level in
             ((1, 1), (3, 2), (8, 3))]  # fmt: skip
    arrivals = list(poisson(per_second, 0.1, seed=seed, kinds=kinds))
    report = simulate_model(model(batching, instances=instances), arrivals, affine(1_500, 100))
    assert report.requests + sum(report.rejected.values()) == len(arrivals)
    assert report.unserved == 0
    assert report.busy_ns <= report.duration_ns * instances
    most = 8 if batching is not None else max((kind.rows for _, kind in arrivals), default=0)
    assert all(rows <= most for rows, _ in report.batches)


def test_a_scheduler_that_keeps_requests_is_found_out():
    class Keeper(DefaultScheduler):
        def take(self, now_ns, instance=0):
            return None

        def wake_ns(self, now_ns):
            return None

    report = simulate(Keeper(), steady(100, 0.05), affine(1_000, 0))
    assert (report.requests, report.unserved) == (0, 5)
