"""What the random lives of all batchers have in common: arrivals, cancellations, timeouts and drains at any moment.

A test adds how its scheduler is made, what arrives, and what ``take`` must give.
"""

from __future__ import annotations

import pytest
from batching_model import QueueModel
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from shoal.config.spec import BatchingSpec
from shoal.errors import QueueFullError
from shoal.requests import RequestState
from shoal.scheduling.contract import QueueStatistics
from shoal.testing.clock import ManualClock

MAX_BATCH_SIZE = 8


class QueueMachine(RuleBasedStateMachine):
    """A scheduler beside a plain model of its queue."""

    entered = Bundle("entered")

    def begin(self, scheduler, batching: BatchingSpec) -> None:
        """Start with this scheduler, empty."""
        self.scheduler = scheduler
        self.batching = batching
        self.queue = QueueModel(batching)
        self.clock = ManualClock()
        self.inside = set()

    @property
    def now_ns(self):
        return self.clock.now_ns()

    def submit(self, new):
        """Queue a request, which is refused where its level is full; gives whether it was taken."""
        if self.queue.is_full_for(new):
            with pytest.raises(QueueFullError):
                self.scheduler.enqueue(new, self.now_ns)
            assert new.state is RequestState.NEW
            return False
        self.scheduler.enqueue(new, self.now_ns)
        assert (new.state, new.queued_ns) == (RequestState.QUEUED, self.now_ns)
        self.queue.in_time.append(new)
        self.inside.add(new)
        return True

    def ran(self, batch):
        """A batch left the queue: of one key, not too large, its requests marked."""
        assert batch.rows == sum(each.plan.rows for each in batch.requests) <= MAX_BATCH_SIZE
        assert len({each.plan.batch_key for each in batch.requests}) == 1
        for each in batch.requests:
            assert each.state is RequestState.RUNNING
            self.queue.remove(each)
            self.inside.remove(each)

    @rule(victim=entered)
    def cancel(self, victim):
        waits = victim in self.queue.waiting()
        assert self.scheduler.cancel(victim) is waits
        if waits:
            self.queue.remove(victim)
            self.inside.remove(victim)

    @rule()
    def expire(self):
        self.queue.expire(self.now_ns)
        gone = self.scheduler.expired(self.now_ns)
        assert set(gone) == set(self.queue.rejected)
        assert len(gone) == len(self.queue.rejected)
        self.inside.difference_update(gone)
        self.queue.rejected.clear()

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
        # Timeouts are looked at by take and expired, so a request may be late and still be counted.
        waiting = self.queue.waiting()
        rows = sum(each.plan.rows for each in waiting)
        oldest_ns = min((each.queued_ns for each in waiting), default=None)
        assert self.scheduler.statistics() == QueueStatistics(len(waiting), rows, oldest_ns)


class BatchMachine(QueueMachine):
    """The same of a scheduler whose every batch is foretold, with an instance that is always free."""

    @rule(step_us=st.integers(0, 3_000))
    def let_time_pass(self, step_us):
        self.clock.advance_us(step_us)

    @rule()
    def sleep_until_woken(self):
        wake_ns = self.scheduler.wake_ns(self.now_ns)
        if wake_ns is not None:
            self.clock.move_to_ns(wake_ns)

    def expected(self):
        """The requests of the batch that the scheduler must give now."""
        raise NotImplementedError

    @rule()
    def take(self):
        self.queue.expire(self.now_ns)
        expected = self.expected()
        batch = self.scheduler.take(self.now_ns)
        if batch is None:
            assert expected == []
            self.check_wait()
            return
        assert batch.requests == expected
        self.ran(batch)

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
