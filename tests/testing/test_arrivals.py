"""Arrival processes and execution times: deterministic, at the rates and in the order that they promise."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.testing.arrivals import Clients, RequestKind, bursts, poisson, recorded, rising, steady
from shoal.testing.execution_times import affine, noisy, table

S, MS = 1_000_000_000, 1_000_000
SMALL, LARGE = RequestKind(rows=1, share=3.0), RequestKind(rows=4, share=1.0)

PROCESSES = {
    "steady": lambda seed: steady(1_000, 2, seed=seed, kinds=[SMALL, LARGE]),
    "poisson": lambda seed: poisson(1_000, 2, seed=seed, kinds=[SMALL, LARGE]),
    "bursts": lambda seed: bursts(4_000, 0.05, 0.15, 2, seed=seed, kinds=[SMALL, LARGE]),
    "rising": lambda seed: rising(500, 1_500, 2, seed=seed, kinds=[SMALL, LARGE]),
    "falling": lambda seed: rising(1_500, 500, 2, seed=seed, kinds=[SMALL, LARGE]),
}


@pytest.mark.parametrize("name", PROCESSES)
def test_a_process_is_the_same_every_time_and_in_the_order_of_time(name):
    arrivals = list(PROCESSES[name](1))
    assert arrivals == list(PROCESSES[name](1))
    assert arrivals != list(PROCESSES[name](2))
    assert all(earlier.at_ns <= later.at_ns for earlier, later in pairwise(arrivals))
    assert arrivals[0].at_ns >= 0
    assert arrivals[-1].at_ns < 2 * S


@pytest.mark.parametrize("name", PROCESSES)
def test_a_process_has_its_rate_and_its_kinds_by_their_shares(name):
    counts = Counter(kind for _, kind in PROCESSES[name](1))
    assert sum(counts.values()) == pytest.approx(2_000, rel=0.1)
    assert counts[SMALL] / counts[LARGE] == pytest.approx(3, rel=0.2)


def test_steady_requests_are_evenly_apart():
    assert [arrival.at_ns for arrival in steady(1_000, 0.004)] == [0, MS, 2 * MS, 3 * MS]


def test_bursts_are_on_and_off():
    moments = [arrival.at_ns % (200 * MS) for arrival in bursts(4_000, 0.05, 0.15, 2, seed=1)]
    assert max(moments) < 50 * MS


def test_the_rate_rises():
    moments = [arrival.at_ns for arrival in rising(100, 1_900, 2, seed=1)]
    assert sum(moment > S for moment in moments) > 2 * sum(moment <= S for moment in moments)


def test_a_trace_keeps_its_moments_and_rows():
    arrivals = list(recorded([(0.0, 1), (0.5, 3), (0.5, 1)]))
    assert [(arrival.at_ns, arrival.kind.rows) for arrival in arrivals] == [(0, 1), (S // 2, 3), (S // 2, 1)]


def test_a_trace_that_goes_back_in_time_is_refused():
    with pytest.raises(ValueError, match=r"order of time, but 0\.25 s stands after 0\.5 s"):
        list(recorded([(0.5, 1), (0.25, 1)]))


def test_clients_send_again_when_they_are_answered_and_not_before():
    clients = Clients(2, seconds=1, think_us=100)
    assert [clients.take().at_ns, clients.take().at_ns] == [100_000, 100_000]
    assert clients.next_ns() is None
    clients.ended(1, 5 * MS)
    assert clients.next_ns() == 5 * MS + 100_000
    clients.take()
    clients.ended(2, S)
    assert clients.next_ns() is None, "its time is over"


def test_a_simulated_request_has_nowhere_to_go():
    with pytest.raises(TypeError, match="give it to a scheduler"):
        SMALL.plan.sink.submit(None)
    with pytest.raises(TypeError, match="use the scheduler's cancel"):
        SMALL.plan.sink.cancel(None)


def test_affine_execution_times():
    execution_ns = affine(fixed_us=2_000, row_us=100)
    assert [execution_ns(rows) for rows in (1, 10)] == [2_100_000, 3_000_000]


@given(
    st.dictionaries(st.integers(1, 64), st.integers(1, 10_000), min_size=1, max_size=6),
    st.integers(1, 128),
)
def test_a_table_is_exact_where_it_was_measured_and_between_its_neighbours_elsewhere(times_us, rows):
    execution_ns = table(times_us)
    assert all(execution_ns(size) == time_us * 1_000 for size, time_us in times_us.items())
    below = [size for size in times_us if size <= rows]
    above = [size for size in times_us if size >= rows]
    found_us = execution_ns(rows) / 1_000
    assert found_us >= 0
    if below and above:
        ends = (times_us[max(below)], times_us[min(above)])
        assert min(ends) - 1 <= found_us <= max(ends) + 1


def test_an_empty_table_is_refused():
    with pytest.raises(ValueError, match="at least one number of rows"):
        table({})


def test_noise_keeps_the_mean_and_is_the_same_every_time():
    execution_ns = noisy(affine(1_000, 0), seed=1, spread=0.2)
    times_ns = [execution_ns(1) for _ in range(4_000)]
    assert sum(times_ns) / len(times_ns) == pytest.approx(MS, rel=0.02)
    assert len(set(times_ns)) > 3_900
    again_ns = noisy(affine(1_000, 0), seed=1, spread=0.2)
    assert times_ns[:100] == [again_ns(1) for _ in range(100)]


def test_some_batches_are_slow():
    execution_ns = noisy(affine(1_000, 0), seed=1, spread=0.0, slow_share=0.25)
    times_ns = [execution_ns(1) for _ in range(1_000)]
    assert set(times_ns) == {MS, 10 * MS}
    assert times_ns.count(10 * MS) == pytest.approx(250, rel=0.2)
