"""What the connections of one listener share: handlers, limits, the receive buffer, and the set of open connections.

A connection is an ``asyncio.BufferedProtocol``. It reads into the scratch buffer that all connections of a loop share
(its content is used up before the next read), or, in the middle of a large body, straight into that body's own buffer.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from shoal.transport.handler import GrpcHandler, HttpHandler

SCRATCH_NBYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a client may ask of the server; exceeding one is answered or closed, never ignored.

    Attributes:
        head_nbytes: longest request line and headers, or HTTP/2 header block; 431.
        body_nbytes: longest HTTP body, before and after decompression; 400, as Triton's ``--http-max-input-size``.
        message_nbytes: longest gRPC message; RESOURCE_EXHAUSTED. Triton allows INT32_MAX.
        head_timeout_s: a client must have sent its whole head this long after its first byte; 408.
        body_timeout_s: longest pause in the middle of a body; 408.
        idle_timeout_s: a connection without a request is closed after this long; 0 for never.
        pipelined: requests of one HTTP/1.1 connection in flight at once; reading pauses above it.
        streams: concurrent HTTP/2 streams of one connection.
        unsent_nbytes: reading from a client pauses while it has left more than this unread.
    """

    head_nbytes: int = 64 * 1024
    body_nbytes: int = 64 * 1024 * 1024
    message_nbytes: int = 2**31 - 1
    head_timeout_s: float = 20.0
    body_timeout_s: float = 30.0
    idle_timeout_s: float = 0.0
    pipelined: int = 128
    streams: int = 1024
    unsent_nbytes: int = 4 * 1024 * 1024


class Connection(Protocol):
    """An open connection, as its listener sees it. Also an ``asyncio.BufferedProtocol``."""

    def feed(self, data: bytes) -> None:
        """Bytes that were received before the connection took over from the protocol detection."""

    def drain(self) -> None:
        """Take no new request, answer those in flight, say so to the client as the protocol allows, then close."""

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
        scratch: the receive buffer.
        connections: every open connection.
        draining: set while the server stops; new connections are closed and responses say that the connection ends.
    """

    loop: asyncio.AbstractEventLoop
    http: HttpHandler | None
    grpc: GrpcHandler | None
    limits: Limits = field(default_factory=Limits)
    scratch: memoryview = field(default_factory=lambda: memoryview(bytearray(SCRATCH_NBYTES)))
    connections: set[Connection] = field(default_factory=set)
    draining: bool = False
