"""A listening socket: it binds, accepts, finds out which protocol a client speaks, and sweeps over its connections."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from pathlib import Path
from typing import cast

from shoal.errors import InvalidArgumentError, ShoalError, UnavailableError
from shoal.transport.connection import Connection, ConnectionContext
from shoal.transport.http1 import Http1Connection
from shoal.transport.http1_exchange import error_body
from shoal.transport.tls import HTTP1, HTTP2

UNIX_PREFIX = "unix:"
BACKLOG = 1024
SWEEP_INTERVAL_S = 1.0
ABORT_TIMEOUT_S = 1.0

HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client sends first that knows that the server speaks HTTP/2 (RFC 9113 section 3.4)."""

_GRPC_ONLY = error_body("this port speaks gRPC over HTTP/2; send HTTP/1.1 requests to the HTTP port")
_GRPC_ONLY_RESPONSE = (
    b"HTTP/1.1 505 HTTP Version Not Supported\r\nContent-Type: application/json\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(_GRPC_ONLY), _GRPC_ONLY)
)


class Listener:
    """Accepts the connections of one address.

    Args:
        context: what its connections share.
        address: a host name or IP address, or ``unix:/path`` for a Unix domain socket.
        port: the port; 0 for any free one; ignored for a Unix domain socket.
        ssl_context: from ``server_ssl_context``, or None for plain text.
        reuse_port: let several processes listen on the port (SO_REUSEPORT, Triton's ``--reuse-http-port``).
    """

    def __init__(
        self,
        context: ConnectionContext,
        address: str,
        port: int,
        *,
        ssl_context: ssl.SSLContext | None = None,
        reuse_port: bool = False,
    ) -> None:
        self.context = context
        self._address = address
        self._port = port
        self._ssl_context = ssl_context
        self._reuse_port = reuse_port
        self._server: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def port(self) -> int:
        """The port that was bound; 0 for a Unix domain socket."""
        return self._port

    @property
    def address(self) -> str:
        """Where it listens, such as ``0.0.0.0:8000``, ``[::1]:8000`` or ``unix:/run/shoal.sock``."""
        if self._address.startswith(UNIX_PREFIX):
            return self._address
        return f"[{self._address}]:{self._port}" if ":" in self._address else f"{self._address}:{self._port}"

    @property
    def open_connections(self) -> int:
        """Connections that are open."""
        return len(self.context.connections)

    @property
    def in_flight(self) -> int:
        """Requests that are not answered yet."""
        return sum(connection.in_flight for connection in self.context.connections)

    async def start(self) -> None:
        """Bind and accept.

        Raises:
            UnavailableError: the port is in use.
            InvalidArgumentError: the address cannot be bound for another reason.
        """
        try:
            if self._address.startswith(UNIX_PREFIX):
                self._server = await self._listen_unix(self._address.removeprefix(UNIX_PREFIX))
            else:
                self._server = await self._listen_tcp()
                self._port = self._server.sockets[0].getsockname()[1]
        except OSError as error:
            raise self._explain(error) from None
        self._tick()

    async def _listen_tcp(self) -> asyncio.Server:
        return await self.context.loop.create_server(
            self._detector,
            self._address,
            self._port,
            backlog=BACKLOG,
            ssl=self._ssl_context,
            ssl_handshake_timeout=self._handshake_timeout_s,
            reuse_address=True,
            reuse_port=self._reuse_port or None,
        )

    async def _listen_unix(self, path: str) -> asyncio.Server:
        return await self.context.loop.create_unix_server(
            self._detector,
            path,
            backlog=BACKLOG,
            ssl=self._ssl_context,
            ssl_handshake_timeout=self._handshake_timeout_s,
        )

    @property
    def _handshake_timeout_s(self) -> float | None:
        return None if self._ssl_context is None else self.context.limits.head_timeout_s

    def _detector(self) -> ProtocolDetector:
        return ProtocolDetector(self.context)

    def _explain(self, error: OSError) -> ShoalError:
        """The error in place of asyncio's."""
        if error.errno == errno.EADDRINUSE:
            return UnavailableError(
                f"cannot listen on {self.address}: it is already in use; stop the other server or choose another port"
            )
        if error.errno in (errno.EACCES, errno.EPERM):
            return InvalidArgumentError(
                f"cannot listen on {self.address}: permission denied; choose a port of 1024 or above"
            )
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            return InvalidArgumentError(
                f"cannot listen on {self.address}: no such address here; use 0.0.0.0 for every address of this machine"
            )
        return InvalidArgumentError(f"cannot listen on {self.address}: {error.strerror or error}")

    def _tick(self) -> None:
        loop = self.context.loop
        self._timer = loop.call_later(SWEEP_INTERVAL_S, self._tick)
        self.sweep(loop.time())

    def sweep(self, now: float) -> None:
        """Let every connection enforce its time limits; runs once a second by itself.

        Args:
            now: ``loop.time()``.
        """
        self.context.now = now
        for connection in tuple(self.context.connections):
            try:
                connection.sweep(now)
            except Exception as error:  # a bug in one connection must not spare the others their limits
                self._give_up(connection, error)

    def _give_up(self, connection: Connection, error: Exception) -> None:
        """Report what a connection raised, and close it."""
        details = {"message": "a connection failed to enforce its time limits", "exception": error}
        self.context.loop.call_exception_handler(details)
        connection.abort()

    def stop_accepting(self) -> None:
        """Close the listening socket; open connections go on."""
        if self._server is not None:
            self._server.close()
            self._server = None
            if self._address.startswith(UNIX_PREFIX):
                Path(self._address.removeprefix(UNIX_PREFIX)).unlink(missing_ok=True)

    def drain(self) -> None:
        """Close idle connections now, and the others when their requests are answered."""
        self.context.draining = True
        for connection in tuple(self.context.connections):
            connection.drain()

    def abort(self) -> None:
        """Close every connection at once."""
        for connection in tuple(self.context.connections):
            connection.abort()

    async def closed(self, timeout_s: float) -> bool:
        """Wait until no connection is open; False when some still are after ``timeout_s``."""
        try:
            await asyncio.wait_for(self.context.emptied.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    async def stop(self, timeout_s: float) -> bool:
        """Stop accepting, drain, and after ``timeout_s`` close what is left; False when something was left."""
        self.stop_accepting()
        self.drain()
        clean = await self.closed(timeout_s)
        self.abort()
        await self.closed(ABORT_TIMEOUT_S)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return clean


class ProtocolDetector(asyncio.BufferedProtocol):
    """A connection until its first bytes, or ALPN, say which protocol it speaks; then it hands over."""

    __slots__ = ("_context", "_pending", "_scratch", "_since", "_transport")

    _transport: asyncio.Transport

    def __init__(self, context: ConnectionContext) -> None:
        self._context = context
        self._scratch = context.receive_buffer()
        self._pending = b""
        self._since = context.now

    in_flight = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; under TLS the protocol may be known already."""
        context = self._context
        self._transport = cast(asyncio.Transport, transport)
        context.opened(self)
        limit = context.limits.connections
        if context.draining or 0 < limit < len(context.connections):
            self._transport.abort()
            return
        tls = transport.get_extra_info("ssl_object")
        protocol = None if tls is None else tls.selected_alpn_protocol()
        if protocol == HTTP2:
            self._hand_over(_http2_connection(context), b"")
        elif protocol == HTTP1 and context.http is not None:
            self._hand_over(Http1Connection(context), b"")

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 # the size is asyncio's guess
        """Where to receive."""
        return self._scratch

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes arrived; the beginning of the HTTP/2 preface waits for the rest of it."""
        self.feed(bytes(self._scratch[:nbytes]))

    def feed(self, data: bytes) -> None:
        """Look at the first bytes."""
        if not self._pending:
            self._since = self._context.now
        data = self._pending + data
        if data.startswith(HTTP2_PREFACE):
            self._hand_over(_http2_connection(self._context), data)
        elif HTTP2_PREFACE.startswith(data):
            self._pending = data
        elif self._context.http is not None:
            self._hand_over(Http1Connection(self._context), data)
        else:
            self._transport.write(_GRPC_ONLY_RESPONSE)
            self._transport.close()

    def _hand_over(self, connection: Connection, data: bytes) -> None:
        transport = self._transport
        protocol = cast(asyncio.BufferedProtocol, connection)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        self._context.closed(self)
        if data:
            connection.feed(data)

    def eof_received(self) -> bool:
        """The client left before it said anything."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 # why it ended makes no difference
        """End."""
        self._context.closed(self)

    def sweep(self, now: float) -> None:
        """Close a client that says nothing, or not enough."""
        limits = self._context.limits
        timeout_s = limits.head_timeout_s if self._pending else limits.idle_timeout_s
        if 0 < timeout_s <= now - self._since:
            self._transport.close()

    def drain(self) -> None:
        """Close."""
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()


def _http2_connection(context: ConnectionContext) -> Connection:
    from shoal.transport.http2 import Http2Connection  # noqa: PLC0415 # hpack is not loaded for HTTP/1.1 alone

    return Http2Connection(context)
