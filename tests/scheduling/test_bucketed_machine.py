"""Random lives of the bucketed batcher, with and without a rule of the user's: arrivals, cancellations, timeouts.

Protects: no request is lost, doubled or left; a bucket never holds up another; levels, age and limits hold over all
buckets; a batch holds one bucket, one key and what the rule lets in.
"""

from __future__ import annotations

from dataclasses import replace

from batching_model import always, batch_length
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule
from queue_machine import MAX_BATCH_SIZE, BatchMachine
from queued_requests import model, request

from shoal.config.padding import PaddedInput, PaddedLength, PaddingSpec
from shoal.config.spec import BatchingSpec, TimeoutAction
from shoal.scheduling.batch_rule import BatchRule
from shoal.scheduling.bucketed import BucketedScheduler
from shoal.scheduling.make import make_scheduler
from shoal.testing.clock import ManualClock
from shoal.testing.strategies import batching_specs

MOST_ROWS = 5
PADDING = PaddingSpec((PaddedLength((PaddedInput(0, 1, b""),), buckets=(8, 16)),))
KEYS = st.tuples(st.sampled_from([(), (3,)]), st.integers(0, 2).map(lambda bucket: (bucket,)))


class FewRows:
    """Lets in as many rows as it likes, and fails at a request that is named so."""

    def __init__(self):
        self.sent = []

    def begin(self):
        self.rows = 0

    def include(self, queued):
        if queued.request_id == "bad":
            raise RuntimeError("bad")
        self.rows += queued.rows
        return self.rows <= MOST_ROWS

    def finalize(self, count):
        self.sent.append(count)


def few_rows(joined, other):
    return (
        not any(each.plan.head.request_id == "bad" for each in (*joined, other))
        and sum(each.plan.rows for each in (*joined, other)) <= MOST_ROWS
    )


def make(batching, strategy):
    spec = replace(model(MAX_BATCH_SIZE, batching), padding=PADDING)
    scheduler = make_scheduler(spec, BatchRule(strategy, spec) if strategy else None)
    assert isinstance(scheduler, BucketedScheduler)
    return scheduler


class BucketedMachine(BatchMachine):
    @initialize(batching=batching_specs(MAX_BATCH_SIZE), ruled=st.booleans())
    def make(self, batching, ruled):
        self.strategy = FewRows() if ruled else None
        self.begin(make(batching, self.strategy), batching)
        self.sent = []
        self.buckets = {}

    @rule(
        target=BatchMachine.entered,
        rows=st.integers(1, MAX_BATCH_SIZE),
        key=KEYS,
        level=st.integers(1, 3),
        timeout_us=st.one_of(st.just(0), st.integers(1, 6_000)),
        name=st.sampled_from(["", "", "", "bad"]),
    )
    def enqueue(self, rows, key, level, timeout_us, name):
        new = request(rows, key, priority=min(level, self.batching.priority_levels), timeout_us=timeout_us, name=name)
        # The buckets look at timeouts when they are asked for a batch or for what expired, the queues of a level alike.
        if self.submit(new):
            self.buckets.setdefault(key[-1])
        return new

    def ran(self, batch):
        super().ran(batch)
        self.sent.append(len(batch.requests))
        if self.strategy:
            assert self.strategy.sent == self.sent
            assert len(batch.requests) == 1 or batch.rows <= MOST_ROWS

    def expected(self):
        """Bucket by bucket, in the order of their first requests, the first that has a batch to give."""
        waiting = self.queue.waiting()
        delayed = set(self.queue.delayed)
        by_bucket = {bucket: [] for bucket in self.buckets}
        for each in waiting:
            by_bucket[each.plan.batch_key[-1]].append(each)
        heads = sorted(  # at the same nanosecond, in the order in which the buckets came into use
            filter(None, by_bucket.values()),
            key=lambda bucket: (bucket[0].plan.priority, bucket[0] in delayed, bucket[0].queued_ns),
        )
        joins = few_rows if self.strategy else always
        for bucket in heads:
            if count := batch_length(bucket, self.now_ns, MAX_BATCH_SIZE, self.batching, joins):
                return bucket[:count]
        return []


BucketedMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestBucketedMachine = BucketedMachine.TestCase


def test_a_request_of_another_bucket_does_not_close_a_batch():
    scheduler = make(BatchingSpec(), None)
    short = [request(1, ((), (0,))) for _ in range(3)]
    long = [request(1, ((), (1,))) for _ in range(2)]
    for moment, each in enumerate([short[0], long[0], short[1], long[1], short[2]]):
        scheduler.enqueue(each, moment)
    assert scheduler.take(10).requests == short
    assert scheduler.take(10).requests == long


def test_a_full_bucket_does_not_wait_for_an_older_one_that_waits():
    scheduler = make(BatchingSpec(max_queue_delay_us=1_000), None)
    waits, full = request(1, ((), (0,))), request(8, ((), (1,)))
    scheduler.enqueue(waits, 0)
    assert scheduler.take(0) is None
    scheduler.enqueue(full, 10)
    assert scheduler.take(10).requests == [full]
    assert scheduler.wake_ns(10) == 1_000_000
    assert scheduler.take(1_000_000).requests == [waits]


def test_a_delayed_request_goes_behind_those_in_time_of_every_bucket():
    policy = replace(BatchingSpec().default_queue_policy, timeout_action=TimeoutAction.DELAY, default_timeout_us=1)
    scheduler = make(BatchingSpec(default_queue_policy=policy), None)
    late, in_time = request(1, ((), (0,))), request(1, ((), (1,)))
    scheduler.enqueue(late, 0)
    scheduler.enqueue(in_time, 5_000)
    assert scheduler.take(5_000).requests == [in_time]
    assert scheduler.take(5_000).requests == [late]


ARRIVALS = st.lists(st.tuples(st.integers(0, 1_500), st.integers(1, MAX_BATCH_SIZE), KEYS), max_size=30)


@given(batching=batching_specs(MAX_BATCH_SIZE), arrivals=ARRIVALS)
@settings(max_examples=200, deadline=None)
def test_no_request_waits_longer_than_the_delay_beside_a_free_instance(batching, arrivals):
    delay_ns = batching.max_queue_delay_us * 1_000
    scheduler = make(BatchingSpec(batching.preferred_batch_sizes, batching.max_queue_delay_us), None)
    clock = ManualClock()
    served = 0

    def serve_until(end_ns):
        count = 0
        while True:
            now_ns = clock.now_ns()
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

    for gap_us, rows, key in arrivals:
        served += serve_until(clock.now_ns() + gap_us * 1_000)
        scheduler.enqueue(request(rows, key), clock.now_ns())
    served += serve_until(clock.now_ns() + delay_ns)
    assert served == len(arrivals)
    assert scheduler.statistics().requests == 0


def test_a_latency_target_learns_and_chooses_for_each_bucket():
    scheduler = make(BatchingSpec(latency_target_us=20_000), None)
    assert scheduler.follows
    short, long = ([request(1, ((), (bucket,))) for _ in range(3)] for bucket in (0, 1))
    for moment, each in enumerate([*short, *long]):
        scheduler.enqueue(each, moment)
    served, now_ns = [], 1_000_000
    while scheduler.statistics().requests:
        batch = scheduler.take(now_ns)
        if batch is None:
            now_ns = scheduler.wake_ns(now_ns)
            continue
        assert len({each.plan.batch_key for each in batch.requests}) == 1
        now_ns += 1_000_000
        scheduler.done(batch, now_ns)
        served += batch.requests
    assert served == [*short, *long]
