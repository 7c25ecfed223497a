"""An HTTP/1.1 connection (RFC 9112): requests out of bytes, responses in order, and its end.

A client repeats its request heads byte for byte. So a head is looked up by its bytes in a table that the connections of
a listener share, and parsed only where it is new; the body is framed from what the table says. A small request that
arrives whole costs one search, one lookup and one slice.
"""

from __future__ import annotations

import asyncio
from collections import deque

from shoal.requests import Buffer
from shoal.transport.connection import ConnectionContext, describe_peer
from shoal.transport.handler import LARGE_BODY_NBYTES
from shoal.transport.http1_chunked import ChunkedBody
from shoal.transport.http1_exchange import DONE, JSON_HEADERS, OPEN, Http1Exchange, error_body
from shoal.transport.http1_head import (
    Http1Head,
    RefusedError,
    body_too_large,
    check_partial_head,
    parse_head,
)

READ_NBYTES = 64 * 1024
"""Read at once between bodies; of a large body only what comes with its head is copied, so this stays small."""

MEMO_HEADS = 1024
MEMO_HEAD_NBYTES = 4096
"""Heads kept by a listener, and the longest one kept: at most 4 MiB of heads."""

LINGER_TIMEOUT_S = 10.0
"""What a client still sends is read and dropped so long that it can read the last answer (RFC 9112 section 9.6)."""

STREAM_UNSENT_FACTOR = 16
"""A stream whose client leaves more than this times ``unsent_nbytes`` unread is cut off: nothing else bounds it."""

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_REFUSED_HEAD = Http1Head("GET", "/", {}, version_1_0=False)


class Http1Connection(asyncio.BufferedProtocol):
    """A connection that speaks HTTP/1.1 (and 1.0)."""

    __slots__ = (
        "_body",
        "_chunks",
        "_context",
        "_continue_due",
        "_filled_nbytes",
        "_handler",
        "_head",
        "_heads",
        "_limits",
        "_lingering",
        "_lost",
        "_paused",
        "_pending",
        "_pipelined",
        "_queue",
        "_scratch",
        "_seen_sent_nbytes",
        "_since",
        "_stalled_since",
        "_stopped",
        "_transport",
        "_unread",
        "_writing_paused",
        "_written_nbytes",
    )

    _transport: asyncio.Transport

    def __init__(self, context: ConnectionContext) -> None:
        if context.http is None:
            raise ValueError("an HTTP/1.1 connection needs an HTTP handler")
        self._context = context
        self._handler = context.http
        self._heads = context.heads
        self._limits = context.limits
        self._pipelined = context.limits.pipelined
        self._scratch = context.receive_buffer(READ_NBYTES)
        self._queue: deque[Http1Exchange] = deque()
        self._pending = b""  # received and not parsed yet
        self._head: Http1Head | None = None  # of the body that is being received
        self._body: memoryview | None = None  # a body that is being received, framed by its length
        self._filled_nbytes = 0
        self._chunks: ChunkedBody | None = None  # a body that is being received in chunks
        self._continue_due = False
        self._stopped = False  # no further request is taken
        self._unread = False  # stopped in the middle of what the client sends
        self._lingering = False
        self._lost = False
        self._paused = False
        self._writing_paused = False
        self._since = self._stalled_since = context.now
        self._written_nbytes = self._seen_sent_nbytes = 0

    # Connection, as its listener sees it

    @property
    def in_flight(self) -> int:
        """Requests that are not answered yet."""
        return len(self._queue)

    @property
    def peer(self) -> str:
        """The client's address, for logs."""
        return describe_peer(self._transport)

    def feed(self, data: bytes) -> None:
        """Bytes that were received before the connection took over from the protocol detection."""
        self._parse(data)

    def drain(self) -> None:
        """Close now when idle; else answer what has begun to arrive, the last response saying ``Connection: close``."""
        if self._queue:
            self._queue[-1].last = True
            self.stop_parsing()
        elif not self._receiving and not self._lingering:
            self.stop_parsing()
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    @property
    def _receiving(self) -> bool:
        """Whether a part of a request has arrived."""
        return self._head is not None or bool(self._pending)

    # asyncio's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport  # type: ignore[assignment]  # asyncio types it as BaseTransport
        self._transport.set_write_buffer_limits(high=self._limits.unsent_nbytes)
        self._context.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 # why it ended makes no difference
        """End: whoever still works on a request of this connection is told."""
        self._end()
        self._context.closed(self)

    def eof_received(self) -> bool:
        """The client closed its side, which counts as leaving: what is sent is flushed, and nothing more will be."""
        self._end()
        return False

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 # the size is asyncio's guess
        """Where to receive: in the rest of a body, or in the shared buffer."""
        body = self._body
        return self._scratch if body is None else body[self._filled_nbytes :]

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes arrived."""
        if self._body is not None:
            self._fill(nbytes)
            return
        data = bytes(self._scratch[:nbytes])
        if self._chunks is not None:
            data = self._feed_chunks(data)
        elif self._pending:
            known_nbytes = len(self._pending)
            data = self._pending + data
            if not self._paused and data.find(b"\r\n\r\n", max(0, known_nbytes - 3)) < 0:
                self._keep_partial_head(data, known_nbytes)
                return
        if data:
            self._parse(data)

    def pause_writing(self) -> None:
        """The client leaves much unread: read nothing more from it."""
        self._writing_paused = True
        self._pause_reading()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._writing_paused = False
        self._resume_reading()

    # receiving

    def _parse(self, data: bytes) -> None:
        """Take all whole requests out of ``data`` and keep the rest."""
        heads = self._heads
        queue = self._queue
        size = len(data)
        position = 0
        self._pending = b""
        while position < size:
            if self._stopped or self._writing_paused or len(queue) >= self._pipelined:
                self._hold(data[position:])
                return
            end = data.find(b"\r\n\r\n", position) + 4
            if end == 3:
                self._keep_partial_head(data[position:], 0)
                return
            head = heads.get(data[position:end])
            if head is None:
                if data.startswith(b"\r\n", position):  # RFC 9112 section 2.2: skip empty lines before a request
                    position += 2
                    continue
                head = self._learn_head(data[position:end])
                if head is None:
                    return
            position = end + head.body_nbytes
            if position <= size and not head.chunked:
                self._take(head, data[end:position])
                continue
            data = self._begin_body(head, data[end:])
            position, size = 0, len(data)

    def _take(self, head: Http1Head, body: Buffer) -> None:
        """A whole request has arrived."""
        exchange = Http1Exchange(self, head, body)
        if not head.keep_alive or self._context.draining:
            exchange.last = True
            self._stopped = True
        self._queue.append(exchange)
        try:
            self._handler.request(exchange)
        except Exception as error:
            self._handler_failed(exchange, error)

    def _handler_failed(self, exchange: Http1Exchange, error: Exception) -> None:
        """A bug of the handler is logged by the loop and ends one request, never the connection's order."""
        self._report_handler_error(error)
        if exchange.state == OPEN:
            exchange.respond(500, JSON_HEADERS, (error_body("the server failed to handle the request"),))
        elif exchange.state != DONE:
            self.abort()

    def _report_handler_error(self, error: Exception) -> None:
        self._context.loop.call_exception_handler(
            {"message": "the HTTP handler failed", "exception": error, "protocol": self}
        )

    def _learn_head(self, data: bytes) -> Http1Head | None:
        """Parse a head that is not in the table; None when it was refused."""
        limits = self._limits
        try:
            if len(data) > limits.head_nbytes:
                raise _head_too_large(limits.head_nbytes)
            head = parse_head(data, limits.header_count)
            if head.body_nbytes > limits.body_nbytes:
                raise body_too_large(head, head.body_nbytes, limits.body_nbytes)
        except RefusedError as refused:
            self._refuse(refused)
            return None
        if len(data) <= MEMO_HEAD_NBYTES:
            if len(self._heads) >= MEMO_HEADS:
                self._heads.clear()
            self._heads[data] = head
        return head

    def _keep_partial_head(self, data: bytes, known_nbytes: int) -> None:
        """Keep the beginning of a head until more of it arrives; ``known_nbytes`` of it were here before."""
        try:
            check_partial_head(data, known_nbytes)
            if len(data) > self._limits.head_nbytes:
                raise _head_too_large(self._limits.head_nbytes)
        except RefusedError as refused:
            self._refuse(refused)
            return
        if not known_nbytes:
            self._since = self._context.now
        self._pending = data

    def _begin_body(self, head: Http1Head, data: bytes) -> bytes:
        """A body has begun that is chunked or not here in full. Takes what is here, returns what follows the body."""
        self._head = head
        self._since = self._context.now
        if head.expects_continue and not data:
            self._continue_due = True
            self._send_continue()
        if head.chunked:
            self._chunks = ChunkedBody(head, self._limits.body_nbytes, self._limits.head_nbytes)
            return self._feed_chunks(data)
        nbytes = head.body_nbytes
        body = self._large_body_buffer(head, nbytes) if nbytes >= LARGE_BODY_NBYTES else None
        if body is None:
            body = memoryview(bytearray(nbytes))
        body[: len(data)] = data
        self._body = body
        self._filled_nbytes = len(data)
        return b""

    def _large_body_buffer(self, head: Http1Head, nbytes: int) -> memoryview | None:
        """The handler's buffer for a large body, if it has one that fits."""
        try:
            body = self._handler.body_buffer(head, nbytes)
        except Exception as error:
            self._report_handler_error(error)
            return None
        if body is not None and (body.readonly or body.nbytes != nbytes):
            self._report_handler_error(
                ValueError(f"body_buffer gave {body.nbytes} bytes for {nbytes}, or read-only ones")
            )
            return None
        return body

    def _fill(self, nbytes: int) -> None:
        """Bytes arrived in the body's own buffer."""
        body, head = self._body, self._head
        self._filled_nbytes += nbytes
        self._since = self._context.now
        if body is not None and head is not None and self._filled_nbytes == body.nbytes:
            self._body = self._head = None
            self._continue_due = False
            self._take(head, body)

    def _feed_chunks(self, data: bytes) -> bytes:
        """Bytes of a chunked body arrived, and perhaps what follows it, which is returned."""
        chunks = self._chunks
        if chunks is None:
            return b""
        self._since = self._context.now
        try:
            rest = chunks.feed(data)
        except RefusedError as refused:
            self._refuse(refused)
            return b""
        if rest is None:
            return b""
        self._chunks = self._head = None
        self._continue_due = False
        self._take(chunks.head, chunks.body)
        return rest

    def _send_continue(self) -> None:
        """Ask for the body, once the responses before it are out."""
        if self._continue_due and not self._queue:
            self._continue_due = False
            self._transport.write(_CONTINUE)

    # pausing

    def _hold(self, data: bytes) -> None:
        """Keep what cannot be taken now, or drop it when no further request is taken."""
        if self._stopped:
            self._unread = True
            return
        self._pending = data
        self._pause_reading()

    def _pause_reading(self) -> None:
        if not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if not self._paused or self._lost or self._writing_paused or len(self._queue) > self._pipelined // 2:
            return
        self._paused = False
        self._since = self._context.now
        self._transport.resume_reading()
        if self._pending:
            self._parse(self._pending)

    # answering

    def send(self, exchange: Http1Exchange, data: Buffer) -> None:
        """Send a part of a response, or keep it until the responses before it are out."""
        if self._queue[0] is exchange:
            self._written_nbytes += len(data)
            self._transport.write(data)
        elif exchange.waiting is None:
            exchange.waiting = [data]
        else:
            exchange.waiting.append(data)

    def answered(self, exchange: Http1Exchange) -> None:
        """The response is complete; when it is out, go on with those that waited for it."""
        queue = self._queue
        if queue[0] is not exchange:
            return
        queue.popleft()
        if exchange.last:
            self._close()
            return
        if queue:
            self._send_waiting()
        if not queue:
            self._since = self._context.now
            if self._continue_due:
                self._send_continue()
        if self._paused:
            self._resume_reading()

    def _send_waiting(self) -> None:
        """Send what the new first exchange has ready, and those after it while they are complete."""
        queue = self._queue
        while queue:
            exchange = queue[0]
            waiting, exchange.waiting = exchange.waiting or (), None
            for data in waiting:
                self.send(exchange, data)
            if exchange.state != DONE:
                return
            queue.popleft()
            if exchange.last:
                self._close()
                return

    def check_unsent(self) -> None:
        """Cut off a client that does not keep up with a stream."""
        if self._writing_paused:
            limit_nbytes = STREAM_UNSENT_FACTOR * self._limits.unsent_nbytes
            if self._transport.get_write_buffer_size() > limit_nbytes:
                self.abort()

    # ending

    def stop_parsing(self) -> None:
        """Take no further request."""
        self._unread = self._unread or self._receiving
        self._stopped = True
        self._pending = b""
        self._head = self._body = self._chunks = None

    def _refuse(self, refused: RefusedError) -> None:
        """Answer for a request that cannot be served, after those before it, and end the connection."""
        self.stop_parsing()
        self._unread = True
        exchange = Http1Exchange(self, _REFUSED_HEAD, b"")
        exchange.last = True
        self._queue.append(exchange)
        exchange.respond(refused.status, JSON_HEADERS, (error_body(str(refused)),))

    def _close(self) -> None:
        """The last response is out: close, but let a client that is still sending read the answer first."""
        self.stop_parsing()
        if not self._unread:
            self._transport.close()
            return
        self._lingering = True
        self._since = self._context.now
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._resume_reading()

    def _end(self) -> None:
        """The client is gone."""
        if self._lost:
            return
        self._lost = True
        self.stop_parsing()
        queue = self._queue
        while queue:
            exchange = queue.popleft()
            if exchange.state != DONE:
                exchange.state = DONE
                self._tell_disconnected(exchange)

    def _tell_disconnected(self, exchange: Http1Exchange) -> None:
        try:
            self._handler.disconnected(exchange)
        except Exception as error:
            self._report_handler_error(error)

    # time

    def sweep(self, now: float) -> None:
        """Enforce the time limits."""
        self._sweep_unsent(now)
        limits = self._limits
        waited_s = now - self._since
        if self._lingering:
            if waited_s >= LINGER_TIMEOUT_S:
                self.abort()
        elif self._stopped or self._paused:
            return
        elif self._head is not None:
            if waited_s >= limits.body_timeout_s:
                self._refuse(RefusedError(408, "the request body did not arrive in time"))
        elif self._pending:
            if waited_s >= limits.head_timeout_s:
                self._refuse(RefusedError(408, "the request head did not arrive in time"))
        elif not self._queue and 0 < limits.idle_timeout_s <= waited_s:
            self._transport.close()

    def _sweep_unsent(self, now: float) -> None:
        """Cut off a client that reads nothing while output waits for it."""
        unsent_nbytes = self._transport.get_write_buffer_size()
        sent_nbytes = self._written_nbytes - unsent_nbytes
        if not unsent_nbytes or sent_nbytes != self._seen_sent_nbytes:
            self._seen_sent_nbytes = sent_nbytes
            self._stalled_since = now
        elif now - self._stalled_since >= self._limits.write_timeout_s:
            self.abort()


def _head_too_large(limit_nbytes: int) -> RefusedError:
    return RefusedError(431, f"the request head is longer than {limit_nbytes} bytes")
