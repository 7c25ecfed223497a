"""Random lives of sequences: arrivals, ends, cancellations, lost instances, idleness and drains at any moment.

Protects: every request ends exactly once; a sequence stays on its slot and in order, and never runs twice at once; no
batch has too many rows; no slot is ever lost; nothing waits for ever beside a free instance.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sequence_requests import IDLE_US, request, scheduler

from shoal.config.spec import DirectSpec, OldestSpec
from shoal.errors import CancelledError, InvalidArgumentError, QueueTimeoutError, UnavailableError
from shoal.requests import NOBODY, RequestState
from shoal.testing.clock import ManualClock

MAX_BATCH_SIZE = 3
IDS = st.sampled_from([1, 2, 3, 4, 5, "1"])
STRATEGIES = st.one_of(
    st.builds(DirectSpec, st.sampled_from([0, 400]), st.sampled_from([0.0, 0.3, 0.7, 1.0])),
    st.builds(OldestSpec, st.sampled_from([0, 1, 2, 5]), st.sampled_from([(), (2,)]), st.sampled_from([0, 400])),
)
FLAGS = st.sampled_from(["", "", "s", "e", "se"])


class SequenceMachine(RuleBasedStateMachine):
    @initialize(strategy=STRATEGIES, instances=st.integers(1, 3), passive=st.integers(0, 1), iterative=st.booleans())
    def make(self, strategy, instances, passive, iterative):
        self.strategy, self.iterative = strategy, iterative
        self.count = instances + passive
        self.scheduler = scheduler(strategy, MAX_BATCH_SIZE, instances=self.count, passive=passive, iterative=iterative)
        self.working = list(range(passive, self.count))
        self.clock = ManualClock()
        self.waiting = []  # all requests that are in the queue, in the order of their arrival
        self.running = {}  # the batch of each busy instance
        self.ended = set()
        self.arrivals = {}  # of each id, its requests in the order of their arrival
        self.places = {}  # of each id, instance and row where it ran last
        self.finished = []
        self.down = set()
        self.scheduler.on_finished = self.finished.append

    @property
    def now_ns(self):
        return self.clock.now_ns()

    def end(self, each):
        assert each not in self.ended, "a request ends once"
        self.ended.add(each)
        each.state = RequestState.DONE

    # --- what happens to it

    @rule(correlation_id=IDS, flags=FLAGS, width=st.sampled_from([1, 1, 1, 2]), timeout_us=st.sampled_from([0, 0, 300]))
    def enqueue(self, correlation_id, flags, width, timeout_us):
        new = request(correlation_id, flags, width=width, timeout_us=timeout_us)
        refusal = None
        try:
            self.scheduler.enqueue(new, self.now_ns)
        except InvalidArgumentError as error:
            refusal = error.message
        if refusal is not None:
            assert "s" not in flags
            assert f"sequence {correlation_id} " in refusal
            assert "START flag" in refusal
            assert new.state is RequestState.NEW
            return
        assert (new.state, new.queued_ns) == (RequestState.QUEUED, self.now_ns)
        self.waiting.append(new)

    @precondition(lambda self: self.iterative)
    @rule()
    def enqueue_without_id(self):
        new = request(0, "s")
        self.scheduler.enqueue(new, self.now_ns)
        self.waiting.append(new)

    @rule(data=st.data())
    def enqueue_whole_sequence(self, data):
        correlation_id = data.draw(IDS)
        for flags in ("s", "", "e"):
            self.enqueue(correlation_id, flags, 1, 0)

    @rule(data=st.data())
    def take(self, data):
        free = [each for each in self.working if each not in self.running]
        if not free:
            return
        instance = data.draw(st.sampled_from(free))
        batch = self.scheduler.take(self.now_ns, instance)
        self.down.discard(instance)
        if batch is None:
            wake_ns = self.scheduler.wake_ns(self.now_ns)
            assert wake_ns is None or wake_ns >= self.now_ns
            return
        self.check_batch(batch, instance)
        self.running[instance] = batch

    def check_batch(self, batch, instance):
        assert len(batch.requests) == len(batch.turns) == batch.rows <= MAX_BATCH_SIZE
        real = [each for each in batch.requests if each.responder is not NOBODY]
        assert real
        assert len({each.plan.batch_key for each in batch.requests}) == 1
        busy = {turn.correlation_id for other in self.running.values() for turn in other.turns if turn.ready}
        found = [turn.correlation_id for turn in batch.turns if turn.ready]
        assert len(set(found)) == len(found), "never two requests of one sequence"
        assert not busy.intersection(found), "and never two at once"
        for row, (each, turn) in enumerate(zip(batch.requests, batch.turns, strict=True)):
            assert each.state is RequestState.RUNNING
            if each.responder is NOBODY:
                assert isinstance(self.strategy, DirectSpec)
                assert not turn.ready
                assert [len(data) for data in each.payload] == list(each.plan.payload_nbytes)
                continue
            self.check_turn(each, turn, (instance, row))
            self.waiting.remove(each)

    def check_turn(self, each, turn, place):
        """The first request of its id that waits, where the one before it ran unless it begins anew."""
        part = each.plan.sequence
        key = part.correlation_id or each
        refused = self.scheduler._refusals  # which ``expired`` has not given yet
        waiting = [other for other in self.waiting if other not in refused]
        first = next(other for other in waiting if (other.plan.sequence.correlation_id or other) == key)
        assert first is each
        again = getattr(each, "context", None) == "again"
        assert (turn.start, turn.end) == ((False, False) if again else (part.start, part.end))
        if not turn.start:
            kept = self.places[key]
            assert kept[0] == place[0]
            assert isinstance(self.strategy, OldestSpec) or kept == place
        self.places[key] = place

    @rule(data=st.data(), reschedules=st.lists(st.booleans(), min_size=MAX_BATCH_SIZE, max_size=MAX_BATCH_SIZE))
    def finish(self, data, reschedules):
        if not self.running:
            return
        instance = data.draw(st.sampled_from(sorted(self.running)))
        batch = self.running.pop(instance)
        again = []
        if self.iterative:
            again = [each for each, once_more in zip(batch.requests, reschedules, strict=False) if once_more]
            again = [each for each in again if each.responder is not NOBODY]
            for each in again:
                each.context = "again"
                self.scheduler.reschedule(each, self.now_ns)
                self.waiting.insert(0, each)
        self.scheduler.done(batch, self.now_ns)
        for each in batch.requests:
            if each.responder is not NOBODY and each not in again:
                self.end(each)

    @rule(data=st.data())
    def cancel_waiting(self, data):
        if self.waiting:
            victim = data.draw(st.sampled_from(self.waiting))
            if self.scheduler.cancel(victim):
                self.waiting.remove(victim)
                self.end(victim)
                assert not self.scheduler.cancel(victim)

    @rule(data=st.data())
    def cancel_running(self, data):
        running = [each for batch in self.running.values() for each in batch.requests]
        if running:
            assert not self.scheduler.cancel(data.draw(st.sampled_from(running)))

    @rule(correlation_id=IDS)
    def abandon(self, correlation_id):
        self.scheduler.abandon(correlation_id)
        if not self.iterative:
            new = request(correlation_id)
            with pytest.raises(InvalidArgumentError, match="START"):
                self.scheduler.enqueue(new, self.now_ns)

    @rule(step_us=st.integers(0, 600))
    def let_time_pass(self, step_us):
        self.clock.advance_us(step_us)

    @rule()
    def expire(self):
        for each in self.scheduler.expired(self.now_ns):
            refusal = self.scheduler.refusal(each)
            assert isinstance(refusal, CancelledError | QueueTimeoutError | UnavailableError)
            if isinstance(refusal, QueueTimeoutError):
                assert refusal.message == "timeout of the corresponding sequence has been expired"
            assert each.state is RequestState.QUEUED
            self.waiting.remove(each)
            self.end(each)

    @rule(data=st.data())
    def lose_instance(self, data):
        instance = data.draw(st.sampled_from(self.working))
        batch = self.running.pop(instance, None)
        if batch is not None:
            self.scheduler.done(batch, self.now_ns)
            for each in batch.requests:
                if each.responder is not NOBODY:
                    self.end(each)
        self.scheduler.instance_lost(instance, self.now_ns)
        self.down.add(instance)

    @rule()
    def drain(self):
        gone = self.scheduler.drain()
        assert sorted(map(id, gone)) == sorted(map(id, self.waiting))
        for each in gone:
            self.end(each)
        self.waiting.clear()

    @rule()
    def serve_until_empty(self):
        """Free instances and time alone end everything, in a bounded number of steps, and free every slot."""
        for _ in range(4 * (len(self.waiting) + len(self.running)) + 8):
            self.expire()
            for instance in self.working:
                self.finish_instance(instance)
                batch = self.scheduler.take(self.now_ns, instance)
                self.down.discard(instance)
                if batch is not None:
                    self.check_batch(batch, instance)
                    self.running[instance] = batch
            if not self.running:
                wake_ns = self.scheduler.wake_ns(self.now_ns)
                if wake_ns is not None:
                    self.clock.move_to_ns(wake_ns)
        assert not self.waiting
        for instance in self.working:
            self.finish_instance(instance)
        self.clock.advance_us(IDLE_US)
        self.expire()
        assert self.scheduler.wake_ns(self.now_ns) is None
        assert self.scheduler.live == 0
        assert self.scheduler._pool.free == len(self.working) * self.slots_each()
        assert not self.scheduler._table.everything()

    def finish_instance(self, instance):
        batch = self.running.pop(instance, None)
        if batch is not None:
            self.scheduler.done(batch, self.now_ns)
            for each in batch.requests:
                if each.responder is not NOBODY:
                    self.end(each)

    def slots_each(self):
        if isinstance(self.strategy, OldestSpec) and self.strategy.max_candidate_sequences:
            return self.strategy.max_candidate_sequences
        return MAX_BATCH_SIZE

    # --- what always holds

    @invariant()
    def statistics_count_what_waits(self):
        if hasattr(self, "scheduler"):
            found = self.scheduler.statistics()
            assert found.requests == found.rows == len(self.waiting)
            assert (found.oldest_ns is not None) or not self.waiting or self.scheduler._gone

    @invariant()
    def every_slot_is_free_or_taken(self):
        if hasattr(self, "scheduler"):
            pool = self.scheduler._pool
            taken = [slot.sequence for slots in pool.slots.values() for slot in slots if slot.sequence is not None]
            assert len(set(taken)) == len(taken)
            assert all(sequence.slot.sequence is sequence for sequence in taken)
            usable = (len(self.working) - len(pool.lost)) * self.slots_each()
            assert pool.free + len(taken) == usable
            assert not (pool.free and pool.backlog)


SequenceMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestSequenceMachine = SequenceMachine.TestCase
