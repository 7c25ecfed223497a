"""Random lives of a scheduler: arrivals, cancellations, batches, timeouts and drains at any moment.

Protects: no request is lost, doubled or left; order and limits hold; batches are Triton's; waiting never spins.
"""

from __future__ import annotations

from batching_model import batch_length
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import consumes, initialize, rule
from queue_machine import MAX_BATCH_SIZE, BatchMachine
from queued_requests import model, request

from shoal.config.spec import BatchingSpec
from shoal.errors import QueueFullError
from shoal.scheduling.make import make_scheduler
from shoal.testing.clock import ManualClock
from shoal.testing.strategies import batching_specs

KEYS = st.sampled_from([(), ((3,),)])


class SchedulerMachine(BatchMachine):
    @initialize(batching=st.none() | batching_specs(MAX_BATCH_SIZE))
    def make(self, batching):
        # The default scheduler is a batcher whose batches hold one request, for which the model needs no rows.
        self.begin(make_scheduler(model(MAX_BATCH_SIZE, batching)), batching or BatchingSpec())
        self.batches = batching is not None

    @rule(
        target=BatchMachine.entered,
        rows=st.integers(1, MAX_BATCH_SIZE),
        key=KEYS,
        level=st.integers(1, 3),
        timeout_us=st.one_of(st.just(0), st.integers(1, 6_000)),
    )
    def enqueue(self, rows, key, level, timeout_us):
        new = request(rows, key, priority=min(level, self.batching.priority_levels), timeout_us=timeout_us)
        self.submit(new)
        return new

    @rule(victim=consumes(BatchMachine.entered))
    def cancel_twice(self, victim):
        self.cancel(victim)
        assert not self.scheduler.cancel(victim)

    def expected(self):
        waiting = self.queue.waiting()
        count = batch_length(waiting, self.now_ns, MAX_BATCH_SIZE, self.batching) if self.batches else 1
        return waiting[:count]


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
