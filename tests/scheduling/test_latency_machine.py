"""Random lives of the batcher with a latency target: whatever it believes, no request is lost, split or left.

What it chooses depends on what it measured, so the batches are not compared with others: they keep to the maximum, to
one key and to the order of arrival within a level; nobody is held beside a free instance past the target; and time
alone empties the queue.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule
from queue_machine import MAX_BATCH_SIZE, QueueMachine
from queued_requests import model, request

from shoal.config.spec import BatchingSpec
from shoal.scheduling.make import make_scheduler
from shoal.testing.strategies import queue_policies

INSTANCES = 2


class LatencyMachine(QueueMachine):
    @initialize(target_us=st.integers(100, 20_000), levels=st.sampled_from([0, 0, 3]), policy=queue_policies())
    def make(self, target_us, levels, policy):
        batching = BatchingSpec(
            latency_target_us=target_us,
            priority_levels=levels,
            default_priority_level=min(1, levels),
            default_queue_policy=policy,
        )
        self.begin(make_scheduler(model(MAX_BATCH_SIZE, batching, INSTANCES)), batching)
        self.running = []

    @rule(
        target=QueueMachine.entered,
        rows=st.integers(1, MAX_BATCH_SIZE),
        key=st.sampled_from([(), (), ((3,),)]),
        level=st.integers(1, 3),
    )
    def enqueue(self, rows, key, level):
        new = request(rows, key, priority=min(level, self.batching.priority_levels))
        self.submit(new)
        return new

    @rule(step_us=st.one_of(st.integers(0, 300), st.integers(0, 20_000)))
    def let_time_pass(self, step_us):
        self.clock.advance_us(step_us)

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
        self.ran(batch)
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

    @invariant()
    def beliefs_are_sound(self):
        if not hasattr(self, "scheduler"):
            return
        beliefs = self.scheduler.beliefs()
        assert beliefs.running == len(self.running)
        assert 0 <= beliefs.late_share <= 1
        assert 0 <= beliefs.hold_us <= beliefs.target_us


LatencyMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestLatencyMachine = LatencyMachine.TestCase
