"""An HTTP request on an HTTP/2 stream: the same exchange as over HTTP/1.1, so that REST works over both."""

from __future__ import annotations

from collections.abc import Sequence

from shoal.requests import Buffer
from shoal.transport import hpack_blocks
from shoal.transport.handler import LARGE_BODY_NBYTES, HttpHandler
from shoal.transport.http1_exchange import error_body
from shoal.transport.http1_head import body_too_large
from shoal.transport.http2_frames import DATA, END_HEADERS, END_STREAM, FRAME, HEADERS, ErrorCode
from shoal.transport.http2_head import Http2Head
from shoal.transport.http2_stream import Stream, StreamOwner, log, new_buffer

_CONTENT_LENGTH = hpack_blocks.integer(28, 4, 0)
_CONTINUE = hpack_blocks.block([(b":status", b"100")])
_JSON = b"Content-Type: application/json\r\n"
_NO_BODY_STATUS = {204, 304}


class HttpStream(Stream):
    """One HTTP request and its response; the ``HttpExchange`` that a handler sees.

    Attributes:
        body: the whole body, content encoding still applied.
    """

    __slots__ = ("_filled", "_grown", "_handed_over", "_handler", "_started", "_target", "body")

    def __init__(self, connection: StreamOwner, stream_id: int, head: Http2Head, handler: HttpHandler) -> None:
        Stream.__init__(self, connection, stream_id, head)
        self.body: Buffer = b""
        self._handler = handler
        self._target: memoryview | None = None
        self._grown: bytearray | None = None
        self._filled = 0
        self._handed_over = self._started = False

    # --- the client's side

    def opened(self) -> None:
        """Refuse what is too long; a request without a body is whole."""
        limits = self.connection.context.limits
        head = self.head
        if head.too_long(limits):
            self._refuse(431, head.complaint(limits))
        elif (head.content_length or 0) > limits.body_nbytes:
            self._refuse_body(head.content_length or 0)
        elif self.remote_closed:
            self.ended()
        elif head.headers.get("expect", "").lower() == "100-continue":
            self.outbox.headers(self.stream_id, _CONTINUE)

    def data(self, data: bytes | memoryview, start: int, stop: int, ended: bool) -> None:
        """Collect the body; the common one is a single frame."""
        self.remote_closed = ended
        nbytes = stop - start
        self.count(nbytes)
        if self.wrong_length(ended) or self.answered:
            return
        if self.received_nbytes > self.connection.context.limits.body_nbytes:
            self._refuse_body(self.received_nbytes)
        elif ended and self.received_nbytes == nbytes < LARGE_BODY_NBYTES:
            self.body = bytes(data[start:stop])
            self._whole()
        else:
            self._collect(memoryview(data)[start:stop])
            self._end_body(ended)

    def ended(self) -> None:
        """The client's side has ended without DATA, or with trailers."""
        self.remote_closed = True
        if not self.wrong_length(ended=True) and not self.answered:
            self._end_body(ended=True)

    @property
    def receiving(self) -> bool:
        """Whether the body is not whole yet."""
        return not self.remote_closed

    def region(self, limit_nbytes: int) -> memoryview | None:
        """The rest of a large body's own buffer."""
        target = self._target
        if target is None or self.answered:
            return None
        nbytes = min(limit_nbytes, len(target) - self._filled)
        return target[self._filled : self._filled + nbytes] if nbytes >= LARGE_BODY_NBYTES else None

    def advance(self, nbytes: int, ended: bool) -> None:
        """A part of the body has been received in place."""
        self.remote_closed = ended
        self.count(nbytes)
        self._filled += nbytes
        if not self.wrong_length(ended) and not self.answered:
            self._end_body(ended)

    def abandoned(self) -> None:
        """The client is gone; a handler that has not seen the request has nothing to be told."""
        if self.answered:
            return
        self.answered = True
        if self._handed_over:
            try:
                self._handler.disconnected(self)
            except Exception:  # a fault in one exchange must not end its neighbours on the connection
                log.exception("the handler of %s %s raised when its client left", self.head.method, self.head.path)

    def stalled(self) -> None:
        """The client began a body and did not send the rest."""
        self._refuse(408, "the request body did not arrive in time")

    # --- the handler's side

    def respond(self, status: int, headers: bytes, body: Sequence[Buffer]) -> None:
        """The whole response."""
        if self.answered:
            return
        self.answered = True
        nbytes = 0
        for part in body:
            nbytes += len(part) if part.__class__ is bytes else memoryview(part).nbytes
        block = hpack_blocks.response_block(status, headers)
        if status not in _NO_BODY_STATUS:
            digits = b"%d" % nbytes
            block = b"".join((block, _CONTENT_LENGTH, bytes((len(digits),)), digits))
        outbox, stream_id = self.outbox, self.stream_id
        if not nbytes or status in _NO_BODY_STATUS or self.head.method == "HEAD":
            outbox.headers(stream_id, block, END_STREAM)
            self.connection.finished(self)
        elif max(nbytes, len(block)) > outbox.small_nbytes or nbytes > outbox.window or nbytes > self.send_window:
            outbox.headers(stream_id, block)
            outbox.data(self, body, nbytes)
            outbox.end(self)
        else:
            outbox.window -= nbytes
            head = FRAME.pack(len(block) << 8 | HEADERS, END_HEADERS, stream_id)
            outbox.pieces.append(b"".join((head, block, FRAME.pack(nbytes << 8 | DATA, END_STREAM, stream_id), *body)))
            outbox.schedule()
            self.connection.finished(self)

    def start(self, status: int, headers: bytes) -> None:
        """The head of a response of unknown length."""
        if not self.answered:
            self._started = True
            self.outbox.headers(self.stream_id, hpack_blocks.response_block(status, headers))

    def write(self, data: Buffer) -> None:
        """A part of a response begun with ``start``."""
        nbytes = memoryview(data).nbytes
        if nbytes and not self.answered and self.head.method != "HEAD" and not self.overflows():
            self.outbox.data(self, (data,), nbytes)

    def finish(self) -> None:
        """The end of a response begun with ``start``."""
        if not self.answered:
            self.answered = True
            self.outbox.end(self)

    # --- inside

    def _collect(self, view: memoryview) -> None:
        """Append to the body: into a buffer of its declared length, or to one that grows."""
        declared = self.head.content_length
        if declared is None:
            if self._grown is None:
                self._grown = bytearray()
            self._grown += view
            return
        if self._target is None:
            self._target = self._body_buffer(declared)
        self._target[self._filled : self._filled + len(view)] = view
        self._filled += len(view)

    def _body_buffer(self, nbytes: int) -> memoryview:
        target = None
        if nbytes >= LARGE_BODY_NBYTES:
            try:
                target = self._handler.body_buffer(self.head, nbytes)
            except Exception:  # as in ``abandoned``
                log.exception("the handler of %s %s raised", self.head.method, self.head.path)
        return new_buffer(nbytes, len(self.connection.streams)) if target is None else target

    def _end_body(self, ended: bool) -> None:
        """When that was all, hand the body over."""
        if ended:
            if self._target is not None:
                self.body = self._target
            elif self._grown is not None:
                self.body = self._grown
            self._whole()

    def _whole(self) -> None:
        """The request is whole: the handler's turn."""
        self._handed_over = True
        try:
            self._handler.request(self)
        except Exception:  # as in ``abandoned``
            log.exception("the handler of %s %s raised", self.head.method, self.head.path)
            if self._started and not self.answered:
                self.answered = True
                self.connection.reset(self, ErrorCode.INTERNAL_ERROR)
            self._refuse(500, "internal error")

    def _refuse_body(self, nbytes: int) -> None:
        limit = self.connection.context.limits.body_nbytes
        refused = body_too_large(self.head, nbytes, limit)
        if not self.remote_closed:
            self.connection.let_finish(self.stream_id)
        self._refuse(refused.status, str(refused))

    def _refuse(self, status: int, message: str) -> None:
        self.respond(status, _JSON, (error_body(message),))
