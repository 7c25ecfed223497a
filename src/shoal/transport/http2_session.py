"""The life of an HTTP/2 connection: its streams, how they end, and how it ends (RFC 9113 sections 5.1, 5.4 and 6.8)."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import cast

from shoal.transport.connection import ConnectionContext, describe_peer
from shoal.transport.grpc_deadlines import Deadlines
from shoal.transport.grpc_reader import PREFIX_NBYTES
from shoal.transport.handler import LARGE_BODY_NBYTES
from shoal.transport.hpack_memo import HeadMemo
from shoal.transport.http2_flow import Outbox
from shoal.transport.http2_frames import PING, STREAM_MASK, ErrorCode, frame, goaway, rst_stream
from shoal.transport.http2_guard import Guard
from shoal.transport.http2_settings import announcement
from shoal.transport.http2_stream import Stream

_FIRST_STREAM = 1
_LINGER_S = 1.0
"""How long a connection that said GOAWAY still reads, so that the client gets to see it (a reset would discard it)."""
_DRAIN_ANSWER_S = 1.0
_DEBUG_NBYTES = 200
_REMEMBERED_STREAMS = 1024
_FINISH_S = 1.0
_MOST_FINISHING = 16
"""For so long, and on so many streams at once, the rest of a refused body is read and dropped. It is not longer than a
stream's window, for nothing more is granted. Some clients lose an answer that RST_STREAM overtakes while they send."""
DRAIN_PING = b"shoal-dr"
"""Sent behind the first GOAWAY of two: once it is answered, the client has seen that GOAWAY."""
_CLIENT_FAULTS = {
    ErrorCode.PROTOCOL_ERROR,
    ErrorCode.STREAM_CLOSED,
    ErrorCode.FLOW_CONTROL_ERROR,
    ErrorCode.FRAME_SIZE_ERROR,
}


class Session:
    """The state of one HTTP/2 connection; what reads frames and what sends them are built around it.

    Attributes:
        context: what the connections of the listener share.
        outbox: the sending side.
        streams: the open streams by their number.
        memo: the header decoder.
        guard: counters against abuse.
        transport: the socket; None before it is there and after it is gone.
        last_stream_id: the highest stream that the client has opened; -1 before the first.
        settled: whether the client's preface and first SETTINGS have arrived.
        refusing: whether new streams are ignored, after the last GOAWAY.
        client_leaves: whether the client said GOAWAY; the sweep closes then what is idle.
        ending: whether everything that still comes is discarded.
        plain: whether a frame may be taken for a part of a plain request without a further look.
        quick_nbytes: the longest DATA frame that may be taken for a whole small message without a further look.
        paused: whether the socket is full.
        rest: the start of a frame that has not arrived whole.
        turns: how many reads have completed a frame.
        block: fragments of a header block that CONTINUATION will complete; None when there is none.
        block_since_s: when it began.
        made_s: when the connection was made.
    """

    __slots__ = (
        "_deadlines", "_draining", "_finishing", "_ignored", "_last_served", "_peer", "_skipped", "_timer", "block",
        "block_since_s", "client_leaves", "context", "ending", "guard", "last_stream_id", "made_s", "memo", "outbox",
        "paused", "plain", "quick_nbytes", "refusing", "rest", "settled", "streams", "transport", "turns",
    )  # fmt: skip

    def __init__(self, context: ConnectionContext) -> None:
        self.context = context
        self.made_s = context.loop.time()
        self.outbox = Outbox(context.loop)
        self.streams: dict[int, Stream] = {}
        self.memo = HeadMemo(context.limits)
        self.guard = Guard(self.made_s)
        self.transport: asyncio.Transport | None = None
        self.last_stream_id = _FIRST_STREAM - 2
        self.settled = self.refusing = self.ending = self.paused = False
        self.plain = False
        self.quick_nbytes = PREFIX_NBYTES + min(LARGE_BODY_NBYTES - 1, context.limits.message_nbytes)
        self.rest = b""
        self.turns = 0
        self.block: list[bytes] | None = None
        self.block_since_s = 0.0
        self.client_leaves = self._draining = False
        self._deadlines: Deadlines | None = None
        self._peer: str | None = None
        self._ignored: dict[int, None] = {}
        self._finishing: dict[int, asyncio.TimerHandle] = {}
        self._last_served = STREAM_MASK
        self._skipped: deque[tuple[int, int]] = deque(maxlen=64)
        self._timer: asyncio.TimerHandle | None = None

    # --- the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say our settings; a server that is stopping takes no new connection."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self.outbox.attach(self.transport)
        self.context.opened(self)
        if self.context.draining:
            transport.close()
            self.ending = True
            return
        self.transport.set_write_buffer_limits(high=self.context.limits.unsent_nbytes)
        self.outbox.control(announcement(self.context.limits))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        """Tell the handlers of all open streams, once."""
        self.ending = True
        self.transport = None
        self.context.closed(self)
        self.outbox.attach(None)
        if self._timer is not None:
            self._timer.cancel()
        for timer in self._finishing.values():
            timer.cancel()
        self._finishing.clear()
        self._abandon_streams()
        if self._deadlines is not None:
            self._deadlines.close()

    def pause_writing(self) -> None:
        """The client leaves too much unread: hold back answers and read nothing more from it."""
        self.paused = True
        self.outbox.pause(paused=True)
        if self.transport is not None and not self.ending:
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        """The client reads again."""
        self.paused = False
        self.outbox.pause(paused=False)
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    # --- what the listener asks

    def feed(self, data: bytes) -> None:
        """See ``connection.Connection``."""
        raise NotImplementedError

    def sweep(self, now: float) -> None:
        """See ``connection.Connection``."""
        raise NotImplementedError

    @property
    def in_flight(self) -> int:
        """Streams that are not done yet."""
        return len(self.streams)

    @property
    def peer(self) -> str:
        """The client's address."""
        if self._peer is None:
            self._peer = describe_peer(self.transport)
        return self._peer

    @property
    def deadlines(self) -> Deadlines:
        """The time limits of this connection's calls."""
        if self._deadlines is None:
            self._deadlines = Deadlines(self.context.loop)
        return self._deadlines

    def drain(self) -> None:
        """Say GOAWAY without refusing what is on its way; the last GOAWAY and the close follow by themselves."""
        if self._draining or self.ending:
            return
        self._draining = True
        if not self.settled:
            self.end()
            return
        self.outbox.control(goaway(STREAM_MASK, ErrorCode.NO_ERROR, b"server is stopping"))
        self.outbox.control(frame(PING, 0, 0, DRAIN_PING))
        self._timer = self.context.loop.call_later(_DRAIN_ANSWER_S, self.refuse_new)

    def abort(self) -> None:
        """Close at once."""
        self.ending = True
        if self.transport is not None:
            self.transport.abort()

    # --- streams

    def opened(self, stream_id: int) -> None:
        """The client has used this stream number, and by that all lower ones."""
        if stream_id != self.last_stream_id + 2:
            self._skipped.append((self.last_stream_id, stream_id))
        self.last_stream_id = stream_id

    def skipped(self, stream_id: int) -> bool:
        """Whether the client passed over this stream number."""
        return any(low < stream_id < high for low, high in self._skipped)

    def answered(self) -> None:
        """A message of a stream that goes on is sent: while such come, a gRPC client pings to measure the bandwidth."""
        self.guard.nuisance = 0

    def finished(self, stream: Stream) -> None:
        """The stream's last byte is on its way; a client that still sends is told to stop (RFC 9113 section 8.1)."""
        self.guard.nuisance = 0
        stream_id = stream.stream_id
        self.streams.pop(stream_id, None)
        if not stream.remote_closed:
            if stream_id in self._finishing:
                self.ignore(stream_id)
            else:
                self.reset_number(stream_id, ErrorCode.NO_ERROR)
        elif self._finishing:
            self.client_finished(stream_id)
        if self.refusing:
            self._end_when_done()

    def let_finish(self, stream_id: int) -> None:
        """The stream is about to be answered before its client has sent all: leave it a moment to do so."""
        if len(self._finishing) < _MOST_FINISHING:
            self._finishing[stream_id] = self.context.loop.call_later(_FINISH_S, self._finish, stream_id)

    def _finish(self, stream_id: int) -> None:
        """The client still sends: tell it to stop."""
        del self._finishing[stream_id]
        if not self.ending and stream_id not in self.streams:
            self.reset_number(stream_id, ErrorCode.NO_ERROR)

    def client_finished(self, stream_id: int) -> None:
        """The client has ended or given up a stream that is over for us."""
        timer = self._finishing.pop(stream_id, None)
        if timer is not None:
            timer.cancel()

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """End a stream with RST_STREAM.

        Raises:
            Http2ConnectionError: it was the client's fault once too often.
        """
        self.reset_number(stream.stream_id, code)
        self.forget(stream)
        if code in _CLIENT_FAULTS:
            self.guard.count_reset(self.context.loop.time())

    def forget(self, stream: Stream) -> None:
        """The stream is over before its time; its handler is told."""
        self.streams.pop(stream.stream_id, None)
        self.client_finished(stream.stream_id)
        self.outbox.drop(stream)
        stream.abandoned()
        if self.refusing:
            self._end_when_done()

    def reset_number(self, stream_id: int, code: ErrorCode) -> None:
        """Send RST_STREAM, and remember to ignore what the client sent before it got that."""
        self.ignore(stream_id)
        self.outbox.control(rst_stream(stream_id, code))

    def ignore(self, stream_id: int) -> None:
        """Remember that frames on this stream are ignored."""
        ignored = self._ignored
        ignored[stream_id] = None
        if len(ignored) > _REMEMBERED_STREAMS:
            del ignored[next(iter(ignored))]

    def is_ignored(self, stream_id: int) -> bool:
        """Whether frames on this stream are ignored, as far as we remember."""
        return stream_id in self._ignored

    # --- the end

    def refuse_new(self) -> None:
        """Say the last GOAWAY; streams above its number are ignored from here on, and the last one that ends closes."""
        if not self.refusing and not self.ending:
            self.refusing = True
            self.plain = False
            self._last_served = max(self.last_stream_id, 0)
            self.outbox.control(goaway(self._last_served, ErrorCode.NO_ERROR))
            self._end_when_done()

    def fail(self, code: ErrorCode, message: str) -> None:
        """End the connection because the client broke a rule: GOAWAY, and all streams are over."""
        if self.ending:
            return
        self.ending = True
        last_stream_id = min(max(self.last_stream_id, 0), self._last_served)
        self.outbox.control(goaway(last_stream_id, code, message.encode()[:_DEBUG_NBYTES]))
        self._abandon_streams()
        self.end()

    def end(self) -> None:
        """Write what is left, close our side, and leave the client a moment to read it."""
        transport = self.transport
        self.ending = True
        self.plain = False
        if transport is None or transport.is_closing():
            return
        self.outbox.flush()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.context.loop.call_later(_LINGER_S, transport.abort)
        if transport.can_write_eof():
            transport.write_eof()
        else:
            transport.close()

    def _end_when_done(self) -> None:
        if not self.streams:
            self.context.loop.call_soon(self._end_if_done)

    def _end_if_done(self) -> None:
        if not self.streams and not self.ending:
            self.end()

    def _abandon_streams(self) -> None:
        """All streams are over; handlers are told."""
        streams = list(self.streams.values())
        self.streams.clear()
        for stream in streams:
            self.outbox.drop(stream)
            stream.abandoned()
