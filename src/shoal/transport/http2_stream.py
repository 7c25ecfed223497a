"""What every HTTP/2 stream has, be it a gRPC call or an HTTP exchange, and what it asks of its connection."""

from __future__ import annotations

import logging
import mmap
from typing import Protocol

from shoal.transport.connection import ConnectionContext
from shoal.transport.grpc_deadlines import Deadlines
from shoal.transport.handler import LARGE_BODY_NBYTES
from shoal.transport.http2_flow import Outbox, Sender
from shoal.transport.http2_frames import ErrorCode, window_update
from shoal.transport.http2_head import Http2Head
from shoal.transport.http2_settings import STREAM_WINDOW

log = logging.getLogger(__name__)

_HEAP_NBYTES = 2 * 1024 * 1024
_UNREAD_FACTOR = 16
"""A streamed response may wait for its client with so many times ``unsent_nbytes``; nothing else bounds it."""


class StreamOwner(Protocol):
    """The connection, as its streams see it.

    Attributes:
        context: what the connections of the listener share.
        outbox: the sending side.
        streams: the open streams by their number.
        quick_nbytes: the longest DATA frame that may be taken for a whole small message without a further look.
    """

    context: ConnectionContext
    outbox: Outbox
    quick_nbytes: int
    streams: dict[int, Stream]

    @property
    def peer(self) -> str:
        """The client's address."""

    @property
    def deadlines(self) -> Deadlines:
        """The time limits of this connection's calls."""

    def answered(self) -> None:
        """A message of a stream that goes on is sent."""

    def finished(self, stream: Stream) -> None:
        """The stream's last byte is on its way."""

    def let_finish(self, stream_id: int) -> None:
        """Leave the client a moment to send the rest of a body that is refused."""

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """End the stream with RST_STREAM because of an error of the client."""


class Stream(Sender):
    """One request and its response.

    Attributes:
        connection: whose stream it is.
        outbox: the connection's sending side.
        head: the request's head.
        context: the handler's own.
        received_nbytes: length of the DATA received, padding left out.
        remote_closed: the client has ended its side.
        answered: the handler has given its last word, or may not give one any more.
        unacked_nbytes: DATA received for which no WINDOW_UPDATE was sent yet.
        sweep_mark: a measure of progress and when it last changed, for ``sweep``.
    """

    __slots__ = (
        "answered", "connection", "context", "head", "outbox", "received_nbytes", "remote_closed", "sweep_mark",
        "unacked_nbytes",
    )  # fmt: skip

    def __init__(self, connection: StreamOwner, stream_id: int, head: Http2Head) -> None:
        self.connection = connection
        self.outbox = outbox = connection.outbox
        self.stream_id = stream_id
        self.head = head
        self.context: object = None
        self.send_window = outbox.initial_window
        self.queue = None
        self.queued = self.answered = self.remote_closed = False
        self.queued_nbytes = self.unqueued_nbytes = self.received_nbytes = self.unacked_nbytes = 0
        self.tail = None
        self.sweep_mark: tuple[int, float] | None = None

    @property
    def peer(self) -> str:
        """The client's address, for logs."""
        return self.connection.peer

    @property
    def receiving(self) -> bool:
        """Whether the client owes the rest of something that it began to send."""
        raise NotImplementedError

    def opened(self) -> None:
        """The head has arrived; ``remote_closed`` says whether that was all."""
        raise NotImplementedError

    def data(self, data: bytes | memoryview, start: int, stop: int, ended: bool) -> None:
        """A part of the request's body has arrived, in ``data[start:stop]``; the last one when ``ended``."""
        raise NotImplementedError

    def run(self, data: bytes | memoryview, position: int, nbytes: int, run_nbytes: int) -> bool:  # noqa: ARG002
        """Take a run of DATA frames at once; False to get them one by one.

        Args:
            data: what was received.
            position: where the head of the first frame is.
            nbytes: the length of each frame's content.
            run_nbytes: the length of all frames, heads included.
        """
        return False

    def ended(self) -> None:
        """The client's trailers have arrived."""
        raise NotImplementedError

    def region(self, limit_nbytes: int) -> memoryview | None:
        """Where up to this much of what comes next may be received in place, or None where it has to pass ``data``."""
        raise NotImplementedError

    def advance(self, nbytes: int, ended: bool) -> None:
        """This much was received in place."""
        raise NotImplementedError

    def abandoned(self) -> None:
        """The client reset the stream or its connection is gone; the handler hears of it unless it has answered."""
        raise NotImplementedError

    def stalled(self) -> None:
        """The client did not send the rest of what it began in time."""
        raise NotImplementedError

    def sent(self) -> None:
        """The stream's last byte has been handed to the socket."""
        self.connection.finished(self)

    def count(self, nbytes: int) -> None:
        """Count received DATA."""
        self.received_nbytes += nbytes
        self.use_window(nbytes)

    def use_window(self, nbytes: int) -> None:
        """Received DATA or padding used up so much; let the client send more before half its window is gone."""
        self.unacked_nbytes += nbytes
        if self.unacked_nbytes > STREAM_WINDOW // 2 and not self.remote_closed:
            self.outbox.control(window_update(self.stream_id, self.unacked_nbytes))
            self.unacked_nbytes = 0

    def overflows(self) -> bool:
        """Whether the client has left so much of a streamed response unread that the stream is going to be ended."""
        if self.queued_nbytes <= _UNREAD_FACTOR * self.connection.context.limits.unsent_nbytes:
            return False
        self.connection.context.loop.call_soon(self._overflow)  # later: the handler is in the middle of something
        return True

    def _overflow(self) -> None:
        if self.connection.streams.get(self.stream_id) is self:
            self.connection.reset(self, ErrorCode.ENHANCE_YOUR_CALM)

    def wrong_length(self, ended: bool) -> bool:
        """Whether the body disagrees with ``content-length`` (RFC 9113 section 8.1.1); if so the stream is reset."""
        declared = self.head.content_length
        if declared is None or (self.received_nbytes <= declared and not ended) or self.received_nbytes == declared:
            return False
        self.connection.reset(self, ErrorCode.PROTOCOL_ERROR)
        return True


def new_buffer(nbytes: int, streams: int) -> memoryview:
    """A writable buffer for a message whose length the client has declared but not sent yet.

    A long one, or one of many, is mapped, so that it takes memory only as it fills: declaring much costs the client
    nothing and must not cost us more.
    """
    if nbytes < LARGE_BODY_NBYTES or (nbytes <= _HEAP_NBYTES and streams <= 64):
        return memoryview(bytearray(nbytes))
    return memoryview(mmap.mmap(-1, nbytes))
