"""Changed HTTP/2 frames: no exception escapes, nothing hangs, neighbours are served, nothing is left over."""

import gc
import random
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.transport.grpc_call import GrpcStream
from shoal.transport.http2 import Http2Connection
from shoal.transport.http2_exchange import HttpStream
from shoal.transport.http2_frames import PREFACE
from tests.fuzz.http2_target import CORPUS, LIMITS, check, mutate
from tests.transport.http1_support import EchoHandler, Server
from tests.transport.http2_support import EchoCalls, Memory, Wire, call_bytes, serve_http2

SAMPLES = st.sampled_from(list(CORPUS.values()))
SEEDS = st.integers(min_value=0, max_value=2**32)


@pytest.mark.parametrize("name", CORPUS)
def test_the_corpus_cut_at_every_position(name: str) -> None:
    data = CORPUS[name]
    for position in range(0, len(data), max(1, len(data) // 300)):
        check(data, [position])
    if len(data) < 2000:
        check(data, list(range(1, len(data))))


@pytest.mark.parametrize("name", CORPUS)
def test_the_corpus_breaks_no_rule(name: str) -> None:
    """The samples are correct, so that the changes to them reach deep."""
    memory = Memory(grpc=EchoCalls(), http=EchoHandler(), limits=LIMITS, opening=CORPUS[name])
    assert not memory.connection.ending
    assert memory.connection.rest == b""


@settings(max_examples=1000, deadline=None)
@given(SAMPLES, SEEDS)
def test_changed_frames_mean_the_same_however_they_are_cut(sample: bytes, seed: int) -> None:
    source = random.Random(seed)
    data = mutate(sample, source)
    check(data, sorted(source.randint(0, len(data)) for _ in range(source.randint(0, 5))))


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=300), st.lists(st.integers(min_value=0, max_value=300), max_size=4), st.booleans())
def test_any_bytes(data: bytes, cuts: list[int], settled: bool) -> None:
    data = PREFACE + (b"\0\0\0\4\0\0\0\0\0" if settled else b"") + data
    check(data, sorted(min(cut, len(data)) for cut in cuts))


def alive() -> int:
    """Connections and streams that exist."""
    gc.collect()
    return sum(isinstance(thing, Http2Connection | GrpcStream | HttpStream) for thing in gc.get_objects())


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server for all examples; in the end none of their connections and streams may be left."""
    before = alive()
    calls = EchoCalls()
    with serve_http2(request.param, grpc=calls, limits=LIMITS) as running:
        yield running
        running.until(lambda: not running.context.connections)
        running.handler.events.queue.clear()
        calls.__init__()
        assert alive() == before


class Neighbour:
    """A client that makes one call after the other."""

    def __init__(self, port: int) -> None:
        self.wire = Wire(port)
        self.stream_id = -1

    def call(self) -> bool:
        self.stream_id += 2
        self.wire.frames.clear()
        self.wire.send(call_bytes(self.stream_id))
        return self.wire.answer(self.stream_id).messages == [(0, b"hello")]


@pytest.fixture(scope="module")
def neighbour(server: Server) -> Iterator[Neighbour]:
    client = Neighbour(server.port)
    yield client
    client.wire.socket.close()


@settings(max_examples=150, deadline=None)
@given(SAMPLES, SEEDS, st.booleans())
def test_a_broken_client_harms_nobody(
    server: Server, neighbour: Neighbour, sample: bytes, seed: int, half_close: bool
) -> None:
    """It is answered or told why not, and both an open connection and a fresh one are served as before."""
    source = random.Random(seed)
    data = PREFACE + mutate(sample, source)[len(PREFACE) :]
    cut = source.randint(0, len(data))
    with Wire(server.port, data[:cut]) as wire:
        try:
            assert neighbour.call()
            wire.send(data[cut:])
            if half_close:
                wire.socket.shutdown(socket.SHUT_WR)
                while wire.read() is not None:
                    pass
        except OSError as error:
            assert not isinstance(error, TimeoutError)  # noqa: PT017 # a reset is the server's right, a hang is not
    assert neighbour.call()
    fresh = Neighbour(server.port)
    assert fresh.call()
    fresh.wire.socket.close()
