"""Which requests the dynamic batcher joins, and why it closes a batch (Triton's algorithm; rules 32, 40 and 42)."""

from __future__ import annotations

import pytest
from queued_requests import queue, request, scheduler, taken_rows

from shoal.config.spec import QueuePolicySpec
from shoal.errors import QueueFullError, Status
from shoal.requests import RequestState
from shoal.scheduling.contract import CloseReason

US = 1_000


def test_all_that_waits_runs_together():
    batcher = scheduler()
    waiting = queue(batcher, request(1), request(2), request(1))
    batch = batcher.take(0)
    assert batch.requests == waiting
    assert (batch.rows, batch.reason) == (4, CloseReason.IDLE)
    assert {each.state for each in waiting} == {RequestState.RUNNING}
    assert batcher.take(0) is None


def test_rule_42_a_batch_never_passes_the_maximum_and_never_splits_a_request():
    batcher = scheduler(max_batch_size=8)
    queue(batcher, request(5), request(4), request(8), request(1))
    assert taken_rows(batcher) == [5, 4, 8, 1]


def test_rule_42_a_request_larger_than_any_preferred_size_runs_at_once():
    batcher = scheduler(max_batch_size=8, preferred_batch_sizes=(2, 4), max_queue_delay_us=100)
    queue(batcher, request(6))
    batch = batcher.take(0)
    assert (batch.rows, batch.reason) == (6, CloseReason.FULL)


def test_full_batch_does_not_wait():
    batcher = scheduler(max_batch_size=4, max_queue_delay_us=100)
    queue(batcher, request(2), request(2), request(1))
    batch = batcher.take(0)
    assert (batch.rows, batch.reason) == (4, CloseReason.FULL)
    assert batcher.take(0) is None


def test_batch_that_the_next_request_would_overfill_does_not_wait():
    batcher = scheduler(max_batch_size=4, max_queue_delay_us=100)
    queue(batcher, request(3), request(2))
    batch = batcher.take(0)
    assert (batch.rows, batch.reason) == (3, CloseReason.FULL)


def test_preferred_size_is_taken_from_a_longer_queue():
    batcher = scheduler(max_batch_size=8, preferred_batch_sizes=(4,))
    queue(batcher, *(request() for _ in range(6)))
    batch = batcher.take(0)
    assert (batch.rows, batch.reason) == (4, CloseReason.PREFERRED)
    batch = batcher.take(0)
    assert (batch.rows, batch.reason) == (2, CloseReason.IDLE)


def test_largest_preferred_size_that_fits_wins():
    batcher = scheduler(max_batch_size=8, preferred_batch_sizes=(2, 4, 8))
    queue(batcher, *(request() for _ in range(7)))
    assert taken_rows(batcher) == [4, 2, 1]


def test_passing_the_largest_preferred_size_closes_the_batch_before_it():
    batcher = scheduler(max_batch_size=8, preferred_batch_sizes=(4,), max_queue_delay_us=100)
    queue(batcher, request(3), request(3))
    batch = batcher.take(0)
    assert (batch.rows, batch.reason) == (3, CloseReason.FULL)
    assert batcher.take(0) is None


def test_after_the_delay_everything_up_to_the_maximum_goes_even_past_a_preferred_size():
    batcher = scheduler(max_batch_size=8, preferred_batch_sizes=(4,), max_queue_delay_us=100)
    queue(batcher, *(request() for _ in range(7)))
    batch = batcher.take(100 * US)
    assert (batch.rows, batch.reason) == (7, CloseReason.DELAY)


def test_requests_wait_for_the_delay_of_the_oldest():
    batcher = scheduler(max_queue_delay_us=100)
    queue(batcher, request(), now_ns=0)
    queue(batcher, request(), now_ns=60 * US)
    assert batcher.take(60 * US) is None
    assert batcher.wake_ns(60 * US) == 100 * US
    assert batcher.take(100 * US - 1) is None
    batch = batcher.take(100 * US)
    assert (batch.rows, batch.reason) == (2, CloseReason.DELAY)


def test_arrival_that_reaches_a_preferred_size_ends_the_wait():
    batcher = scheduler(max_batch_size=8, preferred_batch_sizes=(2, 6), max_queue_delay_us=100)
    queue(batcher, request(3))
    assert batcher.take(0) is None
    queue(batcher, request(2))
    assert batcher.take(0) is None
    queue(batcher, request(1))
    batch = batcher.take(0)
    assert (batch.rows, batch.reason) == (6, CloseReason.PREFERRED)


def test_arrival_of_another_shape_ends_the_wait():
    batcher = scheduler(max_queue_delay_us=100)
    queue(batcher, request(key=((3,),)), request(key=((3,),)))
    assert batcher.take(0) is None
    queue(batcher, request(key=((4,),)))
    batch = batcher.take(0)
    assert (batch.rows, batch.reason) == (2, CloseReason.SHAPE)
    assert batcher.take(0) is None


def test_cancellation_that_makes_a_preferred_size_ends_the_wait():
    batcher = scheduler(max_batch_size=8, preferred_batch_sizes=(2, 8), max_queue_delay_us=100)
    first, _ = queue(batcher, request(3), request(2))
    assert batcher.take(0) is None
    assert batcher.cancel(first)
    batch = batcher.take(0)
    assert (batch.rows, batch.reason) == (2, CloseReason.PREFERRED)


def test_rule_32_requests_with_different_keys_never_share_a_batch_and_keep_their_order():
    batcher = scheduler()
    a, b, c = queue(batcher, request(key=((0, 1),)), request(key=((0,),)), request(key=((0, 1),)))
    assert [batcher.take(0).requests for _ in range(3)] == [[a], [b], [c]]


def test_rule_40_the_limit_counts_requests_and_refuses_with_tritons_text():
    batcher = scheduler(default_queue_policy=QueuePolicySpec(max_queue_size=2))
    first, _ = queue(batcher, request(8), request(8))
    refused = request(1, name="r3")
    with pytest.raises(QueueFullError) as error:
        batcher.enqueue(refused, 0)
    assert error.value.message == "[request id: r3] Exceeds maximum queue size"
    assert error.value.status is Status.UNAVAILABLE
    assert refused.state is RequestState.NEW
    assert batcher.cancel(first)
    batcher.enqueue(refused, 0)
    assert batcher.statistics().requests == 2


def test_cancelled_request_is_not_in_any_batch():
    batcher = scheduler()
    first, second, third = queue(batcher, request(), request(), request())
    assert batcher.cancel(second)
    assert not batcher.cancel(second)
    assert batcher.take(0).requests == [first, third]
    assert not batcher.cancel(first)


def test_rule_27_a_model_without_batching_runs_each_request_alone_but_keeps_its_queue_policy():
    batcher = scheduler(max_batch_size=0, default_queue_policy=QueuePolicySpec(max_queue_size=2))
    queue(batcher, request(), request())
    with pytest.raises(QueueFullError):
        batcher.enqueue(request(), 0)
    assert taken_rows(batcher) == [1, 1]


def test_empty_queue_needs_no_wake():
    batcher = scheduler(max_queue_delay_us=100)
    assert batcher.wake_ns(5) is None
    assert batcher.take(5) is None
    assert batcher.expired(5) == []
    assert batcher.drain() == []
