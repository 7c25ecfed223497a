"""HTTP/2 header blocks: assembled from HEADERS and CONTINUATION, and the requests that begin or end with them."""

from __future__ import annotations

from shoal.transport import hpack_blocks
from shoal.transport.connection import ConnectionContext
from shoal.transport.grpc_call import GrpcStream
from shoal.transport.http2_control import ControlFrames
from shoal.transport.http2_exchange import HttpStream
from shoal.transport.http2_frames import (
    END_HEADERS,
    END_STREAM,
    HAS_PRIORITY,
    PADDED,
    ErrorCode,
    Http2ConnectionError,
)
from shoal.transport.http2_guard import CONTINUATIONS_LIMIT
from shoal.transport.http2_head import Http2Head, MalformedError, read_trailers
from shoal.transport.http2_stream import Stream


class HeaderFrames(ControlFrames):
    """A session that understands HEADERS and CONTINUATION."""

    __slots__ = ("_block_flags", "_block_nbytes", "_block_stream_id", "_grpc", "_http", "_max_streams")

    def __init__(self, context: ConnectionContext) -> None:
        super().__init__(context)
        self._grpc = context.grpc
        self._http = context.http
        self._max_streams = context.limits.streams
        self._block_flags = self._block_nbytes = self._block_stream_id = 0

    def _headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        """A header block, or the first part of one."""
        if not stream_id & 1:
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, f"HEADERS on stream {stream_id}")
        start, stop = 0, len(payload)
        if flags & PADDED:
            start = 1
            stop -= payload[0] if payload else 0
        if flags & HAS_PRIORITY:
            start += 5
        if start > len(payload):
            raise Http2ConnectionError(ErrorCode.FRAME_SIZE_ERROR, "HEADERS is shorter than its flags say")
        if start > stop:
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "HEADERS has more padding than content")
        if flags & END_HEADERS:
            self._block(flags, stream_id, payload[start:stop])
            return
        self.block = [payload[start:stop]]
        self.block_since_s = self.context.loop.time()
        self.plain = False
        self._block_flags, self._block_stream_id, self._block_nbytes = flags, stream_id, stop - start

    def _continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        """A further part of a header block (CVE-2024-27983 and its like: bounded in number and length)."""
        if stream_id != self._block_stream_id or self.block is None:
            raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, "CONTINUATION on another stream than its HEADERS")
        self.block.append(payload)
        self._block_nbytes += len(payload)
        if self._block_nbytes > 2 * self.context.limits.head_nbytes or len(self.block) > CONTINUATIONS_LIMIT:
            raise Http2ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, "the header block is too long")
        if flags & END_HEADERS:
            block = b"".join(self.block)
            self.block = None
            self.plain = not self.refusing
            self._block(self._block_flags, stream_id, block)

    def _block(self, flags: int, stream_id: int, block: bytes) -> None:
        """A whole header block: trailers, a new request, or what comes for a stream that is over."""
        ended = bool(flags & END_STREAM)
        stream = self.streams.get(stream_id)
        if stream is not None:
            self._trailers(stream, block, ended)
        elif stream_id > self.last_stream_id:
            self._request(stream_id, block, ended)
        else:
            self.memo.decode(block)
            if ended:
                self.client_finished(stream_id)
            if not self.is_ignored(stream_id):
                code = ErrorCode.PROTOCOL_ERROR if self.skipped(stream_id) else ErrorCode.STREAM_CLOSED
                raise Http2ConnectionError(code, f"HEADERS on stream {stream_id}, which is closed")

    def _trailers(self, stream: Stream, block: bytes, ended: bool) -> None:
        fields = self.memo.decode(block)
        if stream.remote_closed:
            self.reset(stream, ErrorCode.STREAM_CLOSED)
            return
        try:
            read_trailers(fields)
        except MalformedError:
            ended = False
        if ended:
            stream.ended()
        else:
            self.reset(stream, ErrorCode.PROTOCOL_ERROR)

    def _request(self, stream_id: int, block: bytes, ended: bool) -> None:
        """A new request: its block is decoded in any case, so that the table stays right."""
        try:
            head = self.memo.heads.get(block) or self.memo.head(block)
        except MalformedError:
            head = None
        if self.refusing:
            self.opened(stream_id)
            self.ignore(stream_id)
            return
        if head is not None and len(self.streams) < self._max_streams:
            if head.too_long(self.context.limits):
                self.guard.count_reset(self.context.loop.time())
            self._open(stream_id, head, ended)
            return
        self.opened(stream_id)
        self.reset_number(stream_id, ErrorCode.PROTOCOL_ERROR if head is None else ErrorCode.REFUSED_STREAM)
        self.guard.count_reset(self.context.loop.time())

    def _open(self, stream_id: int, head: Http2Head, ended: bool) -> None:
        """Open a stream for the handler whose request this is."""
        self.opened(stream_id)
        stream: Stream
        if head.grpc:
            if self._grpc is None:
                self._answer_without_handler(stream_id, 501, ended)
                return
            stream = GrpcStream(self, stream_id, head, self._grpc)
        elif self._http is not None:
            stream = HttpStream(self, stream_id, head, self._http)
        else:
            self._answer_without_handler(stream_id, 415, ended)
            return
        stream.remote_closed = ended
        self.streams[stream_id] = stream
        stream.opened()

    def _answer_without_handler(self, stream_id: int, status: int, ended: bool) -> None:
        """A request of a kind that this port does not serve."""
        self.outbox.headers(stream_id, hpack_blocks.response_block(status, b""), END_STREAM)
        if not ended:
            self.reset_number(stream_id, ErrorCode.NO_ERROR)
