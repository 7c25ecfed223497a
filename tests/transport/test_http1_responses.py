"""From responses to bytes: order, framing, streams, and what is not copied."""

import array
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.transport.connection import Limits
from shoal.transport.handler import LARGE_BODY_NBYTES
from shoal.transport.http1 import STREAM_UNSENT_FACTOR
from tests.transport.http1_support import OCTETS, MemoryConnection, serve

HOLD = b"GET /hold HTTP/1.1\r\n\r\n"


@pytest.fixture
def memory() -> Iterator[MemoryConnection]:
    with MemoryConnection() as connection:
        yield connection


def held(memory: MemoryConnection, request: bytes = HOLD):
    memory.receive(request)
    return memory.handler.next("request")


def test_a_small_response_is_one_write(memory: MemoryConnection) -> None:
    held(memory).respond(200, OCTETS, [b"head", memoryview(b"tail")])
    assert memory.transport.writes == [
        b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 8\r\n\r\nheadtail"
    ]


def test_a_large_buffer_is_written_as_it_is(memory: MemoryConnection) -> None:
    """Large buffers reach the transport uncopied; small neighbours are joined."""
    large = memoryview(bytearray(LARGE_BODY_NBYTES))
    held(memory).respond(200, b"", [b"a", b"b", large, b"c", large, memoryview(array.array("f"))])
    writes = memory.transport.writes
    assert [len(data) for data in writes[1:]] == [LARGE_BODY_NBYTES, 1, LARGE_BODY_NBYTES]
    assert writes[0].endswith(b"Content-Length: %d\r\n\r\nab" % (2 * LARGE_BODY_NBYTES + 3))
    assert writes[1].obj is large.obj
    assert writes[3].obj is large.obj


def test_many_small_buffers_may_make_a_large_body(memory: MemoryConnection) -> None:
    held(memory).respond(200, b"", [b"x" * 1000] * 100)
    assert len(memory.transport.writes) == 1
    assert memory.transport.sent.endswith(b"Content-Length: 100000\r\n\r\n" + b"x" * 100_000)


@pytest.mark.parametrize("count", [3, LARGE_BODY_NBYTES])
def test_lengths_are_in_bytes_whatever_the_buffers_items(memory: MemoryConnection, count: int) -> None:
    floats = array.array("f", range(count))
    held(memory).respond(200, b"", [memoryview(floats)])
    assert memory.transport.sent.endswith(b"Content-Length: %d\r\n\r\n%b" % (4 * count, floats.tobytes()))


@given(st.permutations(range(5)), st.data())
def test_responses_leave_in_the_order_of_the_requests(order: list[int], data: st.DataObject) -> None:
    """RFC 9112 section 9.3.2, whatever the order and the form they are given in."""
    with MemoryConnection() as memory:
        memory.receive(HOLD * 5)
        exchanges = [memory.handler.next("request") for _ in range(5)]
        for number in order:
            if data.draw(st.booleans()):
                exchanges[number].start(200, b"")
        for number in order:
            if exchanges[number].state:
                exchanges[number].write(b"<%d>" % number)
                exchanges[number].finish()
            else:
                exchanges[number].respond(200, b"", [b"<%d>" % number])
        sent = memory.transport.sent
        marks = [sent.index(b"<%d>" % number) for number in range(5)]
        assert marks == sorted(marks)
        assert sent.count(b"HTTP/1.1 200 OK") == 5
        assert memory.connection.in_flight == 0


def test_a_stream_that_waited_goes_on_directly(memory: MemoryConnection) -> None:
    """A stream begun behind another response continues without delay once it is the first."""
    memory.receive(HOLD * 2)
    first, second = memory.handler.next("request"), memory.handler.next("request")
    second.start(200, b"")
    second.write(b"early")
    assert memory.transport.writes == []
    first.respond(200, b"", [])
    assert memory.transport.sent.endswith(b"5\r\nearly\r\n")
    second.write(b"late")
    assert memory.transport.sent.endswith(b"4\r\nlate\r\n")
    second.finish()
    assert memory.transport.sent.endswith(b"0\r\n\r\n")


def test_a_stream_is_chunked(memory: MemoryConnection) -> None:
    exchange = held(memory)
    exchange.start(200, OCTETS)
    exchange.write(b"")
    exchange.write(b"x" * 17)
    exchange.finish()
    head, _, body = memory.transport.sent.partition(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head
    assert b"Content-Length" not in head
    assert body == b"11\r\n" + b"x" * 17 + b"\r\n0\r\n\r\n"
    assert not memory.transport.closed


def test_a_large_part_of_a_stream_is_not_copied(memory: MemoryConnection) -> None:
    large = memoryview(bytearray(LARGE_BODY_NBYTES))
    exchange = held(memory)
    exchange.start(200, b"")
    exchange.write(large)
    exchange.finish()
    assert memory.transport.writes[2].obj is large.obj
    assert memory.transport.sent.endswith(b"10000\r\n" + bytes(large) + b"\r\n0\r\n\r\n")


@pytest.mark.parametrize("connection", [b"", b"Connection: keep-alive\r\n"])
def test_a_stream_to_http_1_0_ends_with_the_connection(memory: MemoryConnection, connection: bytes) -> None:
    exchange = held(memory, b"GET /hold HTTP/1.0\r\n%b\r\n" % connection)
    exchange.start(200, OCTETS)
    exchange.write(b"part")
    exchange.finish()
    assert memory.transport.sent == (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nConnection: close\r\n\r\npart"
    )
    assert memory.transport.closed


@pytest.mark.parametrize(
    ("request_head", "line", "closed"),
    [
        (b"GET /hold HTTP/1.1\r\n\r\n", b"", False),
        (b"GET /hold HTTP/1.1\r\nConnection: close\r\n\r\n", b"Connection: close\r\n", True),
        (b"GET /hold HTTP/1.0\r\n\r\n", b"Connection: close\r\n", True),
        (b"GET /hold HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", b"Connection: keep-alive\r\n", False),
    ],
)
def test_persistence(memory: MemoryConnection, request_head: bytes, line: bytes, closed: bool) -> None:
    held(memory, request_head).respond(200, b"", [])
    assert memory.transport.sent == b"HTTP/1.1 200 OK\r\n%bContent-Length: 0\r\n\r\n" % line
    assert memory.transport.closed is closed


def test_nothing_is_taken_after_connection_close(memory: MemoryConnection) -> None:
    memory.receive(b"GET /a HTTP/1.1\r\nConnection: close\r\n\r\n" + b"GET /b HTTP/1.1\r\n\r\n")
    memory.receive(b"GET /c HTTP/1.1\r\n\r\n")
    assert memory.requests() == [("GET", "/a", b"")]


def test_head_has_the_headers_of_get_and_no_body(memory: MemoryConnection) -> None:
    held(memory, b"HEAD /hold HTTP/1.1\r\n\r\n").respond(200, OCTETS, [b"x" * 100_000])
    assert memory.transport.sent == (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 100000\r\n\r\n"
    )


def test_a_stream_to_head_has_no_body(memory: MemoryConnection) -> None:
    exchange = held(memory, b"HEAD /hold HTTP/1.1\r\n\r\n")
    exchange.start(200, b"")
    exchange.write(b"part")
    exchange.finish()
    assert memory.transport.sent.endswith(b"\r\n\r\n")
    assert memory.transport.sent.count(b"\r\n\r\n") == 1


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_a_body(memory: MemoryConnection, status: int) -> None:
    """RFC 9110 section 8.6: no Content-Length in 204, and none that lies in 304."""
    held(memory).respond(status, OCTETS, [b"x"])
    assert memory.transport.sent.startswith(b"HTTP/1.1 %d " % status)
    assert memory.transport.sent.endswith(OCTETS + b"\r\n")


def test_an_unregistered_status_has_an_empty_reason(memory: MemoryConnection) -> None:
    held(memory).respond(299, b"", [])
    assert memory.transport.sent.startswith(b"HTTP/1.1 299 \r\n")


def test_only_the_first_answer_counts(memory: MemoryConnection) -> None:
    """A second answer would be taken for that of the next request."""
    exchange = held(memory)
    exchange.respond(200, b"", [b"one"])
    sent = memory.transport.sent
    exchange.respond(200, b"", [b"two"])
    exchange.start(200, b"")
    exchange.write(b"three")
    exchange.finish()
    assert memory.transport.sent == sent


def test_a_failing_handler_is_answered_for(loop_kind: str) -> None:
    """A bug in the handler ends one request with 500 and is logged; the connection lives on."""
    with serve(loop_kind, expect_errors=1) as server, server.connect() as client:
        client.send(b"GET /fail HTTP/1.1\r\n\r\nGET /ok HTTP/1.1\r\n\r\n")
        failed = client.response()
        assert failed.status == 500
        assert failed.body == b'{"error":"the server failed to handle the request"}'
        assert client.response().status == 200


def test_a_handler_that_fails_in_a_stream_cuts_it_off(memory: MemoryConnection) -> None:
    """The client must see that the stream is not whole."""

    def fail(exchange):
        exchange.start(200, b"")
        exchange.write(b"part")
        raise RuntimeError("a bug of the handler")

    memory.handler.request = fail
    memory.handler.disconnected = lambda exchange: None
    memory.receive(HOLD)
    assert memory.transport.closed
    assert not memory.transport.sent.endswith(b"0\r\n\r\n")
    assert len(memory.errors) == 1


def test_reading_pauses_while_the_client_reads_too_slowly(memory: MemoryConnection) -> None:
    memory.connection.pause_writing()
    assert memory.transport.reading is False
    memory.receive(b"GET /late HTTP/1.1\r\n\r\n")
    assert memory.requests() == []
    memory.connection.resume_writing()
    assert memory.transport.reading is True
    assert memory.requests() == [("GET", "/late", b"")]


def test_a_stream_to_a_client_that_does_not_keep_up_is_cut_off(memory: MemoryConnection) -> None:
    exchange = held(memory)
    exchange.start(200, b"")
    memory.connection.pause_writing()
    memory.transport.unsent_nbytes = STREAM_UNSENT_FACTOR * Limits().unsent_nbytes
    exchange.write(b"x")
    assert not memory.transport.closed
    memory.transport.unsent_nbytes += 1
    exchange.write(b"x")
    assert memory.transport.closed


def test_peer(loop_kind: str) -> None:
    with serve(loop_kind) as server, server.connect() as client:
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        host, port = client.socket.getsockname()
        assert server.handler.next("request").peer == f"{host}:{port}"
        client.response()


def test_streams_over_a_socket(loop_kind: str) -> None:
    parts = [b"one", b"two" * 50_000, b"three"]
    body = b"|".join(parts)
    with serve(loop_kind) as server, server.connect() as client:
        head = b"POST /stream HTTP/1.%d\r\nContent-Length: %d\r\n\r\n"
        client.send(head % (1, len(body)) + body + head % (0, len(body)) + body)
        chunked, closing = client.response(), client.response()
        assert chunked.headers["transfer-encoding"] == "chunked"
        assert chunked.body == closing.body == b"".join(parts)
        assert closing.headers["connection"] == "close"
