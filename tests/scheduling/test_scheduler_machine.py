"""Random lives of a scheduler: arrivals, cancellations, batches, timeouts and drains at any moment.

Protects: no request is lost, doubled or left; order and limits hold; batches are Triton's; waiting never spins.
"""

from __future__ import annotations

import pytest
from batching_model import QueueModel, batch_length
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule
from queued_requests import model, request

from shoal.config.spec import BatchingSpec
from shoal.errors import QueueFullError
from shoal.requests import RequestState
from shoal.scheduling.contract import QueueStatistics
from shoal.scheduling.make import make_scheduler
from shoal.testing.clock import ManualClock
from shoal.testing.strategies import batching_specs

MAX_BATCH_SIZE = 8
KEYS = st.sampled_from([(), ((3,),)])


class SchedulerMachine(RuleBasedStateMachine):
    entered = Bundle("entered")

    @initialize(batching=st.none() | batching_specs(MAX_BATCH_SIZE))
    def make(self, batching):
        self.scheduler = make_scheduler(model(MAX_BATCH_SIZE, batching))
        # The default scheduler is a batcher whose batches hold one request, for which the model needs no rows.
        self.batching = batching or BatchingSpec()
        self.batches = batching is not None
        self.queue = QueueModel(self.batching)
        self.clock = ManualClock()
        self.inside = set()

    @property
    def now_ns(self):
        return self.clock.now_ns()

    @rule(
        target=entered,
        rows=st.integers(1, MAX_BATCH_SIZE),
        key=KEYS,
        level=st.integers(1, 3),
        timeout_us=st.one_of(st.just(0), st.integers(1, 6_000)),
    )
    def enqueue(self, rows, key, level, timeout_us):
        priority = min(level, self.batching.priority_levels)
        new = request(rows, key, priority=priority, timeout_us=timeout_us)
        if self.queue.is_full_for(new):
            with pytest.raises(QueueFullError):
                self.scheduler.enqueue(new, self.now_ns)
            assert new.state is RequestState.NEW
        else:
            self.scheduler.enqueue(new, self.now_ns)
            assert (new.state, new.queued_ns) == (RequestState.QUEUED, self.now_ns)
            self.queue.in_time.append(new)
            self.inside.add(new)
        return new

    @rule(victim=entered)
    def cancel(self, victim):
        waits = victim in self.queue.waiting()
        assert self.scheduler.cancel(victim) is waits
        if waits:
            self.queue.remove(victim)
            self.inside.remove(victim)

    @rule(victim=consumes(entered))
    def cancel_twice(self, victim):
        self.cancel(victim)
        assert not self.scheduler.cancel(victim)

    @rule(step_us=st.integers(0, 3_000))
    def let_time_pass(self, step_us):
        self.clock.advance_us(step_us)

    @rule()
    def sleep_until_woken(self):
        wake_ns = self.scheduler.wake_ns(self.now_ns)
        if wake_ns is not None:
            self.clock.move_to_ns(wake_ns)

    @rule()
    def expire(self):
        self.queue.expire(self.now_ns)
        gone = self.scheduler.expired(self.now_ns)
        assert set(gone) == set(self.queue.rejected)
        assert len(gone) == len(self.queue.rejected)
        self.inside.difference_update(gone)
        self.queue.rejected.clear()

    @rule()
    def take(self):
        self.queue.expire(self.now_ns)
        waiting = self.queue.waiting()
        expected = self.expected_length(waiting)
        batch = self.scheduler.take(self.now_ns)
        if batch is None:
            assert expected == 0
            self.check_wait()
            return
        assert batch.requests == waiting[:expected]
        assert batch.rows == sum(each.plan.rows for each in batch.requests) <= MAX_BATCH_SIZE
        assert len({each.plan.batch_key for each in batch.requests}) == 1
        for each in batch.requests:
            assert each.state is RequestState.RUNNING
            self.queue.remove(each)
            self.inside.remove(each)

    def expected_length(self, waiting):
        if not self.batches:
            return min(1, len(waiting))
        return batch_length(waiting, self.now_ns, MAX_BATCH_SIZE, self.batching)

    def check_wait(self):
        """With nothing to run, the wake time is when something changes, and never a moment that has passed."""
        wake_ns = self.scheduler.wake_ns(self.now_ns)
        if self.queue.rejected:
            assert wake_ns == self.now_ns
        elif self.queue.waiting():
            assert wake_ns is not None
            assert wake_ns > self.now_ns
        else:
            assert wake_ns is None

    @rule()
    def serve_until_empty(self):
        """Free instances and time alone empty the queue, in a bounded number of steps."""
        for _ in range(4 * len(self.inside) + 4):
            self.expire()
            self.take()
            self.sleep_until_woken()
        assert not self.inside

    @precondition(lambda self: self.inside)
    @rule()
    def drain(self):
        gone = self.scheduler.drain()
        assert set(gone) == self.inside
        assert len(gone) == len(self.inside)
        self.inside.clear()
        self.queue = QueueModel(self.batching)

    @invariant()
    def statistics_count_what_waits(self):
        if not hasattr(self, "scheduler"):
            return
        found = self.scheduler.statistics()
        # Timeouts are looked at by take and expired, so a request may be late and still be counted.
        waiting = self.queue.waiting()
        rows = sum(each.plan.rows for each in waiting)
        oldest_ns = min((each.queued_ns for each in waiting), default=None)
        assert found == QueueStatistics(len(waiting), rows, oldest_ns)


SchedulerMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestSchedulerMachine = SchedulerMachine.TestCase

ARRIVALS = st.lists(
    st.tuples(st.integers(0, 1_500), st.integers(1, MAX_BATCH_SIZE), KEYS, st.integers(1, 3)), max_size=30
)


@given(batching=batching_specs(MAX_BATCH_SIZE), arrivals=ARRIVALS)
@settings(max_examples=300, deadline=None)
def test_no_request_waits_longer_than_the_delay_beside_a_free_instance(batching, arrivals):
    """Whatever the levels, limits and timeouts: it runs, is refused, or times out by then."""
    delay_ns = batching.max_queue_delay_us * 1_000
    scheduler = make_scheduler(model(MAX_BATCH_SIZE, batching))
    clock = ManualClock()
    ended = 0

    def serve_until(end_ns):
        """One instance that is always free and sleeps only as long as it is told."""
        count = 0
        while True:
            now_ns = clock.now_ns()
            count += len(scheduler.expired(now_ns))
            batch = scheduler.take(now_ns)
            if batch is None:
                wake_ns = scheduler.wake_ns(now_ns)
                if wake_ns is None or wake_ns > end_ns:
                    clock.move_to_ns(end_ns)
                    return count
                assert wake_ns > now_ns
                clock.move_to_ns(wake_ns)
                continue
            assert all(now_ns - each.queued_ns <= delay_ns for each in batch.requests)
            count += len(batch.requests)

    for gap_us, rows, key, level in arrivals:
        ended += serve_until(clock.now_ns() + gap_us * 1_000)
        try:
            scheduler.enqueue(request(rows, key, priority=min(level, batching.priority_levels)), clock.now_ns())
        except QueueFullError:
            ended += 1
    ended += serve_until(clock.now_ns() + delay_ns)
    assert ended == len(arrivals)
    assert scheduler.statistics().requests == 0
