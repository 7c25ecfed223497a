"""Binding, detecting the protocol, counting connections, and telling what is wrong with an address."""

import asyncio
import socket
from pathlib import Path

import pytest

from shoal.errors import InvalidArgumentError, ShoalError, UnavailableError
from shoal.transport import listener as listener_module
from shoal.transport.connection import ConnectionContext, Limits, describe_peer
from shoal.transport.http1 import Http1Connection
from shoal.transport.listener import HTTP2_PREFACE, Listener
from tests.transport.http1_support import EchoHandler, RawClient, serve

GET = b"GET / HTTP/1.1\r\n\r\n"


class FakeHttp2(asyncio.BufferedProtocol):
    """Stands in for HTTP/2: sends back what it receives."""

    in_flight = 0

    def __init__(self, context):
        self.context = context
        self.buffer = context.receive_buffer()

    def connection_made(self, transport):
        self.transport = transport
        self.context.opened(self)

    def connection_lost(self, exc):
        self.context.closed(self)

    def get_buffer(self, sizehint):
        return self.buffer

    def buffer_updated(self, nbytes):
        self.feed(bytes(self.buffer[:nbytes]))

    def feed(self, data):
        self.transport.write(data)

    def sweep(self, now):
        pass

    def drain(self):
        self.transport.close()

    def abort(self):
        self.transport.abort()


@pytest.fixture
def http2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_module, "_http2_connection", FakeHttp2)


def start(address: str, port: int = 0) -> None:
    """Start and stop a listener."""

    async def run() -> None:
        listener = Listener(ConnectionContext(asyncio.get_running_loop(), EchoHandler(), None), address, port)
        try:
            await listener.start()
        finally:
            await listener.stop(0)

    asyncio.run(run())


@pytest.mark.usefixtures("http2")
@pytest.mark.parametrize("cut", [1, 3, 4, 23, 24])
def test_http2_is_told_by_its_preface(loop_kind: str, cut: int) -> None:
    """The preface in one read or in two; all bytes reach the connection that takes over."""
    with serve(loop_kind) as server, server.connect() as client:
        client.send(HTTP2_PREFACE[:cut])
        server.until(lambda: server.listener.open_connections == 1)
        client.send(HTTP2_PREFACE[cut:] + b"frames")
        assert client._exactly(30) == HTTP2_PREFACE + b"frames"
        assert server.listener.open_connections == 1


@pytest.mark.parametrize("first", [b"P", b"PR", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r"])
def test_what_only_begins_like_the_preface_is_http1(loop_kind: str, first: bytes) -> None:
    with serve(loop_kind) as server, server.connect() as client:
        client.send(first)
        server.until(lambda: any(c._pending == first for c in server.context.connections if hasattr(c, "_pending")))
        client.send(b"X\r\n\r\n")
        assert client.response().status in (400, 505)


def test_a_post_byte_by_byte_is_http1(loop_kind: str) -> None:
    with serve(loop_kind) as server, server.connect() as client:
        for byte in b"POST /echo HTTP/1.1\r\nContent-Length: 2\r\n\r\nab":
            client.send(bytes([byte]))
        assert client.response().body == b"ab"


def test_a_port_for_grpc_alone_says_so(loop_kind: str) -> None:
    with serve(loop_kind, http=False, grpc=object()) as server, server.connect() as client:
        client.send(GET)
        response = client.response()
        assert response.status == 505
        assert b"gRPC over HTTP/2" in response.body
        assert client.closed()


def test_a_client_that_stops_in_the_preface_is_closed(loop_kind: str) -> None:
    with serve(loop_kind) as server, server.connect() as client, server.connect() as silent:
        client.send(b"PRI *")
        server.until(lambda: server.listener.open_connections == 2)
        server.until(lambda: any(c._pending for c in server.context.connections))
        server.sweep_after(Limits().head_timeout_s + 1)
        assert client.closed()
        server.until(lambda: server.listener.open_connections == 1)
        silent.send(GET)
        assert silent.response().status == 200


def test_silent_connections_are_idle(loop_kind: str) -> None:
    with serve(loop_kind, limits=Limits(idle_timeout_s=5)) as server, server.connect() as client:
        server.until(lambda: server.listener.open_connections == 1)
        server.sweep_after(6)
        assert client.closed()


def test_the_sweep_runs_by_itself(loop_kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_module, "SWEEP_INTERVAL_S", 0.01)
    with serve(loop_kind, limits=Limits(idle_timeout_s=0.02)) as server, server.connect() as client:
        assert client.closed()


def test_a_connection_that_fails_in_the_sweep_is_closed_alone(loop_kind: str) -> None:
    """A bug there is reported, and spares no other connection its time limits."""
    with (
        serve(loop_kind, limits=Limits(idle_timeout_s=5), expect_errors=1) as server,
        server.connect() as client,
        server.connect() as idle,
    ):
        client.send(GET)
        assert client.response().status == 200
        server.call(setattr, server.handler.next("request").connection, "_since", None)
        server.until(lambda: server.listener.open_connections == 2)
        server.sweep_after(6)
        assert client.closed()
        assert idle.closed()


def test_connections_beyond_the_limit_are_closed(loop_kind: str) -> None:
    with serve(loop_kind, limits=Limits(connections=2)) as server, server.connect() as first:
        with server.connect() as second:
            server.until(lambda: server.listener.open_connections == 2)
            with server.connect() as third:
                assert third.closed()
            second.send(GET)
            assert second.response().status == 200
        server.until(lambda: server.listener.open_connections == 1)
        with server.connect() as fourth:
            fourth.send(GET)
            assert fourth.response().status == 200
        first.send(GET)
        assert first.response().status == 200


def test_counts(loop_kind: str) -> None:
    with serve(loop_kind) as server, server.connect() as client, server.connect():
        client.send(b"GET /hold HTTP/1.1\r\n\r\n" * 3)
        for _ in range(3):
            server.handler.next("request")
        server.until(lambda: server.listener.open_connections == 2)
        assert server.listener.in_flight == 3


def test_connections_made_while_draining_are_closed(loop_kind: str) -> None:
    with serve(loop_kind) as server:
        server.call(server.listener.drain)
        with server.connect() as client:
            assert client.closed()


def test_stop_accepting_keeps_open_connections(loop_kind: str) -> None:
    with serve(loop_kind) as server, server.connect() as client:
        client.send(GET)
        client.response()
        server.call(server.listener.stop_accepting)
        with pytest.raises(OSError):
            server.connect()
        client.send(GET)
        assert client.response().status == 200
        assert server.wait(server.listener.closed(0)) is False


def test_nagles_algorithm_is_off(loop_kind: str) -> None:
    """TCP_NODELAY, or every small response would wait for the client's acknowledgement."""
    with serve(loop_kind) as server, server.connect() as client:
        client.send(b"GET /hold HTTP/1.1\r\n\r\n")
        transport = server.handler.next("request").connection._transport
        connection = server.call(transport.get_extra_info, "socket")
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UnavailableError, match=f"cannot listen on 127.0.0.1:{port}: it is already in use; stop"):
            start("127.0.0.1", port)


def test_a_port_is_free_again_at_once(loop_kind: str) -> None:
    """SO_REUSEADDR: a restarted server gets its port although old connections are in TIME_WAIT."""
    with serve(loop_kind) as server:
        with server.connect() as client:
            client.send(b"GET / HTTP/1.0\r\n\r\n")
            client.rest()
        port = server.port
    start("127.0.0.1", port)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("203.0.113.7", "no such address"),
        ("no-such-host.invalid", "no such address"),
        ("unix:/no/such/directory/socket", "cannot listen on unix:/no/such/directory/socket"),
    ],
)
def test_an_address_that_cannot_be_bound(address: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        start(address)


def test_a_port_without_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    async def run() -> None:
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "create_server", refuse)
        await Listener(ConnectionContext(loop, EchoHandler(), None), "127.0.0.1", 80).start()

    with pytest.raises(ShoalError, match=r"cannot listen on 127\.0\.0\.1:80: permission denied"):
        asyncio.run(run())


def test_unix_domain_socket(loop_kind: str, tmp_path: Path) -> None:
    path = tmp_path / "shoal.sock"
    with serve(loop_kind, address=f"unix:{path}") as server:
        assert server.listener.address == f"unix:{path}"
        raw = socket.socket(socket.AF_UNIX)
        raw.connect(str(path))
        with RawClient(raw) as client:
            client.send(GET)
            assert client.response().status == 200
            assert server.handler.next("request").peer == "unix"
    assert not path.exists()


def test_ipv6() -> None:
    with serve("asyncio", address="::1") as server:
        assert server.listener.address == f"[::1]:{server.port}"
        with RawClient(socket.create_connection(("::1", server.port))) as client:
            client.send(GET)
            assert client.response().status == 200
            assert server.handler.next("request").peer.startswith("[::1]:")


def test_several_listeners_may_share_a_port() -> None:
    """SO_REUSEPORT, Triton's ``--reuse-http-port``."""

    async def run() -> None:
        contexts = [ConnectionContext(asyncio.get_running_loop(), EchoHandler(), None) for _ in range(2)]
        first = Listener(contexts[0], "127.0.0.1", 0, reuse_port=True)
        await first.start()
        second = Listener(contexts[1], "127.0.0.1", first.port, reuse_port=True)
        await second.start()
        assert first.port == second.port
        await first.stop(0)
        await second.stop(0)

    asyncio.run(run())


def test_a_loop_that_reads_in_the_background_gets_a_buffer_for_each_connection() -> None:
    """On Windows' proactor loop two connections may be reading at the same time."""
    loop = asyncio.new_event_loop()
    context = ConnectionContext(loop, EchoHandler(), None)
    assert Http1Connection(context).get_buffer(-1).obj is context.scratch.obj
    loop._proactor = object()
    buffers = [Http1Connection(context).get_buffer(-1) for _ in range(2)]
    assert buffers[0].obj is not buffers[1].obj
    loop.close()


def test_describe_peer_without_a_transport() -> None:
    assert describe_peer(None) == "unix"
