"""The local cache against the simplest model of it, and the bytes that it says it takes against those it takes."""

from __future__ import annotations

import gc
import logging
import tracemalloc
from collections import OrderedDict

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shoal.caching.local import ENTRY_NBYTES, TENSOR_NBYTES, LocalCache, entry_nbytes
from shoal.caching.settings import LocalSettings
from shoal.testing.clock import ManualClock
from tests.caching.pieces import key_of, response_of

SIZE_NBYTES = 6000
TTL_S = 2.0
KEYS = st.integers(0, 7)


class LocalCacheMachine(RuleBasedStateMachine):
    """Keeps what the cache should hold in a list of keys, from the least to the most recently used."""

    ttl_s = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.cache = LocalCache(LocalSettings(SIZE_NBYTES, self.ttl_s), self.clock.now_ns)
        self.held: OrderedDict[int, tuple[bytes, int]] = OrderedDict()
        self.hits = self.misses = self.evictions = 0

    @rule(key=KEYS, nbytes=st.integers(0, SIZE_NBYTES + 500))
    def insert(self, key, nbytes):
        data = bytes([key]) * nbytes
        self.cache.insert(key_of(key), response_of(data))
        if ENTRY_NBYTES + TENSOR_NBYTES + nbytes > SIZE_NBYTES:
            return
        self.held.pop(key, None)
        self.held[key] = (data, self.clock.now_ns())
        while self.used() > SIZE_NBYTES:
            self.held.popitem(last=False)
            self.evictions += 1

    @rule(key=KEYS)
    def look_up(self, key):
        found = self.cache.lookup(key_of(key))
        if key in self.held and self.ttl_s and self.clock.now_ns() >= self.held[key][1] + self.ttl_s * 1e9:
            del self.held[key]
        if key in self.held:
            self.hits += 1
            self.held.move_to_end(key)
            assert found is not None
            assert found.data == [self.held[key][0]]
        else:
            self.misses += 1
            assert found is None

    @precondition(lambda self: self.ttl_s)
    @rule(step_ns=st.integers(0, int(TTL_S * 1e9)))
    def wait(self, step_ns):
        self.clock.advance_ns(step_ns)

    def used(self) -> int:
        return sum(ENTRY_NBYTES + TENSOR_NBYTES + len(data) for data, _ in self.held.values())

    @invariant()
    def books_are_right(self):
        told = self.cache.statistics()
        assert self.cache.used_nbytes == self.used() <= SIZE_NBYTES
        assert told.utilization == self.used() / SIZE_NBYTES
        assert (told.entries, told.hits, told.misses) == (len(self.held), self.hits, self.misses)
        assert told.lookups == told.hits + told.misses
        assert told.evictions == self.evictions


class LocalCacheWithTtlMachine(LocalCacheMachine):
    ttl_s = TTL_S


TestLocalCache = LocalCacheMachine.TestCase
TestLocalCacheWithTtl = LocalCacheWithTtlMachine.TestCase
TestLocalCache.settings = TestLocalCacheWithTtl.settings = settings(max_examples=60, deadline=None)


@pytest.fixture
def clock():
    return ManualClock()


def test_a_response_is_kept_for_its_time_and_no_longer(clock):
    cache = LocalCache(LocalSettings(SIZE_NBYTES, 0.5), clock.now_ns)
    cache.insert(key_of(1), response_of(b"x"))
    clock.advance_ns(499_999_999)
    assert cache.lookup(key_of(1)) is not None
    clock.advance_ns(1)  # a hit does not make it younger
    assert cache.lookup(key_of(1)) is None
    assert cache.used_nbytes == cache.statistics().evictions == 0


def test_views_are_copied(clock):
    """A view of shared memory must be free to change once its answer was sent."""
    cache = LocalCache(LocalSettings(SIZE_NBYTES), clock.now_ns)
    memory = bytearray(b"before")
    response = response_of(b"")
    response.data = [memoryview(memory)]
    cache.insert(key_of(1), response)
    memory[:] = b"after!"
    assert cache.lookup(key_of(1)).data == [b"before"]


def test_parameters_of_a_response_are_kept_and_counted(clock):
    cache = LocalCache(LocalSettings(SIZE_NBYTES), clock.now_ns)
    parameters = {"text": "x" * 100, "number": 1}
    cache.insert(key_of(1), response_of(b"", parameters=parameters))
    parameters["text"] = "changed"
    assert cache.lookup(key_of(1)).parameters == {"text": "x" * 100, "number": 1}
    assert cache.used_nbytes > ENTRY_NBYTES + TENSOR_NBYTES + 100


def test_a_response_that_is_too_large_is_named(clock, caplog):
    cache = LocalCache(LocalSettings(2000), clock.now_ns)
    cache.insert(key_of(1), response_of(b"small"))
    with caplog.at_level(logging.WARNING):
        cache.insert(key_of(2), response_of(bytes(2000)))
        cache.insert(key_of(3), response_of(bytes(3000)))
    assert [record.getMessage() for record in caplog.records] == [
        "a response of model 'fish' takes 2576 bytes and does not fit into the response cache of 2000 bytes"
    ]
    assert cache.lookup(key_of(1)) is not None


@pytest.mark.parametrize(("outputs", "nbytes"), [(1, 4), (8, 4), (1, 4000)])
def test_it_takes_no_more_memory_than_it_says(clock, outputs, nbytes):
    """``size`` bounds what the process really uses, so small responses must not be counted as nothing."""
    count = 2000
    layout = response_of(*[b"x"] * outputs).layout
    cache = LocalCache(LocalSettings(1 << 30), clock.now_ns)
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(count):
            response = response_of()
            response.layout = layout
            response.data = [bytes(nbytes) for _ in range(outputs)]
            cache.insert(key_of(number), response)
            del response
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken <= cache.used_nbytes
    assert cache.used_nbytes <= count * entry_nbytes(cache.lookup(key_of(0)))
