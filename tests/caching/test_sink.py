"""What stands before a cached model: every request has one end, hits run nothing, and only good answers are kept."""

from __future__ import annotations

import logging

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shoal.caching.key import request_key
from shoal.caching.local import LocalCache
from shoal.caching.settings import LocalSettings
from shoal.caching.sink import CachedModel, DeferredCachingSink, ImmediateCachingSink
from shoal.errors import FailureReason, InvalidArgumentError
from shoal.requests import RequestState
from shoal.testing.clock import ManualClock
from tests.caching.pieces import IDENTITY, ORDERED, SPEC, Client, Recorder, Runtime, request_of, response_of

DATA = [bytes([number]) * 4 for number in range(3)]


class LaterCache:
    """A cache that answers when it is told to."""

    def __init__(self) -> None:
        self.kept: dict[bytes, object] = {}
        self.asked: list[tuple[bytes, object]] = []
        self.works = True

    def ask(self, key, told):
        if self.works:
            self.asked.append((key, told))
        return self.works

    def insert(self, key, response):
        self.kept[key] = response

    def answer(self, place, *, found=True):
        key, told = self.asked.pop(place)
        told(self.kept.get(key) if found else None)


class Scene:
    """A caching sink and all around it."""

    def __init__(self, cache=None, spec=SPEC) -> None:
        self.clock = ManualClock()
        self.runtime, self.recorder, self.client = Runtime(), Recorder(), Client()
        self.spec = spec
        self.cache = cache or LocalCache(LocalSettings(1 << 20), self.clock.now_ns)
        model = CachedModel(spec, self.runtime, self.recorder, lambda: IDENTITY, self.clock.now_ns)
        kind = DeferredCachingSink if isinstance(self.cache, LaterCache) else ImmediateCachingSink
        self.sink = kind(model, self.cache)

    def submit(self, data=DATA[0]):
        request = request_of(data, self.client, self.spec)
        self.sink.submit(request)
        return request


def test_a_miss_runs_and_a_hit_does_not():
    scene = Scene()
    first, answer = scene.submit(), response_of(b"x")
    assert scene.client.events == []
    scene.runtime.complete(first, answer)
    assert scene.client.answers_to(first) == [("completed", answer)]
    again = scene.submit()
    ((kind, given),) = scene.client.answers_to(again)
    assert (kind, given.data, again.state) == ("completed", [b"x"], RequestState.DONE)
    assert scene.runtime.waiting == []
    assert (scene.recorder.hits, scene.recorder.misses) == (1, 1)


def test_errors_are_passed_on_and_not_kept():
    """Triton 2.51 keeps an error as a response without outputs and gives that to the next who asks."""
    scene = Scene()
    first = scene.submit()
    error = InvalidArgumentError("no")
    scene.runtime.fail(first, error)
    assert scene.client.answers_to(first) == [("failed", error)]
    scene.submit()
    assert len(scene.runtime.waiting) == 1
    assert (scene.recorder.hits, scene.recorder.misses) == (0, 1)


def test_the_answer_of_a_cancelled_request_is_not_kept():
    scene = Scene()
    first = scene.submit()
    scene.sink.cancel(first)
    assert scene.runtime.cancelled == [first]
    scene.runtime.complete(first, response_of(b"half"))
    assert len(scene.client.answers_to(first)) == 1
    scene.submit()
    assert len(scene.runtime.waiting) == 1


def test_requests_with_one_key_at_the_same_time_all_run():
    scene = Scene()
    requests = [scene.submit() for _ in range(3)]
    for number, request in enumerate(requests):
        scene.runtime.complete(request, response_of(bytes([number])))
    assert [scene.client.answers_to(request)[0][1].data for request in requests] == [[b"\0"], [b"\1"], [b"\2"]]
    assert scene.cache.statistics().entries == 1
    assert scene.client.answers_to(scene.submit())[0][1].data == [b"\2"]


def test_a_cache_that_breaks_harms_nobody(caplog):
    scene = Scene()
    scene.sink._insert = lambda key, response: 1 / 0
    request = scene.submit()
    scene.runtime.complete(request, response_of(b"x"))
    assert len(scene.client.answers_to(request)) == 1
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_hit_and_miss_times():
    """Section 2.9: a hit's time is its lookup, a miss's its lookup and its insertion, not the model's time."""
    scene = Scene()
    now_ns = scene.clock.now_ns
    scene.sink._now_ns = lambda: scene.clock.advance_ns(1) and now_ns()
    request = scene.submit()
    scene.clock.advance_us(1000)
    scene.runtime.complete(request, response_of(b"x"))
    scene.submit()
    assert scene.recorder.miss_ns == 2
    assert scene.recorder.hit_ns == 1


def test_what_a_decoupled_model_answers_passes_through():
    """Such models are not cached, and yet no answer may be lost here."""
    scene = Scene()
    request = scene.submit()
    request.responder.responded(request, "one", final=False)
    request.responder.responded(request, None, final=True)
    assert scene.client.answers_to(request) == [("responded", "one"), ("final", None)]


# --- a cache that answers later ---------------------------------------------------------------------------------------


def test_a_request_waits_for_a_later_answer():
    scene = Scene(LaterCache())
    first = scene.submit()
    assert scene.runtime.waiting == []
    scene.cache.answer(0)
    scene.runtime.complete(first, response_of(b"x"))
    again = scene.submit()
    scene.cache.answer(0)
    assert scene.client.answers_to(again)[0][1].data == [b"x"]


def test_a_cache_that_cannot_be_asked_is_a_miss():
    scene = Scene(LaterCache())
    scene.cache.works = False
    request = scene.submit()
    assert scene.runtime.waiting == [request]


def test_a_request_can_be_cancelled_while_it_is_looked_up():
    scene = Scene(LaterCache())
    request = scene.submit()
    scene.sink.cancel(request)
    ((kind, error),) = scene.client.answers_to(request)
    assert (kind, error.reason) == ("failed", FailureReason.CANCELED)
    assert scene.recorder.failures == [FailureReason.CANCELED]
    scene.cache.answer(0)
    assert (scene.runtime.waiting, scene.runtime.cancelled, len(scene.client.events)) == ([], [], 1)


# --- preserve_ordering ------------------------------------------------------------------------------------------------


def test_rule_40_a_hit_waits_for_the_answers_of_earlier_requests():
    scene = Scene(spec=ORDERED)
    scene.runtime.complete(scene.submit(DATA[0]), response_of(b"0"))
    miss, hit = scene.submit(DATA[1]), scene.submit(DATA[0])
    assert scene.client.answers_to(hit) == []
    scene.runtime.complete(miss, response_of(b"1"))
    assert [request for _, request, _ in scene.client.events[1:]] == [miss, hit]


def test_an_error_lets_those_behind_it_pass():
    scene = Scene(spec=ORDERED)
    scene.runtime.complete(scene.submit(DATA[0]), response_of(b"0"))
    failing, hit = scene.submit(DATA[1]), scene.submit(DATA[0])
    scene.runtime.fail(failing, InvalidArgumentError("no"))
    assert len(scene.client.answers_to(failing)) == len(scene.client.answers_to(hit)) == 1


def test_a_client_that_breaks_holds_up_nobody(caplog):
    scene = Scene(spec=ORDERED)
    scene.runtime.complete(scene.submit(DATA[0]), response_of(b"0"))
    miss, hit = scene.submit(DATA[1]), scene.submit(DATA[0])

    class Broken(Client):
        def completed(self, request, response):
            raise OSError("gone")

    miss.responder._responder = Broken()
    scene.runtime.complete(miss, response_of(b"1"))
    assert len(scene.client.answers_to(hit)) == 1
    assert "an answer could not be delivered" in caplog.text


# --- everything in any order ------------------------------------------------------------------------------------------


class CachingMachine(RuleBasedStateMachine):
    """Any order of requests, lookups, answers, errors and cancellations; both kinds of cache, ordered or not."""

    later = False
    spec = SPEC

    def __init__(self) -> None:
        super().__init__()
        self.scene = Scene(LaterCache() if self.later else None, self.spec)
        self.requests: list = []
        self.ran: set = set()

    @rule(data=st.sampled_from(DATA))
    def submit(self, data):
        self.requests.append(self.scene.submit(data))

    @precondition(lambda self: self.scene.runtime.waiting)
    @rule(data=st.data())
    def complete(self, data):
        waiting = self.scene.runtime.waiting
        # with its order to be kept, the runtime itself completes in order
        request = waiting[0] if self.spec is ORDERED else data.draw(st.sampled_from(waiting))
        self.ran.add(request)
        self.scene.runtime.complete(request, response_of(bytes(request.payload[0])))

    @precondition(lambda self: self.scene.runtime.waiting)
    @rule(data=st.data())
    def fail(self, data):
        request = data.draw(st.sampled_from(self.scene.runtime.waiting))
        self.scene.runtime.fail(request, InvalidArgumentError("no"))

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def cancel(self, data):
        self.scene.sink.cancel(data.draw(st.sampled_from(self.requests)))

    @precondition(lambda self: self.later and self.scene.cache.asked)
    @rule(data=st.data(), found=st.booleans())
    def look_up(self, data, found):
        self.scene.cache.answer(data.draw(st.integers(0, len(self.scene.cache.asked) - 1)), found=found)

    @precondition(lambda self: self.later)
    @rule(works=st.booleans())
    def outage(self, works):
        self.scene.cache.works = works

    @invariant()
    def nobody_is_answered_twice_or_wrongly(self):
        for request in self.requests:
            answers = self.scene.client.answers_to(request)
            assert len(answers) <= 1
            for kind, what in answers:
                if kind == "completed":
                    assert bytes(what.data[0]) == bytes(request.payload[0])

    @invariant()
    def order_is_kept(self):
        if self.spec is ORDERED:
            completed = [whom for kind, whom, _ in self.scene.client.events if kind == "completed"]
            assert completed == [request for request in self.requests if request in completed]

    def teardown(self):
        """When everything has run, everybody has an answer."""
        while self.later and self.scene.cache.asked:
            self.scene.cache.answer(0)
        while self.scene.runtime.waiting:
            self.scene.runtime.complete(
                self.scene.runtime.waiting[0], response_of(bytes(self.scene.runtime.waiting[0].payload[0]))
            )
        assert all(len(self.scene.client.answers_to(request)) == 1 for request in self.requests)
        cancelled = len(self.scene.recorder.failures)
        assert self.scene.recorder.hits + self.scene.recorder.misses + cancelled == len(self.requests)
        for request in self.requests:
            assert request.responder is self.scene.client
            assert request_key(request, self.spec, lambda: b"") == request.plan.cache_key.of(request.payload)


class LaterCachingMachine(CachingMachine):
    later = True


class OrderedCachingMachine(CachingMachine):
    spec = ORDERED


class OrderedLaterCachingMachine(CachingMachine):
    later = True
    spec = ORDERED


TestCaching = CachingMachine.TestCase
TestLaterCaching = LaterCachingMachine.TestCase
TestOrderedCaching = OrderedCachingMachine.TestCase
TestOrderedLaterCaching = OrderedLaterCachingMachine.TestCase
TestCaching.settings = TestLaterCaching.settings = settings(max_examples=50, deadline=None)
TestOrderedCaching.settings = TestOrderedLaterCaching.settings = settings(max_examples=50, deadline=None)


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.WARNING)
