"""Deadlines: whatever happens to a request, it is answered once and in time, and its late answer goes nowhere."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shoal.errors import CancelledError, DeadlineExceededError, FailureReason, InternalError
from shoal.execution.request_deadlines import DeadlineKeeper
from shoal.requests import LATEST, NOBODY, InferHead, InferRequest, RequestPlan, RequestState
from shoal.testing.clock import ManualClock


class Timers:
    """Timers that fire when the clock has come so far."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.set: list[Timer] = []

    def call_later(self, delay_s, callback):
        timer = Timer(self, self._clock.now_ns() + round(delay_s * 1e9), callback)
        self.set.append(timer)
        return timer

    def fire(self):
        """Fire every timer whose time has come, those that are set meanwhile too."""
        while due := [timer for timer in self.set if timer.at_ns <= self._clock.now_ns()]:
            self.set.remove(due[0])
            due[0].callback()


class Timer:
    def __init__(self, timers, at_ns, callback):
        self._timers, self.at_ns, self.callback = timers, at_ns, callback

    def cancel(self):
        self._timers.set.remove(self)


class Model:
    """A sink that queues, runs and answers when it is told to, and counts as a runtime does."""

    def __init__(self):
        self.queued: list[InferRequest] = []
        self.running: list[InferRequest] = []
        self.failures: list[tuple[InferRequest, FailureReason]] = []
        self.successes: list[InferRequest] = []

    def submit(self, request):
        request.state = RequestState.QUEUED
        self.queued.append(request)

    def cancel(self, request):
        if request in self.queued:
            self.queued.remove(request)
            self.fail(request, CancelledError("cancelled"))
        elif request in self.running:
            request.cancelled = True

    def take(self, request):
        self.queued.remove(request)
        self.running.append(request)
        request.state = RequestState.RUNNING

    def answer(self, request):
        self.running.remove(request)
        request.state = RequestState.DONE
        if request.responder is not NOBODY:
            self.successes.append(request)
        request.responder.completed(request, None)

    def fail(self, request, error):
        request.state = RequestState.DONE
        if request.responder is not NOBODY:
            self.request_failed(request, error.reason, 0)
        request.responder.failed(request, error)

    def request_failed(self, request, reason, now_ns):
        del now_ns
        self.failures.append((request, reason))


class Client:
    """Keeps the end of each request."""

    def __init__(self, clock):
        self._clock = clock
        self.ends: dict[InferRequest, list[object]] = {}
        self.ended_ns: dict[InferRequest, int] = {}

    def completed(self, request, response):
        self._end(request, response)

    def failed(self, request, error):
        self._end(request, error)

    def _end(self, request, what):
        self.ends.setdefault(request, []).append(what)
        self.ended_ns[request] = self._clock.now_ns()


class DeadlineMachine(RuleBasedStateMachine):
    """Requests with deadlines wait, run, are answered, fail and are cancelled while time passes."""

    def __init__(self):
        super().__init__()
        self.clock = ManualClock()
        self.timers = Timers(self.clock)
        self.keeper = DeadlineKeeper(self.clock, self.timers.call_later)
        self.model = Model()
        self.sink = self.keeper.before(self.model, self.model)
        self.client = Client(self.clock)
        self.requests: list[InferRequest] = []

    @rule(deadline_us=st.integers(1, 50), age_us=st.integers(0, 20))
    def submit(self, deadline_us, age_us):
        plan = RequestPlan(InferHead("m", LATEST, "", ()), self.sink, 1, (), (), (), (), deadline_us=deadline_us)
        request = InferRequest(plan, (), self.client, None, self.clock.now_ns() - 1_000 * age_us)
        self.requests.append(request)
        self.sink.submit(request)
        self.timers.fire()

    @precondition(lambda self: self.model.queued)
    @rule(data=st.data())
    def take(self, data):
        self.model.take(data.draw(st.sampled_from(self.model.queued)))

    @precondition(lambda self: self.model.running)
    @rule(data=st.data())
    def answer(self, data):
        self.model.answer(data.draw(st.sampled_from(self.model.running)))

    @precondition(lambda self: self.model.running)
    @rule(data=st.data())
    def fail(self, data):
        request = data.draw(st.sampled_from(self.model.running))
        self.model.running.remove(request)
        self.model.fail(request, InternalError("boom"))

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def cancel(self, data):
        self.sink.cancel(data.draw(st.sampled_from(self.requests)))

    @rule(step_us=st.integers(0, 60))
    def wait(self, step_us):
        then_ns = self.clock.now_ns() + 1_000 * step_us
        while (nexts := [timer.at_ns for timer in self.timers.set if timer.at_ns <= then_ns]) != []:
            self.clock.move_to_ns(min(nexts))
            self.timers.fire()
        self.clock.move_to_ns(then_ns)

    @invariant()
    def each_request_has_one_end_and_in_time(self):
        for request in self.requests:
            ends = self.client.ends.get(request, [])
            due_ns = request.arrival_ns + 1_000 * request.plan.deadline_us
            assert len(ends) <= 1
            if not ends:
                assert self.clock.now_ns() < due_ns, "the deadline has passed and nobody was told"
            elif isinstance(ends[0], DeadlineExceededError):
                assert self.client.ended_ns[request] >= due_ns, "told too early"
                assert request not in self.model.queued, "a request that is given up waits no more"
                assert request not in self.model.running or request.cancelled

    @invariant()
    def each_end_counts_once(self):
        counted = [request for request, _ in self.model.failures] + self.model.successes
        assert len(counted) == len(set(counted))
        assert set(counted) == set(self.client.ends)

    @invariant()
    def nothing_is_kept_of_requests_that_ended(self):
        assert set(self.keeper._answers) == {one for one in self.requests if one not in self.client.ends}


DeadlineMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
TestDeadlineMachine = DeadlineMachine.TestCase


def test_a_cache_that_waits_for_the_answer_of_a_request_still_gets_it():
    """What stands between the deadline and the model keeps its place as the request's responder."""
    clock = ManualClock()
    timers = Timers(clock)
    model, client = Model(), Client(clock)
    plan = RequestPlan(InferHead("m", LATEST, "", ()), model, 1, (), (), (), (), deadline_us=5)
    request = InferRequest(plan, (), client, None, clock.now_ns())
    stored = []

    class Cache:
        def submit(self, request):
            self.behind, request.responder = request.responder, self
            model.submit(request)

        def cancel(self, request):
            model.cancel(request)

        def completed(self, request, response):
            stored.append(response)
            self.behind.completed(request, response)

    DeadlineKeeper(clock, timers.call_later).before(Cache(), model).submit(request)
    model.take(request)
    clock.advance_us(5)
    timers.fire()
    assert [str(end) for end in client.ends[request]] == [
        "[request id: <id_unknown>] the deadline of 5 microseconds passed while the request ran"
    ]
    model.answer(request)
    assert len(client.ends[request]) == 1
    assert stored == [None]
