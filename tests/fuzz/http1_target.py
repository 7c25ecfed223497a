"""What is fuzzed of HTTP/1.1: bytes of a client, cut into reads, and what must hold whatever they are."""

import random
from pathlib import Path

from shoal.transport.connection import Limits
from shoal.transport.http1_exchange import DONE
from tests.transport.http1_support import MemoryConnection

CORPUS = {path.name: path.read_bytes() for path in sorted((Path(__file__).parent / "corpus" / "http1").iterdir())}
LIMITS = Limits(head_nbytes=2000, header_count=20, body_nbytes=5000, pipelined=8)
REFUSALS = (400, 408, 417, 431, 501, 505)
TOKENS = (
    b"\r\n",
    b"\n",
    b"\r",
    b"\x00",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"0",
    b"-1",
    b"+1",
    b"0x1",
    b"ffffffffffffffff",
    b"18446744073709551617",
    b"0\r\n\r\n",
    b"Content-Length: 3\r\n",
    b"Content-Length: 99999\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip\r\n",
    b"Connection: close\r\n",
    b"Expect: 100-continue\r\n",
    b"Upgrade: h2c\r\n",
    b"HTTP/1.0",
    b"HTTP/2.0",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01",
    b"\xff",
)


def mutate(data: bytes, source: random.Random) -> bytes:
    """A few random changes: of a byte, of a slice, with a token, with a part of another sample."""
    for _ in range(source.randint(0, 4)):
        at = source.randint(0, len(data))
        end = min(len(data), at + source.randint(0, 20))
        other = source.choice(list(CORPUS.values()))
        start = source.randint(0, len(other))
        middle = source.choice(
            (
                b"",
                bytes([source.randrange(256)]),
                source.choice(TOKENS),
                data[at:end] * 2,
                other[start : start + source.randint(0, 60)],
            )
        )
        data = data[:at] + middle + data[source.choice((at, end)) :]
    return data


def receive(data: bytes, edges: list[int]) -> tuple[list[tuple[str, str, bytes]], bytes]:
    """Deliver the bytes to a connection in these reads, let it time out and end. Returns requests and responses."""
    with MemoryConnection(limits=LIMITS) as memory:
        for start, stop in zip([0, *edges], [*edges, len(data)], strict=True):
            if memory.transport.reading and not memory.transport.closed:
                memory.receive(data[start:stop])
        memory.sweep(2000)
        unanswered = list(memory.connection._queue)
        memory.connection.connection_lost(None)
        assert all(exchange.state == DONE for exchange in unanswered)
        assert memory.errors == []
        assert memory.connection.in_flight == 0
        assert memory.context.connections == set()
        return memory.requests(), memory.transport.sent


def check(data: bytes, edges: list[int]) -> None:
    """No exception escapes, and how the bytes are cut into reads makes no difference to what is understood.

    A reader of a stream whose meaning depends on how it was cut is what request smuggling lives on.
    """
    requests, sent = receive(data, [])
    cut_requests, _ = receive(data, edges)
    assert cut_requests == requests
    heads = [line for line in sent.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
    assert all(int(head.split(b" ")[1]) in (100, 200, *REFUSALS) for head in heads)
