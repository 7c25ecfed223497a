"""The latency target: what it learns, how it decides, and that no fixed setting does better (simulated)."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from queued_requests import model, queue, request

from shoal.config.spec import BatchingSpec, QueuePolicySpec
from shoal.scheduling.arrival_gaps import ArrivalGaps
from shoal.scheduling.contract import CloseReason
from shoal.scheduling.execution_times import ExecutionTimes
from shoal.scheduling.latency_batcher import LatencyScheduler
from shoal.scheduling.make import make_queue, make_scheduler
from shoal.testing.arrivals import Clients, bursts, poisson, rising, steady
from shoal.testing.execution_times import affine, noisy
from shoal.testing.simulation import simulate

US, MS, S = 1_000, 1_000_000, 1_000_000_000
SIZE = 32


def target_of(target_us: int, instances: int = 1, **batching: object) -> LatencyScheduler:
    spec = BatchingSpec(latency_target_us=target_us, **batching)
    return LatencyScheduler(SIZE, spec, make_queue(spec), instances)


# --- execution times ------------------------------------------------------------------------------------------------


def learned(*batches: tuple[int, int]) -> ExecutionTimes:
    times = ExecutionTimes()
    for rows, took_ns in batches:
        times.learn(rows, took_ns)
    return times


def test_nothing_is_known_at_first():
    times = ExecutionTimes()
    assert (times.expected_ns(4), times.safe_ns(4), times.table()) == (0.0, 0.0, ())
    assert times.efficient_rows(4) == 4


def test_a_line_is_found_through_what_ran():
    times = learned(*[(rows, 2 * MS + rows * 100 * US) for rows in (1, 5, 3, 8, 2, 8, 4)])
    assert times.fixed_ns == pytest.approx(2 * MS, rel=0.01)
    assert times.row_ns == pytest.approx(100 * US, rel=0.01)
    assert times.expected_ns(6) == pytest.approx(2.6 * MS, rel=0.01), "between two sizes that ran"
    assert times.expected_ns(32) == pytest.approx(5.2 * MS, rel=0.01), "beyond all of them"


def test_one_size_does_not_tell_the_fixed_part_from_the_rest():
    times = learned(*[(4, 8 * MS)] * 10)
    assert times.fixed_ns == pytest.approx(0, abs=1)
    assert times.expected_ns(8) == pytest.approx(16 * MS)
    assert times.expected_ns(2) == pytest.approx(4 * MS)


def test_one_slow_batch_changes_little_and_a_lasting_change_is_learned():
    times = learned(*[(1, MS)] * 20, (1, 100 * MS))
    assert times.expected_ns(1) < 1.2 * MS
    for _ in range(60):
        times.learn(1, 3 * MS)
    assert times.expected_ns(1) == pytest.approx(3 * MS, rel=0.05)


def test_a_slow_first_batch_is_soon_forgotten():
    times = learned((1, 2 * S), *[(1, MS)] * 25)
    assert times.expected_ns(1) < 4 * MS


@given(st.lists(st.tuples(st.integers(1, 64), st.integers(1, 10**9)), min_size=1, max_size=80), st.integers(1, 64))
def test_whatever_ran_the_answers_make_sense(batches, rows):
    times = learned(*batches)
    assert times.expected_ns(rows) >= 0
    assert times.safe_ns(rows) >= times.expected_ns(rows)
    assert times.fixed_ns >= -1e-3
    assert times.row_ns >= 0
    assert 1 <= times.efficient_rows(rows) <= rows
    assert 0 <= times.most_rows(times.safe_ns(rows), 64) <= 64
    assert sum(size.batches for size in times.table()) == len(batches)


def test_a_size_that_does_more_rows_per_second_is_known():
    """Rows come in tiles of eight: nine rows cost as much as sixteen."""
    sizes = (*range(1, 13), 16)
    times = learned(*[(rows, (10 if rows <= 8 else 18) * MS) for rows in sizes * 16])
    times.learn(16, 18 * MS)  # every eighth time a bad size is tried again
    assert times.efficient_rows(9) == 8
    assert times.efficient_rows(12) == 8
    assert times.efficient_rows(16) == 16
    assert times.efficient_rows(7) == 7


def test_a_size_that_was_slow_for_a_while_is_not_given_up():
    """Something else had the machine while full batches ran: they are the efficient ones again within two seconds."""
    times = learned(*[(rows, 10 * MS + rows * 200 * US) for rows in (1, 8, 16, 24, 32) * 16], *[(32, 60 * MS)] * 30)
    batches = 0
    while times.efficient_rows(32) < 32 or batches % 8 == 0:
        rows = times.efficient_rows(32)
        times.learn(rows, 10 * MS + rows * 200 * US)
        batches += 1
        assert batches < 100


# --- arrivals -------------------------------------------------------------------------------------------------------


def gaps_of(*gaps_ns: int, half_life_ns: int = 10 * S) -> tuple[ArrivalGaps, int]:
    gaps, now_ns = ArrivalGaps(half_life_ns), 0
    gaps.arrived(now_ns)
    for gap_ns in gaps_ns:
        now_ns += gap_ns
        gaps.arrived(now_ns)
    return gaps, now_ns


def test_with_few_requests_nothing_is_said():
    gaps, now_ns = gaps_of(MS, MS)
    assert gaps.worth_waiting_ns(now_ns, 100 * MS, 1) == 0


def test_the_rate_is_what_came_lately():
    gaps, _ = gaps_of(*[2 * MS] * 50)
    assert gaps.per_second == pytest.approx(500)


def test_the_next_of_a_bunch_is_waited_for_and_the_next_bunch_is_not():
    """Bunches of eight, 100 us between their requests, 50 ms between the bunches."""
    bunch = [50 * MS, *[100 * US] * 7]
    gaps, now_ns = gaps_of(*bunch * 8)
    assert 50 * US <= gaps.worth_waiting_ns(now_ns, 5 * MS, 1) < 2 * MS
    assert gaps.worth_waiting_ns(now_ns + 2 * MS, 5 * MS, 1) == 0


def test_more_who_wait_make_it_less_worth():
    gaps, now_ns = gaps_of(*[MS] * 50)
    assert gaps.worth_waiting_ns(now_ns, 5 * MS, 1) > 0
    assert gaps.worth_waiting_ns(now_ns, 5 * MS, 50) == 0
    assert gaps.worth_waiting_ns(now_ns, 0, 1) == 0


def test_a_load_that_has_gone_is_forgotten_within_a_few_requests():
    gaps, now_ns = gaps_of(*[100 * US] * 500, half_life_ns=100 * MS)
    assert gaps.worth_waiting_ns(now_ns, 5 * MS, 1) > 0
    for _ in range(4):
        now_ns += S
        gaps.arrived(now_ns)
    assert gaps.worth_waiting_ns(now_ns, 5 * MS, 1) == 0


def test_the_end_of_a_batch_brings_the_clients_back():
    """Clients that wait for their answers come right after the end of a batch, and at no other time."""
    gaps, now_ns = ArrivalGaps(10 * S), 0
    for _ in range(10):
        for _ in range(4):
            now_ns += 50 * US
            gaps.arrived(now_ns)
        now_ns += 10 * MS
        gaps.ended(now_ns)
    assert gaps.worth_waiting_ns(now_ns, 5 * MS, 1) > 0
    assert gaps.worth_waiting_ns(now_ns + 5 * MS, 5 * MS, 1) == 0


# --- decisions ------------------------------------------------------------------------------------------------------


def play(batcher: LatencyScheduler, rows: int, took_ns: int, now_ns: int) -> int:
    """Run one batch of one request at a quiet time; gives the time of its end."""
    queue(batcher, request(rows), now_ns=now_ns)
    batch = batcher.take(now_ns)
    assert batch is not None
    batcher.done(batch, now_ns + took_ns)
    return now_ns + took_ns


def test_a_lone_request_is_never_held():
    batcher, now_ns = target_of(20_000), 0
    for _ in range(50):
        queue(batcher, request(), now_ns=now_ns)
        batch = batcher.take(now_ns)
        assert batch is not None
        assert batch.reason is CloseReason.IDLE
        batcher.done(batch, now_ns + 2 * MS)
        now_ns += S


def taught(instances: int = 1) -> tuple[LatencyScheduler, int]:
    """A batcher that knows batches of 10 ms and bunches of eight requests, 100 us apart, every 100 ms."""
    batcher, start_ns = target_of(100_000, instances), S
    for _ in range(20):
        running, free_ns = None, start_ns
        for place in range(8):
            now_ns = start_ns + place * 100 * US
            queue(batcher, request(), now_ns=now_ns)
            if running is None and (running := batcher.take(now_ns)) is not None:
                free_ns = now_ns + 10 * MS
        while running or batcher.statistics().requests:
            if running:
                batcher.done(running, free_ns)
            running, free_ns = batcher.take(free_ns), free_ns + 10 * MS
        start_ns += 100 * MS
    return batcher, start_ns


def test_a_bunch_that_is_coming_is_held_together_and_goes_when_it_is_over():
    batcher, now_ns = taught()
    queue(batcher, *(request() for _ in range(3)), now_ns=now_ns)
    assert batcher.take(now_ns) is None
    wake_ns = batcher.wake_ns(now_ns)
    assert now_ns < wake_ns < now_ns + 5 * MS
    assert batcher.beliefs().hold_us == pytest.approx((wake_ns - now_ns) / 1_000)
    assert batcher.beliefs().aim_rows == 4
    assert batcher.take(wake_ns - 1) is None
    batch = batcher.take(now_ns + 6 * MS)
    assert (batch.rows, batch.reason) == (3, CloseReason.DELAY)


def test_nobody_is_held_while_another_instance_is_free():
    batcher, now_ns = taught(instances=2)
    queue(batcher, request(), now_ns=now_ns)
    assert batcher.take(now_ns) is not None


def test_nobody_is_held_past_the_target():
    batcher, now_ns = taught()
    queue(batcher, request(), now_ns=now_ns)
    assert batcher.take(now_ns) is None
    queue(batcher, request(), now_ns=now_ns + 95 * MS)
    assert batcher.take(now_ns + 95 * MS).rows == 2


def test_a_batch_is_cut_so_that_the_first_are_in_time():
    """Each row costs 1 ms and each batch 1 ms: of 32 requests that came at once, 32 end late and 18 do not."""
    batcher, now_ns = target_of(20_000), S
    for rows in (1, 2, 4, 8, 16, 24, 32) * 8:
        now_ns = play(batcher, rows, (1 + rows) * MS, now_ns + S)
    now_ns += S
    queue(batcher, *(request() for _ in range(32)), now_ns=now_ns)
    batch = batcher.take(now_ns)
    assert 16 <= batch.rows <= 19
    assert batch.reason is CloseReason.TARGET
    assert batcher.beliefs().aim_rows == batch.rows


def test_when_all_are_late_anyway_the_batch_is_full():
    batcher, now_ns = target_of(20_000), S
    for rows in (1, 2, 4, 8, 16, 24, 32) * 8:
        now_ns = play(batcher, rows, (1 + rows) * MS, now_ns + S)
    queue(batcher, *(request() for _ in range(40)), now_ns=now_ns)
    batch = batcher.take(now_ns + 30 * MS)
    assert (batch.rows, batch.reason) == (32, CloseReason.FULL)


def test_beliefs_say_what_was_measured():
    batcher, now_ns = target_of(5_000), S
    for rows in (1, 2, 4, 8) * 10:
        now_ns = play(batcher, rows, (2 + rows) * MS, now_ns + 100 * MS)
    beliefs = batcher.beliefs()
    assert beliefs.target_us == 5_000
    assert beliefs.fixed_us == pytest.approx(2_000, rel=0.02)
    assert beliefs.row_us == pytest.approx(1_000, rel=0.02)
    assert [(size.rows, size.batches) for size in beliefs.execution_times] == [(1, 10), (2, 10), (4, 10), (8, 10)]
    assert beliefs.execution_times[0].expected_us == pytest.approx(3_000, rel=0.02)
    assert beliefs.requests_per_second == pytest.approx(1e9 / (100 * MS + 5.75 * MS), rel=0.1)
    assert 0.3 < beliefs.late_share < 0.7, "batches of four and eight rows take longer than 5 ms"
    assert beliefs.running == 0


def test_queue_policies_hold_while_a_batch_is_held():
    policy = QueuePolicySpec(default_timeout_us=500, max_queue_size=3)
    batcher, now_ns = taught()
    batcher = target_of(100_000, default_queue_policy=policy)
    (late,) = queue(batcher, request(), now_ns=now_ns)
    assert batcher.take(now_ns + 500 * US) is None
    assert batcher.expired(now_ns + 500 * US) == [late]
    assert batcher.statistics().requests == 0


def test_a_batch_that_could_not_be_sent_teaches_nothing():
    batcher = target_of(20_000)
    queue(batcher, request(), now_ns=S)
    batcher.done(batcher.take(S), S)
    assert batcher.beliefs().execution_times == ()


# --- against fixed settings -----------------------------------------------------------------------------------------

FIXED = {
    "delay 0": BatchingSpec(),
    "delay 1 ms": BatchingSpec(max_queue_delay_us=1_000),
    "delay 5 ms": BatchingSpec(max_queue_delay_us=5_000),
    "prefer 16": BatchingSpec(preferred_batch_sizes=(16,)),
    "prefer 8 or 16, delay 5 ms": BatchingSpec(preferred_batch_sizes=(8, 16), max_queue_delay_us=5_000),
}
MODELS = {
    "2 ms + 0.1 ms per row": (2_000, 100, 20_000),
    "10 ms + 0.2 ms per row": (10_000, 200, 40_000),
    "1 ms + 1 ms per row": (1_000, 1_000, 45_000),
}
SECONDS = 2.0


def loads(capacity: float) -> dict[str, object]:
    """Arrivals as parts of what all instances can do with full batches."""
    return {
        "steady, half": lambda: steady(capacity / 2, SECONDS),
        "few": lambda: poisson(capacity / 20, SECONDS, seed=1),
        "half": lambda: poisson(capacity / 2, SECONDS, seed=1),
        "most": lambda: poisson(0.8 * capacity, SECONDS, seed=1),
        "bursts": lambda: bursts(capacity, 0.05, 0.15, SECONDS, seed=1),
        "bunches": lambda: bursts(3 * capacity, 0.004, 0.096, SECONDS, seed=1),
        "rising": lambda: rising(0.05 * capacity, 0.9 * capacity, SECONDS, seed=1),
        "overload": lambda: poisson(1.5 * capacity, SECONDS, seed=1),
        "clients": lambda: Clients(8, SECONDS, spread_us=500, seed=1),
    }


@cache
def reports(model_name: str, instances: int, load: str):
    """The report of each fixed setting and, last, of the target."""
    fixed_us, row_us, target_us = MODELS[model_name]
    capacity = instances * SIZE / (fixed_us + SIZE * row_us) * 1e6
    settings = [*FIXED.values(), BatchingSpec(latency_target_us=target_us)]
    return [
        simulate(
            make_scheduler(model(SIZE, batching, instances)),
            loads(capacity)[load](),
            noisy(affine(fixed_us, row_us), seed=5, spread=0.05),
            instances,
            warm_up_s=0.5,
        )
        for batching in settings
    ]


EACH = pytest.mark.parametrize(
    ("model_name", "instances"), [(name, instances) for name in MODELS for instances in (1, 2)]
)
LOADS = tuple(loads(1.0))


@EACH
@pytest.mark.parametrize("load", LOADS)
def test_throughput_is_that_of_the_best_fixed_setting(model_name, instances, load):
    *fixed, ours = reports(model_name, instances, load)
    least = 0.9 if load == "clients" else 0.985
    assert ours.requests_per_second >= least * max(report.requests_per_second for report in fixed)


@EACH
@pytest.mark.parametrize("load", LOADS)
def test_the_target_is_held_wherever_a_fixed_setting_holds_it(model_name, instances, load):
    *fixed, ours = reports(model_name, instances, load)
    target_us = MODELS[model_name][2]
    if min(report.percentile_us(99) for report in fixed) <= target_us:
        assert ours.percentile_us(99) <= target_us


@EACH
@pytest.mark.parametrize("load", [load for load in LOADS if load != "overload"])
def test_the_mean_latency_is_that_of_the_right_guess(model_name, instances, load):
    """Within a tenth of the best fixed setting, whichever that is; without load, that is not to wait."""
    *fixed, ours = reports(model_name, instances, load)
    assert ours.mean_us <= 1.1 * min(report.mean_us for report in fixed)
    if load == "few":
        assert ours.mean_us <= 1.02 * fixed[0].mean_us


def test_clients_that_wait_for_each_other_share_their_batches():
    """Without a wait the first client back runs alone, and all others wait for it."""
    *fixed, ours = reports("10 ms + 0.2 ms per row", 1, "clients")
    assert ours.requests_per_second > 1.5 * fixed[0].requests_per_second
