"""Random lives of the batcher with a latency target: whatever it believes, no request is lost, split or left.

What it chooses depends on what it measured, so the batches are not compared with others: they keep to the maximum, to
one key and to the order of arrival within a level; nobody is held beside a free instance past the target; and time
alone empties the queue.
"""

from __future__ import annotations

import pytest
from batching_model import QueueModel
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule
from queued_requests import model, request

from shoal.config.spec import BatchingSpec
from shoal.errors import QueueFullError
from shoal.requests import RequestState
from shoal.scheduling.contract import QueueStatistics
from shoal.scheduling.make import make_scheduler
from shoal.testing.clock import ManualClock
from shoal.testing.strategies import queue_policies

MAX_BATCH_SIZE = 8
INSTANCES = 2


class LatencyMachine(RuleBasedStateMachine):
    entered = Bundle("entered")

    @initialize(target_us=st.integers(100, 20_000), levels=st.sampled_from([0, 0, 3]), policy=queue_policies())
    def make(self, target_us, levels, policy):
        self.batching = BatchingSpec(
            latency_target_us=target_us,
            priority_levels=levels,
            default_priority_level=min(1, levels),
            default_queue_policy=policy,
        )
        self.scheduler = make_scheduler(model(MAX_BATCH_SIZE, self.batching, INSTANCES))
        self.queue = QueueModel(self.batching)
        self.clock = ManualClock()
        self.running = []
        self.inside = set()

    @property
    def now_ns(self):
        return self.clock.now_ns()

    @rule(
        target=entered,
        rows=st.integers(1, MAX_BATCH_SIZE),
        key=st.sampled_from([(), (), ((3,),)]),
        level=st.integers(1, 3),
    )
    def enqueue(self, rows, key, level):
        new = request(rows, key, priority=min(level, self.batching.priority_levels))
        if self.queue.is_full_for(new):
            with pytest.raises(QueueFullError):
                self.scheduler.enqueue(new, self.now_ns)
            return new
        self.scheduler.enqueue(new, self.now_ns)
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

    @rule(step_us=st.one_of(st.integers(0, 300), st.integers(0, 20_000)))
    def let_time_pass(self, step_us):
        self.clock.advance_us(step_us)

    @rule()
    def expire(self):
        self.queue.expire(self.now_ns)
        gone = self.scheduler.expired(self.now_ns)
        assert set(gone) == set(self.queue.rejected)
        assert len(gone) == len(self.queue.rejected)
        self.inside.difference_update(gone)
        self.queue.rejected.clear()

    @precondition(lambda self: len(self.running) < INSTANCES)
    @rule()
    def take(self):
        self.queue.expire(self.now_ns)
        waiting = self.queue.waiting()
        batch = self.scheduler.take(self.now_ns)
        if batch is None:
            self.check_hold(waiting)
            return
        assert batch.requests
        assert batch.requests == waiting[: len(batch.requests)]
        assert batch.rows == sum(each.plan.rows for each in batch.requests) <= MAX_BATCH_SIZE
        assert len({each.plan.batch_key for each in batch.requests}) == 1
        for each in batch.requests:
            assert each.state is RequestState.RUNNING
            self.queue.remove(each)
            self.inside.remove(each)
        self.running.append(batch)

    def check_hold(self, waiting):
        wake_ns = self.scheduler.wake_ns(self.now_ns)
        if self.queue.rejected:
            assert wake_ns == self.now_ns
        elif not waiting:
            assert wake_ns is None
        else:
            assert len(self.running) == INSTANCES - 1, "another instance is free: nothing is won by waiting"
            target_ns = self.batching.latency_target_us * 1_000
            assert self.now_ns < wake_ns <= min(each.queued_ns for each in waiting) + target_ns

    @precondition(lambda self: self.running)
    @rule(last=st.booleans())
    def end(self, last):
        self.scheduler.done(self.running.pop(-1 if last else 0), self.now_ns)

    @rule()
    def serve_until_empty(self):
        """Instances that end their batches, and time, empty the queue in a bounded number of steps."""
        for _ in range(4 * len(self.inside) + 4):
            self.expire()
            if len(self.running) == INSTANCES:
                self.clock.advance_us(700)
                self.end(last=False)
            self.take()
            wake_ns = self.scheduler.wake_ns(self.now_ns)
            if wake_ns is not None:
                self.clock.move_to_ns(wake_ns)
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
    def beliefs_and_statistics_are_sound(self):
        if not hasattr(self, "scheduler"):
            return
        waiting = self.queue.waiting()
        rows = sum(each.plan.rows for each in waiting)
        oldest_ns = min((each.queued_ns for each in waiting), default=None)
        assert self.scheduler.statistics() == QueueStatistics(len(waiting), rows, oldest_ns)
        beliefs = self.scheduler.beliefs()
        assert beliefs.running == len(self.running)
        assert 0 <= beliefs.late_share <= 1
        assert 0 <= beliefs.hold_us <= beliefs.target_us


LatencyMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestLatencyMachine = LatencyMachine.TestCase
