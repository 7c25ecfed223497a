"""HTTP/2 frames that are about the connection, not about a request's content (RFC 9113 section 6)."""

from __future__ import annotations

from shoal.transport import http2_settings as settings
from shoal.transport.http2_frames import (
    ACK,
    GOAWAY,
    MAX_WINDOW,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    STREAM_MASK,
    UINT32,
    WINDOW_UPDATE,
    ErrorCode,
    Http2ConnectionError,
    frame,
)
from shoal.transport.http2_guard import HEAVY, LIGHT
from shoal.transport.http2_session import DRAIN_PING, Session

_DEFAULT_TABLE_NBYTES = 4096
_NAMES = {
    PRIORITY: "PRIORITY",
    RST_STREAM: "RST_STREAM",
    SETTINGS: "SETTINGS",
    PING: "PING",
    WINDOW_UPDATE: "WINDOW_UPDATE",
}


class ControlFrames(Session):
    """A session that understands control frames."""

    __slots__ = ()

    def control(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """Act on a control frame; one of an unknown type is ignored (RFC 9113 section 5.5).

        Raises:
            Http2ConnectionError: the frame breaks a rule that ends the connection.
        """
        if kind == WINDOW_UPDATE:
            self._window_update(stream_id, payload)
        elif kind == RST_STREAM:
            self._rst_stream(stream_id, payload)
        elif kind == PING:
            self._ping(flags, stream_id, payload)
        elif kind == SETTINGS:
            self._settings(flags, stream_id, payload)
        elif kind == GOAWAY:
            self._goaway(stream_id, payload)
        elif kind == PRIORITY:
            self._priority(stream_id, payload)
        elif kind == PUSH_PROMISE:
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "a client may not send PUSH_PROMISE")
        else:
            self.nuisance(LIGHT, "too many unknown frames")

    def nuisance(self, weight: int, what: str) -> None:
        """Count a frame that serves no request."""
        self.guard.count(weight, self.context.loop.time(), what)

    def _window_update(self, stream_id: int, payload: bytes) -> None:
        _check_length(WINDOW_UPDATE, payload, 4)
        self.nuisance(LIGHT, "too many WINDOW_UPDATE frames")
        increment = UINT32.unpack(payload)[0] & STREAM_MASK
        if stream_id == 0:
            if not increment:
                raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE with an increment of 0")
            self.outbox.grant(increment)
            return
        self._check_not_idle(WINDOW_UPDATE, stream_id)
        stream = self.streams.get(stream_id)
        if stream is None:
            return
        if not increment:
            self.reset(stream, ErrorCode.PROTOCOL_ERROR)
            return
        stream.send_window += increment
        if stream.send_window > MAX_WINDOW:
            self.reset(stream, ErrorCode.FLOW_CONTROL_ERROR)
        else:
            self.outbox.wake(stream)

    def _rst_stream(self, stream_id: int, payload: bytes) -> None:
        _check_length(RST_STREAM, payload, 4)
        self._check_not_idle(RST_STREAM, stream_id)
        stream = self.streams.get(stream_id)
        if stream is None or stream.answered:
            self.nuisance(LIGHT, "too many RST_STREAM frames")
        if stream is None:
            self.client_finished(stream_id)
            return
        unanswered = not stream.answered
        self.forget(stream)
        if unanswered:
            self.guard.count_reset(self.context.loop.time())

    def _ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        _check_length(PING, payload, 8)
        _check_connection(PING, stream_id)
        self.nuisance(HEAVY, "too_many_pings")
        if not flags & ACK:
            self.outbox.control(frame(PING, ACK, 0, payload))
        elif payload == DRAIN_PING:
            self.refuse_new()

    def _goaway(self, stream_id: int, payload: bytes) -> None:
        _check_connection(GOAWAY, stream_id)
        if len(payload) < 8:
            raise Http2ConnectionError(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY is shorter than 8 bytes")
        self.nuisance(LIGHT, "too many GOAWAY frames")
        self.client_leaves = True

    def _priority(self, stream_id: int, payload: bytes) -> None:
        """Priorities are deprecated and without effect (RFC 9113 section 5.3.2)."""
        if stream_id == 0:
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0")
        self.nuisance(LIGHT, "too many PRIORITY frames")
        if len(payload) != 5:
            stream = self.streams.get(stream_id)
            if stream is None:
                _check_length(PRIORITY, payload, 5)
            else:
                self.reset(stream, ErrorCode.FRAME_SIZE_ERROR)

    def _settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        _check_connection(SETTINGS, stream_id)
        if flags & ACK:
            _check_length(SETTINGS, payload, 0)
            if not self.settled:
                raise Http2ConnectionError(
                    ErrorCode.PROTOCOL_ERROR, "the client's first SETTINGS is an acknowledgement"
                )
            return
        self.nuisance(HEAVY, "too many SETTINGS frames")
        for identifier, value in settings.parse(payload):
            self._apply(identifier, value)
        self.outbox.control(frame(SETTINGS, ACK, 0))
        if not self.settled:
            self.settled = True
            self.plain = not self.refusing

    def _apply(self, identifier: int, value: int) -> None:
        outbox = self.outbox
        if identifier == settings.INITIAL_WINDOW_SIZE:
            self._move_windows(value - outbox.initial_window)
            outbox.initial_window = value
        elif identifier == settings.MAX_FRAME_SIZE:
            outbox.set_frame_nbytes(value)
        elif identifier == settings.HEADER_TABLE_SIZE and value < _DEFAULT_TABLE_NBYTES:
            outbox.owe_shrink()

    def _move_windows(self, change: int) -> None:
        """A new initial window moves the windows of all open streams, even below 0 (RFC 9113 section 6.9.2)."""
        for stream in self.streams.values():
            stream.send_window += change
            if stream.send_window > MAX_WINDOW:
                raise Http2ConnectionError(
                    ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE overflows a stream's window"
                )
            self.outbox.wake(stream)

    def _check_not_idle(self, kind: int, stream_id: int) -> None:
        """Raise for a frame on a stream that the client has not opened (RFC 9113 section 5.1)."""
        if stream_id == 0 or stream_id > self.last_stream_id or not stream_id & 1:
            raise Http2ConnectionError(
                ErrorCode.PROTOCOL_ERROR, f"{_NAMES[kind]} on stream {stream_id}, which is not open"
            )


def _check_length(kind: int, payload: bytes, nbytes: int) -> None:
    if len(payload) != nbytes:
        raise Http2ConnectionError(ErrorCode.FRAME_SIZE_ERROR, f"{_NAMES[kind]} of {len(payload)} bytes, not {nbytes}")


def _check_connection(kind: int, stream_id: int) -> None:
    if stream_id:
        raise Http2ConnectionError(
            ErrorCode.PROTOCOL_ERROR, f"{_NAMES.get(kind, 'GOAWAY')} on stream {stream_id}, not 0"
        )
