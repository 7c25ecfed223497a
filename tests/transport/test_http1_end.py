"""How connections end: clients that leave, servers that stop, and nobody left waiting."""

import gc
import socket
import struct

import pytest

from shoal.transport.http1 import Http1Connection
from shoal.transport.http1_exchange import Http1Exchange
from tests.transport.http1_support import EchoHandler, MemoryConnection, Server, serve

GET = b"GET / HTTP/1.1\r\n\r\n"
HOLD = b"GET /hold HTTP/1.1\r\n\r\n"


def reset(client) -> None:
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.socket.close()


def half_close(client) -> None:
    client.socket.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("leave", [reset, half_close, lambda client: client.socket.close()])
def test_a_client_that_leaves_is_noticed_while_its_requests_are_in_flight(loop_kind: str, leave) -> None:
    """The handler hears of every request that it has not answered, and a late answer does nothing."""
    with serve(loop_kind) as server, server.connect() as client:
        client.send(HOLD * 2 + GET)
        exchanges = [server.handler.next("request") for _ in range(3)]
        leave(client)
        assert [server.handler.next("disconnected") for _ in range(2)] == exchanges[:2]
        server.call(exchanges[0].respond, 200, b"", [b"late"])
        server.call(exchanges[1].start, 200, b"")
        server.until(lambda: server.listener.open_connections == 0)
        assert server.handler.events.empty()


def test_a_client_that_leaves_in_the_middle_of_a_stream(loop_kind: str) -> None:
    with serve(loop_kind) as server, server.connect() as client:
        client.send(HOLD)
        exchange = server.handler.next("request")
        server.call(exchange.start, 200, b"")
        server.call(exchange.write, b"part")
        client.socket.close()
        assert server.handler.next("disconnected") is exchange
        server.call(exchange.write, b"late")
        server.call(exchange.finish)


def test_what_was_answered_before_the_client_half_closed_reaches_it(loop_kind: str) -> None:
    """Closing one's side right after the request (``nc -N``) is fine where the answer needs no waiting."""
    with serve(loop_kind) as server, server.connect() as client:
        body = b"x" * 3_000_000
        client.send(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        half_close(client)
        assert client.response().body == body
        assert client.closed()


@pytest.mark.parametrize("data", [b"", b"GET / HT", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc"])
def test_a_client_that_leaves_before_its_request_is_whole(loop_kind: str, data: bytes) -> None:
    with serve(loop_kind) as server, server.connect() as client:
        client.send(data)
        client.socket.close()
        server.until(lambda: server.listener.open_connections == 0)
        assert server.handler.events.empty()


def test_a_handler_that_fails_in_disconnected_is_reported_for_each_request() -> None:
    class Failing(EchoHandler):
        def disconnected(self, exchange):
            super().disconnected(exchange)
            raise RuntimeError("a bug of the handler")

    with MemoryConnection(Failing()) as memory:
        memory.receive(HOLD * 2)
        memory.connection.connection_lost(None)
        assert len(memory.errors) == 2


def test_draining_closes_idle_connections_at_once(loop_kind: str) -> None:
    with serve(loop_kind) as server, server.connect() as fresh, server.connect() as used:
        used.send(GET)
        used.response()
        server.until(lambda: server.listener.open_connections == 2)
        server.call(server.listener.drain)
        assert fresh.closed()
        assert used.closed()
        assert server.wait(server.listener.closed(10)) is True


def test_draining_answers_what_is_in_flight(loop_kind: str) -> None:
    """Every request in flight is answered; the last answer says that the connection ends."""
    with serve(loop_kind) as server, server.connect() as client:
        client.send(HOLD * 2)
        first, second = server.handler.next("request"), server.handler.next("request")
        server.call(server.listener.drain)
        assert server.listener.in_flight == 2
        server.call(second.respond, 200, b"", [b"second"])
        server.call(first.respond, 200, b"", [b"first"])
        one, two = client.response(), client.response()
        assert (one.body, one.headers.get("connection")) == (b"first", None)
        assert (two.body, two.headers.get("connection")) == (b"second", "close")
        assert client.closed()


@pytest.mark.parametrize("cut", [5, 40, 45])
def test_draining_answers_a_request_that_has_begun_to_arrive(loop_kind: str, cut: int) -> None:
    request = b"POST /hold HTTP/1.1\r\nContent-Length: 9\r\n\r\nabcdefghi"
    with serve(loop_kind) as server, server.connect() as client:
        client.send(GET + request[:cut])
        client.response()
        server.handler.next("request")
        server.until(lambda: all(connection._receiving for connection in server.context.connections))
        server.call(server.listener.drain)
        client.send(request[cut:])
        server.call(server.handler.next("request").respond, 200, b"", [])
        assert client.response().headers["connection"] == "close"
        assert client.closed()


def test_draining_lets_a_stream_finish(loop_kind: str) -> None:
    with serve(loop_kind) as server, server.connect() as client:
        client.send(HOLD)
        exchange = server.handler.next("request")
        server.call(exchange.start, 200, b"")
        server.call(server.listener.drain)
        server.call(exchange.write, b"part")
        server.call(exchange.finish)
        assert client.response().body == b"part"
        assert client.closed()


def test_requests_that_arrive_while_draining_are_dropped_but_the_answer_is_read(loop_kind: str) -> None:
    """A client that pipelines into a closing connection still gets what was in flight: the close waits for it."""
    with serve(loop_kind) as server, server.connect() as client:
        client.send(HOLD)
        exchange = server.handler.next("request")
        server.call(server.listener.drain)
        client.send(GET * 10)
        server.until(lambda: all(connection._unread for connection in server.context.connections))
        server.call(exchange.respond, 200, b"", [b"answer"])
        assert client.response().body == b"answer"
        assert client.closed()
        assert server.handler.events.empty()


def test_stop_cuts_off_what_does_not_end_in_time(loop_kind: str) -> None:
    with serve(loop_kind) as server, server.connect() as client:
        client.send(HOLD)
        exchange = server.handler.next("request")
        assert server.wait(server.listener.stop(0.01)) is False
        assert server.handler.next("disconnected") is exchange
        assert client.closed()


def test_nothing_is_left_of_ended_connections(loop_kind: str) -> None:
    """No cycle or table keeps a connection or an exchange after its end."""

    def count() -> int:
        gc.collect()
        return sum(isinstance(thing, Http1Connection | Http1Exchange) for thing in gc.get_objects())

    def run(server: Server) -> None:
        for leave in (reset, half_close, lambda client: client.socket.close()):
            with server.connect() as client:
                client.send(HOLD * 2 + GET)
                for _ in range(3):
                    server.handler.next("request")
                leave(client)
                for _ in range(2):
                    server.handler.next("disconnected")
        server.until(lambda: server.listener.open_connections == 0)

    before = count()
    with serve(loop_kind) as running:
        run(running)
    del running
    assert count() == before
