"""What a client may not do: too large, too slow, too idle, too lazy to read."""

import json
from collections.abc import Iterator

import pytest

from shoal.transport.connection import Limits
from shoal.transport.http1 import LINGER_TIMEOUT_S
from tests.transport.http1_support import MemoryConnection, RawClient, serve

GET = b"GET / HTTP/1.1\r\n\r\n"
LIMITS = Limits(
    head_nbytes=300,
    header_count=5,
    body_nbytes=1000,
    head_timeout_s=20,
    body_timeout_s=30,
    idle_timeout_s=60,
    write_timeout_s=40,
)


@pytest.fixture
def memory() -> Iterator[MemoryConnection]:
    with MemoryConnection(limits=LIMITS) as connection:
        yield connection


def refused(client: RawClient) -> tuple[int, str]:
    """The refusal's status and message; the connection must end with it."""
    response = client.response()
    assert response.headers["connection"] == "close"
    assert response.headers["content-type"] == "application/json"
    assert client.rest() == b""
    return response.status, json.loads(response.body)["error"]


def test_a_declared_body_beyond_the_limit_is_refused_before_it_is_read(loop_kind: str) -> None:
    """Triton's status and words for ``--http-max-input-size``, and no ``100 Continue`` for what will be refused."""
    with serve(loop_kind, limits=LIMITS) as server, server.connect() as client:
        client.send(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n")
        assert refused(client) == (
            400,
            (
                "Request size of 1001 bytes exceeds the maximum allowed value of 1000 bytes. "
                "Use --http-max-input-size to increase the limit."
            ),
        )


def test_a_json_body_beyond_the_limit_is_called_so(loop_kind: str) -> None:
    with serve(loop_kind, limits=LIMITS) as server, server.connect() as client:
        client.send(b"POST / HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 1001\r\n\r\n")
        assert refused(client)[1].startswith("Request JSON size of 1001 bytes exceeds the maximum allowed value")


def test_a_body_at_the_limit_is_taken(loop_kind: str) -> None:
    with serve(loop_kind, limits=LIMITS) as server, server.connect() as client:
        client.send(b"POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000)
        client.send(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n" + b"x" * 1000 + b"\r\n0\r\n\r\n")
        assert [client.response().status for _ in range(2)] == [200, 200]


def test_a_chunked_body_beyond_the_limit_is_refused(loop_kind: str) -> None:
    with serve(loop_kind, limits=LIMITS) as server, server.connect() as client:
        client.send(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n" + b"x" * 1000 + b"\r\n1\r\n")
        status, message = refused(client)
        assert (status, "1001 bytes exceeds" in message) == (400, True)


def test_a_client_that_sends_its_whole_body_first_still_reads_the_refusal(loop_kind: str) -> None:
    """RFC 9112 section 9.6: closing at once would reset the connection and destroy the answer."""
    with serve(loop_kind, limits=LIMITS) as server, server.connect() as client:
        nbytes = 30_000_000
        client.send(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % nbytes)
        client.send(bytes(nbytes))
        assert refused(client)[0] == 400


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 300, 431),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 300 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 6 + b"\r\n", 431),
        (b"GET / HTTP/1.1\n\n", 400),
        (b"\x16\x03\x01\x00\xa5\x01", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET / HTTP/3.0\r\n\r\n", 505),
    ],
)
def test_refusals_come_after_the_answers_before_them(loop_kind: str, data: bytes, status: int) -> None:
    with serve(loop_kind, limits=LIMITS) as server, server.connect() as client:
        client.send(GET + data)
        assert client.response().status == 200
        assert refused(client)[0] == status


def test_nothing_after_a_refused_request_is_taken(memory: MemoryConnection) -> None:
    """What follows a request whose end is in doubt may be a smuggled one."""
    memory.receive(b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + GET)
    memory.receive(GET)
    assert memory.requests() == []
    assert memory.transport.sent.count(b"HTTP/1.1") == 1


def test_a_slow_head_is_timed_from_its_first_byte(memory: MemoryConnection) -> None:
    """More bytes do not renew the limit, or one byte a second would hold a connection for ever."""
    memory.receive(b"GET /")
    memory.sweep(1019)
    memory.receive(b" HTTP/1.1\r\n")
    assert memory.transport.sent == b""
    memory.sweep(1020)
    assert memory.transport.sent.startswith(b"HTTP/1.1 408 ")
    assert memory.transport.half_closed


def test_the_time_of_a_head_begins_with_its_own_first_byte(memory: MemoryConnection) -> None:
    memory.sweep(1050)
    memory.receive(GET + b"GET /")
    memory.sweep(1069)
    memory.receive(b" HTTP/1.1\r\n\r\n")
    assert len(memory.requests()) == 2


@pytest.mark.parametrize(
    "head",
    [b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n", b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\na\r\n"],
)
def test_a_slow_body_is_timed_from_its_last_byte(memory: MemoryConnection, head: bytes) -> None:
    memory.receive(head)
    memory.sweep(1029)
    memory.receive(b"abc")
    memory.sweep(1058)
    assert memory.transport.sent == b""
    memory.sweep(1059)
    assert memory.transport.sent.startswith(b"HTTP/1.1 408 ")


def test_an_idle_connection_is_closed(memory: MemoryConnection) -> None:
    memory.sweep(1059)
    memory.receive(GET)
    memory.sweep(1118)
    assert not memory.transport.closed
    memory.sweep(1119)
    assert memory.transport.closed


def test_idle_connections_stay_by_default() -> None:
    with MemoryConnection() as memory:
        memory.sweep(1e9)
        assert not memory.transport.closed


def test_a_connection_that_waits_for_its_answer_is_not_idle(memory: MemoryConnection) -> None:
    memory.receive(b"GET /hold HTTP/1.1\r\n\r\n")
    memory.sweep(1e9)
    assert not memory.transport.closed
    assert memory.transport.sent == b""


def test_a_client_that_reads_nothing_is_cut_off(memory: MemoryConnection) -> None:
    memory.receive(GET)
    memory.transport.unsent_nbytes = 10
    memory.sweep(1001)
    memory.sweep(1040)
    assert not memory.transport.closed
    memory.sweep(1041)
    assert memory.transport.closed


def test_a_client_that_reads_slowly_is_not_cut_off(memory: MemoryConnection) -> None:
    """Progress counts, also when more is written than read."""
    memory.receive(b"GET /hold HTTP/1.1\r\n\r\n")
    exchange = memory.handler.next("request")
    exchange.start(200, b"")
    for now in range(1000, 1400, 30):
        exchange.write(b"x" * 100)
        memory.transport.unsent_nbytes += 99
        memory.sweep(now)
    assert not memory.transport.closed


def test_reading_that_we_paused_does_not_time_out() -> None:
    """A body cannot arrive while nothing is read because the client is behind with reading."""
    with MemoryConnection(limits=LIMITS) as memory:
        memory.receive(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n")
        memory.connection.pause_writing()
        memory.sweep(1100)
        memory.connection.resume_writing()
        memory.sweep(1129)
        assert memory.transport.sent == b""
        memory.sweep(1130)
        assert memory.transport.sent.startswith(b"HTTP/1.1 408 ")


def test_lingering_ends(memory: MemoryConnection) -> None:
    """A refused client that neither closes nor stops sending is closed after a while."""
    memory.receive(b"GET / HTTP/3.0\r\n\r\n")
    memory.receive(b"x" * 1000)
    memory.sweep(1000 + LINGER_TIMEOUT_S - 1)
    assert not memory.transport.closed
    memory.sweep(1000 + LINGER_TIMEOUT_S)
    assert memory.transport.closed


def test_time_limits_over_a_socket(loop_kind: str) -> None:
    with serve(loop_kind, limits=LIMITS) as server, server.connect() as client, server.connect() as idle:
        server.until(lambda: server.listener.open_connections == 2)
        client.send(GET + b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n")
        assert client.response().status == 200
        server.sweep_after(61)
        assert refused(client)[0] == 408
        assert idle.closed()


def test_a_slow_reader_stops_the_server_from_reading_and_is_cut_off(loop_kind: str) -> None:
    """A client that sends requests and reads no answer fills neither the server's memory nor its time."""
    limits = Limits(unsent_nbytes=100_000, pipelined=1000, write_timeout_s=40)
    body = b"x" * 100_000
    request = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    with serve(loop_kind, limits=limits) as server, server.connect() as client:
        client.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            for _ in range(1000):
                client.send(request)
        taken = server.handler.events.qsize()
        assert taken < 500
        server.sweep_after(0)
        server.sweep_after(41)
        server.until(lambda: server.listener.open_connections == 0)
