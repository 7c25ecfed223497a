"""The default scheduler: every request alone, in the order of arrival."""

from __future__ import annotations

from queued_requests import model, queue, request

from shoal.scheduling.contract import QueueStatistics
from shoal.scheduling.default import DefaultScheduler
from shoal.scheduling.make import make_scheduler


def test_a_model_without_batcher_gets_it():
    assert isinstance(make_scheduler(model(8, None)), DefaultScheduler)


def test_each_request_runs_alone_in_order():
    scheduler = DefaultScheduler()
    waiting = queue(scheduler, request(3), request(1, key=((2,),)), request(5))
    batches = [scheduler.take(0) for _ in range(4)]
    assert [batch.requests for batch in batches[:3]] == [[each] for each in waiting]
    assert [batch.rows for batch in batches[:3]] == [3, 1, 5]
    assert batches[3] is None


def test_a_waiting_request_can_run_at_once():
    scheduler = DefaultScheduler()
    assert scheduler.wake_ns(7) is None
    queue(scheduler, request(), now_ns=3)
    assert scheduler.wake_ns(7) == 7
    assert scheduler.expired(10**18) == []


def test_cancel_statistics_and_drain():
    scheduler = DefaultScheduler()
    first, second = queue(scheduler, request(2), request(3), now_ns=5)
    assert scheduler.statistics() == QueueStatistics(2, 5, 5)
    assert scheduler.cancel(first)
    assert scheduler.statistics() == QueueStatistics(1, 3, 5)
    assert scheduler.drain() == [second]
    assert scheduler.statistics() == QueueStatistics(0, 0, None)
