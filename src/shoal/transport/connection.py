"""What the connections of one listener share: handlers, limits, the receive buffer, a coarse clock, who is connected.

A connection is an ``asyncio.BufferedProtocol``. It reads into the scratch buffer that all connections of a loop share
(its content is used up before the next read), or, in the middle of a large body, straight into that body's own buffer.

Time limits cost nothing per request: a connection notes ``context.now``, which the listener renews once a second, and
compares when the listener sweeps over its connections.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from shoal.transport.handler import GrpcHandler, HttpHandler
from shoal.transport.http1_head import Http1Head

SCRATCH_NBYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a client may ask of the server; exceeding one is answered or closed, never ignored.

    Attributes:
        head_nbytes: longest request line and headers, or HTTP/2 header block; 431.
        header_count: most header lines of one request; 431.
        body_nbytes: longest HTTP body, before and after decompression; 400, as Triton's ``--http-max-input-size``.
        message_nbytes: longest gRPC message; RESOURCE_EXHAUSTED. Triton allows INT32_MAX.
        head_timeout_s: a client must have sent its whole head this long after its first byte; 408.
        body_timeout_s: longest pause in the middle of a body; 408.
        idle_timeout_s: a connection without a request is closed after this long; 0 for never.
        write_timeout_s: a client that reads nothing for this long while output waits for it is cut off.
        pipelined: requests of one HTTP/1.1 connection in flight at once; reading pauses above it.
        streams: concurrent HTTP/2 streams of one connection.
        unsent_nbytes: reading from a client pauses while it has left more than this unread.
        connections: open connections of one listener, a further one is closed at once; 0 for any number.
    """

    head_nbytes: int = 64 * 1024
    header_count: int = 128
    body_nbytes: int = 64 * 1024 * 1024
    message_nbytes: int = 2**31 - 1
    head_timeout_s: float = 20.0
    body_timeout_s: float = 30.0
    idle_timeout_s: float = 0.0
    write_timeout_s: float = 30.0
    pipelined: int = 128
    streams: int = 1024
    unsent_nbytes: int = 4 * 1024 * 1024
    connections: int = 0


class Connection(Protocol):
    """An open connection, as its listener sees it. Also an ``asyncio.BufferedProtocol``.

    It calls ``context.opened`` from ``connection_made`` and ``context.closed`` from ``connection_lost``. Where the
    protocol was detected from the first bytes, the listener calls ``transport.set_protocol(connection)``,
    ``connection.connection_made(transport)`` and ``connection.feed(data)``, in this order.
    """

    def feed(self, data: bytes) -> None:
        """Bytes that were received before the connection took over from the protocol detection."""

    def sweep(self, now: float) -> None:
        """Enforce the time limits; called about once a second, after ``context.now`` was set to ``now``."""

    def drain(self) -> None:
        """Take no new request, answer those in flight, say so to the client as the protocol allows, then close.

        ``context.draining`` is set before.
        """

    def abort(self) -> None:
        """Close at once."""

    @property
    def in_flight(self) -> int:
        """Requests that are not answered yet."""


@dataclass(slots=True, eq=False)
class ConnectionContext:
    """What the connections of one listener share.

    Attributes:
        loop: the event loop.
        http: serves HTTP requests (over HTTP/1.1 and HTTP/2), or None where the port has no HTTP.
        grpc: serves gRPC calls, or None where the port has no gRPC.
        limits: what a client may ask.
        scratch: the receive buffer; connections take theirs from ``receive_buffer``.
        connections: every open connection.
        heads: HTTP/1.1 request heads by their bytes; bounded by its user.
        draining: set while the server stops; new connections are closed and responses say that the connection ends.
        now: ``loop.time()`` at the last sweep.
        emptied: set whenever no connection is open.
    """

    loop: asyncio.AbstractEventLoop
    http: HttpHandler | None
    grpc: GrpcHandler | None
    limits: Limits = field(default_factory=Limits)
    scratch: memoryview = field(default_factory=lambda: memoryview(bytearray(SCRATCH_NBYTES)))
    connections: set[Connection] = field(default_factory=set)
    heads: dict[bytes, Http1Head] = field(default_factory=dict)
    draining: bool = False
    now: float = field(init=False)
    emptied: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.now = self.loop.time()
        self.emptied.set()

    def opened(self, connection: Connection) -> None:
        """Count a connection that begins."""
        self.connections.add(connection)
        self.emptied.clear()

    def closed(self, connection: Connection) -> None:
        """Forget a connection that ended."""
        self.connections.discard(connection)
        if not self.connections:
            self.emptied.set()

    def receive_buffer(self, nbytes: int = SCRATCH_NBYTES) -> memoryview:
        """A buffer of at most ``nbytes`` to receive in, for ``get_buffer``.

        It is shared where the loop calls ``get_buffer``, reads and calls ``buffer_updated`` in one go (selector loops,
        uvloop), and the connection's own where it reads in the background (the proactor loop of Windows).
        """
        if hasattr(self.loop, "_proactor"):
            return memoryview(bytearray(nbytes))
        return self.scratch[:nbytes]


def describe_peer(transport: asyncio.BaseTransport | None) -> str:
    """The client's address for logs, such as ``127.0.0.1:51234``, ``[::1]:51234`` or ``unix``."""
    address = None if transport is None else transport.get_extra_info("peername")
    if not isinstance(address, tuple):
        return "unix"
    host, port = address[0], address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
