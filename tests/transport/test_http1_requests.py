"""From bytes to requests: framing, pipelining, bodies, and what the table of heads saves."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.transport.connection import Limits
from shoal.transport.handler import LARGE_BODY_NBYTES
from shoal.transport.http1 import MEMO_HEAD_NBYTES, MEMO_HEADS
from tests.transport.http1_support import EchoHandler, MemoryConnection, serve

GET = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n"


def post(body: bytes, path: bytes = b"/echo", headers: bytes = b"") -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: a\r\n%bContent-Length: %d\r\n\r\n%b" % (path, headers, len(body), body)


def post_chunked(*chunks: bytes, path: bytes = b"/echo") -> bytes:
    parts = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"POST %b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n%b0\r\nX-Trailer: t\r\n\r\n" % (path, parts)


STREAM = (
    GET
    + post(b"0123456789" * 5)
    + b"\r\n"
    + post_chunked(b"abc", b"\r\n\r\n", b"d" * 20)
    + b"HEAD /x?y HTTP/1.1\r\n\r\n"
    + post_chunked()
    + post(b"", b"/empty")
)
REQUESTS = [
    ("GET", "/v2/health/live", b""),
    ("POST", "/echo", b"0123456789" * 5),
    ("POST", "/echo", b"abc\r\n\r\n" + b"d" * 20),
    ("HEAD", "/x?y", b""),
    ("POST", "/echo", b""),
    ("POST", "/empty", b""),
]


@pytest.fixture
def memory() -> Iterator[MemoryConnection]:
    with MemoryConnection() as connection:
        yield connection


@given(st.lists(st.integers(min_value=0, max_value=len(STREAM)), max_size=12))
def test_requests_cut_anywhere(cuts: list[int]) -> None:
    """However the bytes are cut into reads, the same requests come out, and the same responses go back."""
    with MemoryConnection() as whole, MemoryConnection() as connection:
        whole.receive(STREAM)
        edges = sorted({0, len(STREAM), *cuts})
        for start, stop in pairwise(edges):
            connection.receive(STREAM[start:stop])
        assert connection.transport.sent == whole.transport.sent
        assert connection.requests() == REQUESTS
        assert connection.connection.in_flight == 0
        assert not connection.transport.closed


@pytest.mark.parametrize("position", range(len(STREAM)))
def test_requests_cut_once_at_every_position(position: int) -> None:
    with MemoryConnection() as connection:
        connection.receive(STREAM[:position])
        connection.receive(STREAM[position:])
        assert connection.requests() == REQUESTS


def test_byte_by_byte_over_a_socket(loop_kind: str) -> None:
    with serve(loop_kind) as server, server.connect() as client:
        for byte in STREAM:
            client.send(bytes([byte]))
        for method, _, body in REQUESTS:
            response = client.response(method)
            assert (response.status, response.body) == (200, body if method != "HEAD" else b"")


def test_many_pipelined_chunked_requests_in_one_read(memory: MemoryConnection) -> None:
    """A read full of small requests is a loop, not a recursion."""
    count = 60_000 // len(post_chunked())
    memory.receive(post_chunked() * count)
    assert len(memory.requests()) == count


def test_a_head_is_parsed_once_for_all_connections() -> None:
    """Requests with the same head bytes share one head object, with what the handler kept in it."""
    with serve("asyncio") as server:
        heads = []
        for _ in range(2):
            with server.connect() as client:
                client.send(GET * 2)
                heads += [server.handler.next("request").head for _ in range(2)]
                assert client.response().status == 200
        assert all(head is heads[0] for head in heads)


def test_the_table_of_heads_is_bounded(memory: MemoryConnection) -> None:
    for number in range(MEMO_HEADS + 10):
        memory.receive(b"GET /%d HTTP/1.1\r\n\r\n" % number)
    assert 0 < len(memory.context.heads) <= MEMO_HEADS
    assert len(memory.requests()) == MEMO_HEADS + 10


def test_long_heads_and_refused_heads_are_not_kept(memory: MemoryConnection) -> None:
    memory.receive(b"GET / HTTP/1.1\r\nX: %b\r\n\r\n" % (b"x" * MEMO_HEAD_NBYTES))
    memory.receive(b"GET / HTTP/3.0\r\n\r\n")
    assert memory.context.heads == {}


def test_a_small_body_in_one_read_is_bytes(memory: MemoryConnection) -> None:
    memory.receive(post(b"abc"))
    assert type(memory.handler.next("request").body) is bytes


def test_a_large_body_is_received_in_the_handlers_buffer(memory: MemoryConnection) -> None:
    """What the handler was asked to lend is what it gets back, filled; no copy is made on the way."""
    body = bytes(range(256)) * (LARGE_BODY_NBYTES // 256)
    memory.receive(post(body))
    exchange = memory.handler.next("request")
    assert exchange.body is memory.handler.buffers[0]
    assert exchange.body == body


def test_the_socket_writes_straight_into_a_large_body(memory: MemoryConnection) -> None:
    """Once a body has begun, reads go to the rest of it, and never beyond its end."""
    request = post(b"x" * LARGE_BODY_NBYTES)
    memory.receive(request[: -LARGE_BODY_NBYTES + 10])
    buffer = memory.connection.get_buffer(-1)
    assert buffer.obj is memory.handler.buffers[0].obj
    assert len(buffer) == LARGE_BODY_NBYTES - 10


def test_a_body_below_the_threshold_asks_for_no_buffer(memory: MemoryConnection) -> None:
    body = b"x" * (LARGE_BODY_NBYTES - 1)
    memory.receive(post(body)[:-1])
    memory.receive(b"x" + GET)
    assert memory.handler.buffers == []
    assert memory.requests() == [("POST", "/echo", body), ("GET", "/v2/health/live", b"")]


@pytest.mark.parametrize("lent", [None, memoryview(bytearray(3)), memoryview(bytes(LARGE_BODY_NBYTES)), "raise"])
def test_a_handler_that_lends_no_usable_buffer(lent: object) -> None:
    """None is fine; a wrong length, a read-only buffer or an exception is reported, and the body still arrives."""

    class Lender(EchoHandler):
        def body_buffer(self, head, nbytes):
            if lent == "raise":
                raise RuntimeError("no memory")
            return lent

    body = b"x" * LARGE_BODY_NBYTES
    with MemoryConnection(Lender()) as memory:
        memory.receive(post(body))
        assert memory.requests() == [("POST", "/echo", body)]
        assert len(memory.errors) == (lent is not None)


@pytest.mark.parametrize("nbytes", [LARGE_BODY_NBYTES - 1, LARGE_BODY_NBYTES, 5_000_001])
def test_large_bodies_over_a_socket(loop_kind: str, nbytes: int) -> None:
    body = bytes(range(251)) * (nbytes // 251 + 1)
    body = body[:nbytes]
    with serve(loop_kind) as server, server.connect() as client:
        client.send(GET + post(body) + post_chunked(body[:70_000], body[70_000:] or b"x") + GET)
        assert client.response().body == b""
        assert client.response().body == body
        assert client.response().body == body[:70_000] + (body[70_000:] or b"x")
        assert client.response().body == b""


@pytest.mark.parametrize("chunked", [False, True])
def test_expect_continue(memory: MemoryConnection, chunked: bool) -> None:
    """RFC 9110 section 10.1.1: the body is asked for when it did not come with the head."""
    request = post_chunked(b"abc") if chunked else post(b"abc")
    head, _, body = request.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\nExpect: 100-continue\r\n").partition(b"\r\n\r\n")
    memory.receive(head + b"\r\n\r\n")
    assert memory.transport.sent == b"HTTP/1.1 100 Continue\r\n\r\n"
    memory.receive(body)
    assert memory.requests() == [("POST", "/echo", b"abc")]


def test_expect_continue_is_not_sent_for_a_body_that_is_here(memory: MemoryConnection) -> None:
    memory.receive(post(b"abc", headers=b"Expect: 100-continue\r\n"))
    assert memory.transport.sent.startswith(b"HTTP/1.1 200")


def test_expect_continue_waits_for_the_responses_before_it(memory: MemoryConnection) -> None:
    """An interim response must not come between a pipelined request and its answer."""
    memory.receive(b"GET /hold HTTP/1.1\r\n\r\n" + post(b"abc", headers=b"Expect: 100-continue\r\n")[:-3])
    assert memory.transport.sent == b""
    memory.handler.next("request").respond(200, b"", [b"first"])
    assert memory.transport.sent.endswith(b"firstHTTP/1.1 100 Continue\r\n\r\n")
    memory.receive(b"abc")
    assert memory.requests() == [("POST", "/echo", b"abc")]


def test_expect_continue_is_dropped_when_the_body_comes_first(memory: MemoryConnection) -> None:
    """A client that did not wait is not told to continue with a body that is long here."""
    memory.receive(b"GET /hold HTTP/1.1\r\n\r\n" + post(b"abc", headers=b"Expect: 100-continue\r\n")[:-3])
    memory.receive(b"abc")
    memory.handler.next("request").respond(200, b"", [b"first"])
    assert b"100 Continue" not in memory.transport.sent


def test_empty_lines_before_a_request_are_skipped(memory: MemoryConnection) -> None:
    """RFC 9112 section 2.2."""
    memory.receive(b"\r\n\r\n\r\n" + GET + b"\r\n" + GET)
    assert len(memory.requests()) == 2
    assert len(memory.context.heads) == 1


def test_reading_pauses_while_many_requests_are_in_flight() -> None:
    """Beyond ``pipelined`` requests nothing is read or taken until half of them are answered."""
    hold = b"GET /hold HTTP/1.1\r\n\r\n"
    with MemoryConnection(limits=Limits(pipelined=4)) as memory:
        memory.receive(hold * 3 + hold * 4 + hold[:9])
        assert (memory.connection.in_flight, memory.transport.reading) == (4, False)
        exchanges = [memory.handler.next("request") for _ in range(4)]
        exchanges[0].respond(200, b"", [])
        assert (memory.connection.in_flight, memory.transport.reading) == (3, False)
        exchanges[1].respond(200, b"", [])
        assert (memory.connection.in_flight, memory.transport.reading) == (4, False)
        for exchange in exchanges[2:]:
            exchange.respond(200, b"", [])
        assert (memory.connection.in_flight, memory.transport.reading) == (3, True)
        memory.receive(hold[9:])
        assert memory.connection.in_flight == 4


def test_a_request_in_flight_does_not_stop_the_next(loop_kind: str) -> None:
    """Pipelined requests reach the handler together, so that they may share a batch."""
    with serve(loop_kind) as server, server.connect() as client:
        client.send(b"GET /hold HTTP/1.1\r\n\r\n" * 3)
        exchanges = [server.handler.next("request") for _ in range(3)]
        for number in (2, 0, 1):
            server.call(exchanges[number].respond, 200, b"", [b"%d" % number])
        assert [client.response().body for _ in range(3)] == [b"0", b"1", b"2"]
