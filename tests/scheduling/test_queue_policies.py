"""Priority levels and queue timeouts (rules 36 and 38-40)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from queued_requests import queue, request, scheduler

from shoal.config.spec import QueuePolicySpec, TimeoutAction
from shoal.errors import QueueFullError
from shoal.scheduling.deadlines import Deadlines

US = 1_000
REJECT = QueuePolicySpec(default_timeout_us=100)
OVERRIDE = QueuePolicySpec(default_timeout_us=100, allow_timeout_override=True)
DELAY = QueuePolicySpec(TimeoutAction.DELAY, default_timeout_us=100)


def test_rule_39_a_request_is_rejected_when_its_timeout_passes():
    batcher = scheduler(max_queue_delay_us=1_000, default_queue_policy=REJECT)
    first, second = request(), request()
    batcher.enqueue(first, 0)
    batcher.enqueue(second, 50 * US)
    assert batcher.take(50 * US) is None
    assert batcher.wake_ns(50 * US) == 100 * US
    assert batcher.expired(100 * US - 1) == []
    assert batcher.expired(100 * US) == [first]
    assert batcher.wake_ns(100 * US) == 150 * US
    assert batcher.statistics().requests == 1


def test_rule_39_a_late_request_never_runs_even_if_nobody_asked_for_the_late_ones():
    batcher = scheduler(default_queue_policy=REJECT)
    late, in_time = request(), request()
    batcher.enqueue(late, 0)
    batcher.enqueue(in_time, 60 * US)
    assert batcher.take(120 * US).requests == [in_time]
    assert batcher.wake_ns(120 * US) == 120 * US
    assert batcher.expired(120 * US) == [late]
    assert batcher.wake_ns(120 * US) is None


def test_rule_39_late_requests_that_nobody_fetched_are_drained():
    batcher = scheduler(default_queue_policy=REJECT)
    (late,) = queue(batcher, request())
    assert batcher.take(100 * US) is None
    assert batcher.drain() == [late]
    assert batcher.expired(100 * US) == []


@pytest.mark.parametrize(
    ("asked_us", "policy", "deadline_us"),
    [
        (40, OVERRIDE, 40),
        (400, OVERRIDE, 100),
        (0, OVERRIDE, 100),
        (40, REJECT, 100),
    ],
)
def test_rule_38_a_request_may_only_shorten_the_default_and_only_where_allowed(asked_us, policy, deadline_us):
    batcher = scheduler(max_queue_delay_us=1_000, default_queue_policy=policy)
    queue(batcher, request(timeout_us=asked_us))
    assert batcher.take(0) is None
    assert batcher.wake_ns(0) == deadline_us * US


def test_rule_38_without_a_default_a_requests_timeout_never_takes_effect():
    batcher = scheduler(default_queue_policy=QueuePolicySpec(allow_timeout_override=True))
    (waiting,) = queue(batcher, request(timeout_us=1))
    assert batcher.expired(10**18) == []
    assert batcher.take(10**18).requests == [waiting]


def test_delayed_requests_run_after_all_that_are_in_time():
    batcher = scheduler(max_batch_size=2, default_queue_policy=DELAY)
    late, also_late, in_time = request(), request(), request()
    queue(batcher, late, also_late)
    queue(batcher, in_time, now_ns=100 * US)
    assert batcher.expired(100 * US) == []
    assert batcher.take(100 * US).requests == [in_time, late]
    assert batcher.take(100 * US).requests == [also_late]
    assert late.queued_ns == 0, "its time in the queue goes on"


def test_rule_40_delayed_requests_count_for_the_limit():
    policy = QueuePolicySpec(TimeoutAction.DELAY, default_timeout_us=100, max_queue_size=2)
    batcher = scheduler(default_queue_policy=policy)
    queue(batcher, request())
    batcher.expired(100 * US)
    queue(batcher, request(), now_ns=100 * US)
    with pytest.raises(QueueFullError):
        batcher.enqueue(request(), 100 * US)


def test_a_delayed_request_can_be_cancelled():
    batcher = scheduler(default_queue_policy=DELAY)
    (late,) = queue(batcher, request())
    batcher.expired(100 * US)
    assert batcher.cancel(late)
    assert batcher.take(100 * US) is None


def test_rule_36_higher_levels_run_first_and_a_batch_goes_on_into_lower_ones():
    batcher = scheduler(max_batch_size=3, priority_levels=3, default_priority_level=2)
    low, middle, high = queue(batcher, request(priority=3), request(priority=2), request(priority=1))
    later_high = request(priority=1)
    queue(batcher, later_high)
    assert batcher.take(0).requests == [high, later_high, middle]
    assert batcher.take(0).requests == [low]


def test_rule_40_each_level_has_its_own_limit():
    batcher = scheduler(
        priority_levels=2,
        default_priority_level=2,
        default_queue_policy=QueuePolicySpec(max_queue_size=1),
        priority_queue_policies={2: QueuePolicySpec(max_queue_size=2)},
    )
    queue(batcher, request(priority=1), request(priority=2), request(priority=2))
    for level in (1, 2):
        with pytest.raises(QueueFullError):
            batcher.enqueue(request(priority=level), 0)


def test_an_arrival_of_higher_priority_is_seen_while_others_wait():
    batcher = scheduler(
        max_batch_size=8,
        preferred_batch_sizes=(2, 8),
        max_queue_delay_us=100,
        priority_levels=2,
        default_priority_level=2,
    )
    queue(batcher, request(3, priority=2))
    assert batcher.take(0) is None
    (high,) = queue(batcher, request(2, priority=1))
    assert batcher.take(0).requests == [high]


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), max_size=200), st.integers(0, 20))
def test_deadlines_give_what_is_due_in_order_and_nothing_that_was_taken_out(entries, now_ns):
    deadlines, kept = Deadlines(), []
    for deadline_ns, stays in entries:
        each = request()
        deadlines.add(each, deadline_ns)
        if stays:
            kept.append((deadline_ns, each))
        else:
            deadlines.discard(each)
            deadlines.discard(each)
    kept.sort(key=lambda entry: entry[0])
    assert deadlines.next_ns() == (kept[0][0] if kept else None)
    assert deadlines.pop_due(now_ns) == [each for deadline_ns, each in kept if deadline_ns <= now_ns]
    later = [deadline_ns for deadline_ns, _ in kept if deadline_ns > now_ns]
    assert deadlines.next_ns() == (later[0] if later else None)
    deadlines.clear()
    assert deadlines.next_ns() is None


def test_deadlines_do_not_grow_with_requests_that_came_and_went():
    deadlines = Deadlines()
    for number in range(10_000):
        each = request()
        deadlines.add(each, 10**9 + number)
        deadlines.discard(each)
    assert len(deadlines._heap) < 100
