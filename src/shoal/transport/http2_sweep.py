"""Clients that keep us waiting: looked for now and then, by what has moved since the last look.

Nothing here costs a request anything: no timer is set and no time is read for one. A sweep compares counters that are
kept anyway with those of the sweep before.
"""

from __future__ import annotations

from shoal.transport.http2_frames import ErrorCode
from shoal.transport.http2_guard import UNREAD_PATIENCE
from shoal.transport.http2_session import Session
from shoal.transport.http2_stream import Stream


class Sweep:
    """What the last sweeps of one connection saw: each counter's value, and since when it has stood still."""

    __slots__ = ("_marks",)

    def __init__(self) -> None:
        self._marks: dict[str, tuple[object, float]] = {}

    def run(self, session: Session, now_s: float) -> None:
        """Look at a connection once.

        Args:
            session: the connection.
            now_s: the event loop's time.
        """
        limits = session.context.limits
        if session.ending or session.transport is None:
            return
        if not session.settled:
            if now_s - session.made_s > limits.head_timeout_s:
                session.fail(ErrorCode.ENHANCE_YOUR_CALM, "the client's preface did not arrive in time")
        elif session.paused:
            self._socket_full(session, now_s)
        elif self._frame_s(session, now_s) > limits.head_timeout_s:
            session.fail(ErrorCode.ENHANCE_YOUR_CALM, "the rest of a frame did not arrive in time")
        elif session.streams:
            self._streams(session, now_s)
        elif session.client_leaves:
            session.end()
        elif 0 < limits.idle_timeout_s < self._still_s("idle", session.last_stream_id, now_s):
            session.drain()

    def _socket_full(self, session: Session, now_s: float) -> None:
        """A client that reads nothing at all is not told so: the socket has no room for it."""
        assert session.transport is not None
        unsent_nbytes = session.transport.get_write_buffer_size()
        if self._still_s("unsent", unsent_nbytes, now_s) > session.context.limits.write_timeout_s:
            session.abort()

    def _frame_s(self, session: Session, now_s: float) -> float:
        """For how long an incomplete header block or frame has kept us waiting."""
        if session.block is not None:
            return now_s - session.block_since_s
        return self._still_s("frame", session.turns if session.rest else None, now_s)

    def _streams(self, session: Session, now_s: float) -> None:
        """Streams whose client sends nothing more, or takes nothing more; all of them at once end the connection."""
        for stream in list(session.streams.values()):
            waiting_s = _stream_still_s(stream, now_s)
            if stream.queue is not None:
                if waiting_s > UNREAD_PATIENCE * session.context.limits.write_timeout_s:
                    if session.outbox.window <= 0:
                        session.fail(ErrorCode.ENHANCE_YOUR_CALM, "the client does not read its responses")
                        return
                    session.reset(stream, ErrorCode.ENHANCE_YOUR_CALM)
            elif waiting_s > session.context.limits.body_timeout_s and not stream.answered:
                stream.stalled()

    def _still_s(self, name: str, value: object, now_s: float) -> float:
        """For how long a counter has had this value; None is never still."""
        known = self._marks.get(name)
        if value is None or known is None or known[0] != value:
            self._marks[name] = (value, now_s)
            return 0.0
        return now_s - known[1]


def _stream_still_s(stream: Stream, now_s: float) -> float:
    """For how long a stream has moved neither way while the client owes it something."""
    if stream.queue is None and not stream.receiving:
        stream.sweep_mark = None
        return 0.0
    moved = stream.received_nbytes + stream.unqueued_nbytes
    if stream.sweep_mark is None or stream.sweep_mark[0] != moved:
        stream.sweep_mark = (moved, now_s)
    return now_s - stream.sweep_mark[1]
