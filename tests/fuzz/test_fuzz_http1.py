"""Mutated HTTP/1.1 requests: no exception escapes, nothing hangs, neighbours are served, nothing is left over."""

import gc
import random
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.transport.http1 import Http1Connection
from shoal.transport.http1_exchange import Http1Exchange
from shoal.transport.listener import HTTP2_PREFACE, ProtocolDetector
from tests.fuzz.http1_target import CORPUS, LIMITS, check, mutate
from tests.transport.http1_support import RawClient, Server, serve

SAMPLES = st.sampled_from(list(CORPUS.values()))
SEEDS = st.integers(min_value=0, max_value=2**32)
GET = b"GET /v2/health/live HTTP/1.1\r\nHost: neighbour\r\n\r\n"


@pytest.mark.parametrize("name", CORPUS)
def test_the_corpus_cut_at_every_position(name: str) -> None:
    data = CORPUS[name]
    for position in range(len(data)):
        check(data, [position])
    check(data, list(range(1, len(data))))


@settings(max_examples=1500, deadline=None)
@given(SAMPLES, SEEDS)
def test_mutated_requests_mean_the_same_however_they_are_cut(sample: bytes, seed: int) -> None:
    source = random.Random(seed)
    data = mutate(sample, source)
    check(data, sorted(source.randint(0, len(data)) for _ in range(source.randint(0, 5))))


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=300), st.lists(st.integers(min_value=0, max_value=300), max_size=4))
def test_any_bytes(data: bytes, cuts: list[int]) -> None:
    check(data, sorted(min(cut, len(data)) for cut in cuts))


def alive() -> int:
    """Connections and exchanges that exist."""
    gc.collect()
    kinds = (Http1Connection, Http1Exchange, ProtocolDetector)
    return sum(isinstance(thing, kinds) for thing in gc.get_objects())


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server for all examples; in the end none of their connections may be left."""
    before = alive()
    limits = replace(LIMITS, pipelined=100)  # while reading is paused at this limit, nobody sees a client leave
    with serve(request.param, limits=limits) as running:
        yield running
        running.until(lambda: not running.context.connections)
        running.handler.events.queue.clear()
        assert alive() == before


@pytest.fixture(scope="module")
def neighbour(server: Server) -> Iterator[RawClient]:
    with server.connect() as client:
        yield client


def ask(client: RawClient) -> int:
    client.send(GET)
    return client.response().status


@settings(max_examples=150, deadline=None)
@given(SAMPLES, SEEDS, st.booleans())
def test_a_broken_client_harms_nobody(
    server: Server, neighbour: RawClient, sample: bytes, seed: int, half_close: bool
) -> None:
    """It is answered or cut off, and both an open connection and a fresh one are served as before."""
    source = random.Random(seed)
    data = mutate(sample, source)
    if data.startswith(HTTP2_PREFACE):
        data = data[1:]
    cut = source.randint(0, len(data))
    with server.connect() as client:
        try:
            client.send(data[:cut])
            assert ask(neighbour) == 200
            client.send(data[cut:])
            if half_close:
                client.socket.shutdown(socket.SHUT_WR)
                client.rest()
        except OSError as error:
            assert not isinstance(error, TimeoutError)  # noqa: PT017 # a reset is the server's right, a hang is not
    assert ask(neighbour) == 200
    with server.connect() as fresh:
        assert ask(fresh) == 200
