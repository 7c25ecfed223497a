"""An HTTP/2 connection as an ``asyncio.BufferedProtocol``: bytes to frames, frames to streams (RFC 9113).

``_frames`` is the hot path: a request whose header block is in the memo and whose DATA is whole is recognized there,
and whatever else may come goes through ``_frame``. The content of a long DATA frame is used up as it arrives, or even
received in place; every other frame waits until it is whole.
"""

from __future__ import annotations

import asyncio
import logging

from shoal.transport.connection import ConnectionContext
from shoal.transport.handler import LARGE_BODY_NBYTES
from shoal.transport.http2_frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME,
    HEAD_NBYTES,
    HEADERS,
    PADDED,
    PREFACE,
    SETTINGS,
    STREAM_MASK,
    ErrorCode,
    Http2ConnectionError,
    window_update,
)
from shoal.transport.http2_guard import HEAVY
from shoal.transport.http2_headers import HeaderFrames
from shoal.transport.http2_settings import CONNECTION_WINDOW, FRAME_NBYTES
from shoal.transport.http2_stream import Stream
from shoal.transport.http2_sweep import Sweep

log = logging.getLogger(__name__)

_unpack_frame = FRAME.unpack_from
_COPIED_NBYTES = 32 * 1024
"""What was read is copied once, into bytes that are quick to slice, up to this length; more is read through views."""
_CONTROL_NBYTES = 16 * 1024
_STREAMED_NBYTES = 16 * 1024
"""DATA frames at least this long are used up as they arrive; shorter ones wait until they are whole."""
_RUN_NBYTES = 4 * 1024
"""DATA frames at least this long are looked at together with those of the same head that follow them."""
_CLIENT_BITS = 0x80000001
_WAIT = -1


class Http2Connection(HeaderFrames, asyncio.BufferedProtocol):
    """One connection of a client that speaks HTTP/2; see ``connection.Connection``.

    Attributes:
        unacked_nbytes: DATA received for which no WINDOW_UPDATE was sent yet.
    """

    __slots__ = (
        "_body_ended", "_body_left", "_body_padding", "_body_stream", "_in_place", "_prefaced", "_scratch", "_sweep",
        "unacked_nbytes",
    )  # fmt: skip

    def __init__(self, context: ConnectionContext) -> None:
        super().__init__(context)
        self._scratch = context.receive_buffer()
        self._sweep = Sweep()
        self.unacked_nbytes = 0
        self._prefaced = False
        self._body_stream: Stream | None = None
        self._body_left = self._body_padding = 0
        self._body_ended = self._in_place = False

    def sweep(self, now: float) -> None:
        """Look for a client that keeps us waiting; the listener calls this every second or so for each connection.

        Args:
            now: the event loop's time.
        """
        self._sweep.run(self, now)

    # --- bytes in

    def feed(self, data: bytes) -> None:
        """Bytes that were received before the connection took over from the protocol detection."""
        self._receive(self.rest + data if self.rest else data, len(self.rest) + len(data))

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # asyncio's signature
        """Where to read next: the rest of a large body in place, else the shared scratch buffer behind what is left."""
        if self._body_left >= LARGE_BODY_NBYTES and self._body_stream is not None:
            region = self._body_stream.region(self._body_left)
            if region is not None:
                self._in_place = True
                return region
        self._in_place = False
        rest = self.rest
        if not rest:
            return self._scratch
        if 2 * len(rest) > len(self._scratch):
            self._scratch = memoryview(bytearray(4 * len(rest)))
        self._scratch[: len(rest)] = rest
        return self._scratch[len(rest) :]

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have arrived in the buffer."""
        if self._in_place:
            self._receive_in_place(nbytes)
            return
        nbytes += len(self.rest)
        scratch = self._scratch
        self._receive(bytes(scratch[:nbytes]) if nbytes <= _COPIED_NBYTES else scratch, nbytes)

    def eof_received(self) -> bool:
        """The client closed its side; there is nothing more to be had from this connection."""
        return False

    def _receive(self, data: bytes | memoryview, end: int) -> None:
        """Use up the frames in ``data[:end]``; what they are answered with at once goes out in one write."""
        if self.ending:
            return
        self.outbox.scheduled = True
        position = 0
        try:
            if self._body_left or self._body_padding:
                position = self._body(data, 0, end)
            elif not self._prefaced:
                position = self._preface(data, end)
            if self._prefaced:
                position = self._frames(data, position, end)
        except Http2ConnectionError as error:
            self.fail(error.code, str(error))
        except Exception:  # whatever it is, the other connections go on
            log.exception("HTTP/2 connection of %s failed", self.peer)
            self.fail(ErrorCode.INTERNAL_ERROR, "internal error")
        self.rest = bytes(data[position:end]) if position < end and not self.ending else b""
        if position:
            self.turns += 1
        self._acknowledge()
        self.outbox.flush()

    def _receive_in_place(self, nbytes: int) -> None:
        """A part of a large body has arrived in its own buffer."""
        stream = self._body_stream
        assert stream is not None
        self.outbox.scheduled = True
        self._body_left -= nbytes
        try:
            stream.advance(nbytes, self._body_ended and not self._body_left)
        except Http2ConnectionError as error:
            self.fail(error.code, str(error))
        if not self._body_left:
            self._body_stream = None
        self._acknowledge()
        self.outbox.flush()

    def _acknowledge(self) -> None:
        """Let the client send more before it has used up half of the connection's window."""
        if self.unacked_nbytes > CONNECTION_WINDOW // 2 and not self.ending:
            self.outbox.control(window_update(0, self.unacked_nbytes))
            self.unacked_nbytes = 0

    def _preface(self, data: bytes | memoryview, end: int) -> int:
        """Check the client's preface (RFC 9113 section 3.4); returns where the first frame begins."""
        start = bytes(data[: min(end, len(PREFACE))])
        if not PREFACE.startswith(start):
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "the connection does not begin with HTTP/2's preface")
        self._prefaced = len(start) == len(PREFACE)
        return len(PREFACE) if self._prefaced else 0

    # --- frames

    def _frames(self, data: bytes | memoryview, position: int, end: int) -> int:
        """Act on all frames in ``data[position:end]``; returns how far they were used up."""
        streams = self.streams
        heads = self.memo.heads
        while end - position >= HEAD_NBYTES and not self.ending:
            word, flags, stream_id = _unpack_frame(data, position)
            start = position + HEAD_NBYTES
            stop = start + (word >> 8)
            kind = word & 0xFF
            if stop <= end and self.plain:
                if kind == DATA:
                    stream = streams.get(stream_id)
                    if stream is not None and start < stop and not flags & PADDED and not stream.remote_closed:
                        nbytes = stop - start
                        if nbytes >= _RUN_NBYTES and end - stop > HEAD_NBYTES + nbytes and not flags:
                            run_nbytes = _run_nbytes(data, position, nbytes + HEAD_NBYTES, end)
                            if stream.run(data, position, nbytes, run_nbytes):
                                frames = run_nbytes // (nbytes + HEAD_NBYTES)
                                self.unacked_nbytes += frames * nbytes
                                position += run_nbytes
                                continue
                        self.unacked_nbytes += nbytes
                        stream.data(data, start, stop, bool(flags & END_STREAM))
                        position = stop
                        continue
                elif kind == HEADERS and flags & ~END_STREAM == END_HEADERS:
                    head = heads.get(bytes(data[start:stop]))
                    if (
                        head is not None
                        and stream_id > self.last_stream_id
                        and stream_id & _CLIENT_BITS == 1
                        and len(streams) < self._max_streams
                    ):
                        self._open(stream_id, head, bool(flags & END_STREAM))
                        position = stop
                        continue
            used = self._frame(data, position, end)
            if used == _WAIT:
                break
            position = used
        return position

    def _frame(self, data: bytes | memoryview, position: int, end: int) -> int:
        """Act on any frame; returns where the next one begins, or that this one has to be waited for."""
        word, flags, stream_id = _unpack_frame(data, position)
        kind, nbytes = word & 0xFF, word >> 8
        stream_id &= STREAM_MASK
        start = position + HEAD_NBYTES
        stop: int = start + nbytes
        if nbytes > FRAME_NBYTES:
            raise Http2ConnectionError(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {nbytes} bytes is over {FRAME_NBYTES}")
        if not self.settled and kind != SETTINGS:
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "the first frame must be SETTINGS")
        if (self.block is not None) != (kind == CONTINUATION):
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "CONTINUATION is missing or out of place")
        if kind == DATA:
            return self._data(data, position, end)
        if kind > CONTINUATION:
            self.control(kind, flags, stream_id, b"")
            self._body_left = nbytes
            return self._body(data, start, end)
        carries_block = kind in {HEADERS, CONTINUATION}
        if nbytes > (2 * self.context.limits.head_nbytes if carries_block else _CONTROL_NBYTES):
            raise Http2ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, f"a frame of type {kind} has {nbytes} bytes")
        if stop > end:
            return _WAIT
        payload = bytes(data[start:stop])
        if kind == HEADERS:
            self._headers(flags, stream_id, payload)
        elif kind == CONTINUATION:
            self._continuation(flags, stream_id, payload)
        else:
            self.control(kind, flags, stream_id, payload)
        return stop

    # --- DATA

    def _data(self, data: bytes | memoryview, position: int, end: int) -> int:
        """Begin a DATA frame that is padded, incomplete, or not to be expected."""
        word, flags, stream_id = _unpack_frame(data, position)
        start, nbytes = position + HEAD_NBYTES, word >> 8
        stop: int = start + nbytes
        padding = 0
        if flags & PADDED:
            if start >= min(stop, end):
                if nbytes:
                    return _WAIT
                raise Http2ConnectionError(
                    ErrorCode.FRAME_SIZE_ERROR, "a padded DATA frame without a length of padding"
                )
            padding = data[start] + 1
            start += 1
            if padding > nbytes:
                raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "DATA has more padding than content")
        elif stop > end and nbytes < _STREAMED_NBYTES:
            return _WAIT
        stream = self._data_stream(stream_id & STREAM_MASK)
        if stream is None and flags & END_STREAM:
            self.client_finished(stream_id & STREAM_MASK)
        self.unacked_nbytes += nbytes
        if stream is not None and padding:
            stream.use_window(padding)
        if nbytes == padding and not flags & END_STREAM:
            self.nuisance(HEAVY, "too many empty DATA frames")
        self._body_stream = stream
        self._body_left = nbytes - padding
        self._body_padding = max(padding - 1, 0)
        self._body_ended = bool(flags & END_STREAM)
        return self._body(data, start, end)

    def _data_stream(self, stream_id: int) -> Stream | None:
        """The stream that DATA belongs to; None where it is to be discarded (RFC 9113 section 5.1)."""
        if stream_id > self.last_stream_id or not stream_id & 1:
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, f"DATA on stream {stream_id}, which is not open")
        stream = self.streams.get(stream_id)
        if stream is not None and stream.remote_closed:
            self.reset(stream, ErrorCode.STREAM_CLOSED)
            return None
        if stream is None and not self.is_ignored(stream_id):
            self.reset_number(stream_id, ErrorCode.STREAM_CLOSED)
            self.guard.count_reset(self.context.loop.time())
        return stream

    def _body(self, data: bytes | memoryview, position: int, end: int) -> int:
        """Use up what has arrived of the frame begun before; returns how far."""
        nbytes = min(self._body_left, end - position)
        stop = position + nbytes
        self._body_left -= nbytes
        stream = self._body_stream
        if stream is not None:
            ended = self._body_ended and not self._body_left
            if (nbytes or ended) and self.streams.get(stream.stream_id) is stream:
                stream.data(data, position, stop, ended)
        if not self._body_left:
            self._body_stream = None
            skipped = min(self._body_padding, end - stop)
            self._body_padding -= skipped
            stop += skipped
        return stop


def _run_nbytes(data: bytes | memoryview, position: int, stride: int, end: int) -> int:
    """How many bytes from ``position`` on are whole frames of one length and with the same nine bytes at their head."""
    head = data[position : position + HEAD_NBYTES]
    stop = position + stride
    while stop + stride <= end and data[stop : stop + HEAD_NBYTES] == head:
        stop += stride
    return stop - position
