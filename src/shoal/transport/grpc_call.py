"""A gRPC call on an HTTP/2 stream (gRPC PROTOCOL-HTTP2): messages in, messages and a status out.

The common call, one whole message in one frame and one small answer, takes a path of its own through ``data`` and
``respond``; everything else goes through ``MessageReader`` and the outbox's queues.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

from shoal.requests import Buffer
from shoal.transport import grpc_codec
from shoal.transport.grpc_codec import (
    DEADLINE_EXCEEDED,
    HEAD_BLOCK,
    INTERNAL,
    OK_BLOCK,
    RESOURCE_EXHAUSTED,
    UNIMPLEMENTED,
)
from shoal.transport.grpc_deadlines import Expiring
from shoal.transport.grpc_reader import PREFIX, PREFIX_NBYTES, MessageReader
from shoal.transport.handler import GrpcHandler
from shoal.transport.http2_frames import END_HEADERS, END_STREAM, FRAME, HEADERS
from shoal.transport.http2_head import Http2Head
from shoal.transport.http2_stream import Stream, StreamOwner, log, new_buffer

_unpack_prefix = PREFIX.unpack_from
_pack_answer = Struct(f">IBI{len(HEAD_BLOCK)}sIBIBI").pack
_pack_frame = FRAME.pack
_HEAD_WORD = len(HEAD_BLOCK) << 8 | HEADERS
_TRAILERS_WORD = len(OK_BLOCK) << 8 | HEADERS
_TRAILERS_FLAGS = END_HEADERS | END_STREAM


class GrpcStream(Stream):
    """One gRPC call; the ``GrpcCall`` that a handler sees.

    Attributes:
        path: such as ``/inference.GRPCInferenceService/ModelInfer``.
        metadata: the request's headers; shared by all calls with the same headers, so never changed.
        unary: set by the handler when the call takes exactly one message; see ``GrpcCall``.
        compression_level: set by the handler to compress its messages where the client accepts that; 0 for not.
    """

    __slots__ = (
        "_begun", "_deadline", "_handler", "_head_sent", "_messages", "_reader", "compression_level", "metadata",
        "path", "unary",
    )  # fmt: skip

    def __init__(self, connection: StreamOwner, stream_id: int, head: Http2Head, handler: GrpcHandler) -> None:
        Stream.__init__(self, connection, stream_id, head)
        self.path = head.path
        self.metadata = head.metadata
        self.unary = False
        self.compression_level = 0
        self._handler = handler
        self._begun = self._head_sent = False
        self._messages = 0
        self._reader: MessageReader | None = None
        self._deadline: set[Expiring] | None = None

    # --- the client's side

    def opened(self) -> None:
        """Tell the handler of the call, unless its head says already that it cannot be served."""
        head = self.head
        if head.refusal is not None:
            self.finish(*head.refusal)
            return
        if head.timeout_s is not None:
            self._deadline = self.connection.deadlines.add(self, head.timeout_s)
        self._begun = True
        try:
            self._handler.started(self)
        except Exception:  # a fault in one call must not end its neighbours on the connection
            self._broken()
        if self.remote_closed:
            self._half_close()

    def data(self, data: bytes | memoryview, start: int, stop: int, ended: bool) -> None:
        """Read messages; the common call is one frame with one whole message."""
        nbytes = stop - start
        if ended and PREFIX_NBYTES <= nbytes <= self.connection.quick_nbytes and self._reader is None:
            compressed, length = _unpack_prefix(data, start)
            declared = self.head.content_length
            if not compressed and length == nbytes - PREFIX_NBYTES and (declared is None or declared == nbytes):
                self.remote_closed = True
                if not self.answered:
                    self._messages += 1
                    self._deliver(bytes(data[start + PREFIX_NBYTES : stop]))
                    if not (self.unary or self.answered):
                        self._half_close()
                return
        self.remote_closed = ended
        self.count(nbytes)
        if self.wrong_length(ended) or self.answered:
            return
        if self._reader is None:
            self._reader = MessageReader(self)
        self._reader.feed(data, start, stop)
        if ended:
            self._half_close()

    def run(self, data: bytes | memoryview, position: int, nbytes: int, run_nbytes: int) -> bool:
        """A run of frames in the middle of a large message is copied into its buffer without further ado."""
        reader = self._reader
        if reader is None or self.answered:
            return False
        copied_nbytes = reader.copy_run(data, position, nbytes, run_nbytes)
        if not copied_nbytes:
            return False
        self.count(copied_nbytes)
        self.wrong_length(ended=False)
        return True

    def ended(self) -> None:
        """The client's trailers end its side; gRPC gives them no meaning."""
        self.remote_closed = True
        if not self.wrong_length(ended=True):
            self._half_close()

    @property
    def receiving(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._reader is not None and self._reader.within_message

    def region(self, limit_nbytes: int) -> memoryview | None:
        """The rest of a large message's own buffer."""
        return None if self._reader is None or self.answered else self._reader.region(limit_nbytes)

    def advance(self, nbytes: int, ended: bool) -> None:
        """A part of a large message has been received in place."""
        self.remote_closed = ended
        self.count(nbytes)
        if self.wrong_length(ended) or self.answered or self._reader is None:
            return
        self._reader.advance(nbytes)
        if ended:
            self._half_close()

    def abandoned(self) -> None:
        """The client is gone."""
        if not self.answered:
            self._answer()
            self._tell_cancelled()

    def stalled(self) -> None:
        """The client began a message and did not send the rest."""
        self.refuse(DEADLINE_EXCEEDED, "the rest of a request message did not arrive in time")

    def expired(self) -> None:
        """The client's deadline has passed: what is queued is dropped, so that the status goes out at once."""
        self.outbox.drop(self)
        self.refuse(DEADLINE_EXCEEDED, "Deadline Exceeded")

    # --- what the reader of messages asks

    def begun(self, nbytes: int) -> bool:
        """Refuse a message that is too long, or one too many."""
        limit = self.connection.context.limits.message_nbytes
        if nbytes > limit:
            self.refuse(RESOURCE_EXHAUSTED, f"Received message larger than max ({nbytes} vs. {limit})")
        elif self.unary and self._messages:
            self.refuse(UNIMPLEMENTED, f"'{self.path}' takes one request message, and a second one came")
        return not self.answered

    def buffer(self, compressed: bool, first: memoryview, nbytes: int) -> memoryview:
        """The handler's buffer for a large message where it has one, else one of our own."""
        target = None
        if not compressed:
            try:
                target = self._handler.message_buffer(self, first, nbytes)
            except Exception:  # as in ``opened``
                self._broken()
        return new_buffer(nbytes, len(self.connection.streams)) if target is None else target

    def taken(self, compressed: bool, message: memoryview) -> bool:
        """Deliver a message, decompressed."""
        self._messages += 1
        if not compressed:
            self._deliver(message)
            return not self.answered
        limit = self.connection.context.limits.message_nbytes
        try:
            self._deliver(grpc_codec.decompress(message, self.head.encoding, limit))
        except grpc_codec.CompressionError as error:
            self.refuse(error.code, str(error))
        return not self.answered

    # --- the handler's side

    def respond(self, message: Sequence[Buffer]) -> None:
        """The one response message and an OK status."""
        if self.answered:
            return
        outbox = self.outbox
        nbytes = PREFIX_NBYTES
        for part in message:
            nbytes += len(part) if part.__class__ is bytes else memoryview(part).nbytes
        if (
            nbytes > outbox.small_nbytes
            or nbytes > outbox.window
            or nbytes > self.send_window
            or self._head_sent
            or self.compression_level
        ):
            self.send(message)
            self.finish(grpc_codec.OK, "")
            return
        self.answered = True
        self._reader = None
        if self._deadline is not None:
            self._deadline.discard(self)
        outbox.window -= nbytes
        stream_id = self.stream_id
        head = _pack_answer(
            _HEAD_WORD, END_HEADERS, stream_id, HEAD_BLOCK, nbytes << 8, 0, stream_id, 0, nbytes - PREFIX_NBYTES
        )
        trailers = _pack_frame(_TRAILERS_WORD, _TRAILERS_FLAGS, stream_id)
        outbox.pieces.append(b"".join((head, *message, trailers, OK_BLOCK)))
        if not outbox.scheduled:
            outbox.schedule()
        self.connection.finished(self)

    def send(self, message: Sequence[Buffer]) -> None:
        """One response message."""
        if self.answered or self.overflows():
            return
        self.connection.answered()
        compressed = bool(self.compression_level and self.head.accepts)
        if not self._head_sent:
            self._head_sent = True
            block = grpc_codec.compressed_head_block(self.head.accepts) if compressed else HEAD_BLOCK
            self.outbox.headers(self.stream_id, block)
        if compressed:
            message = (grpc_codec.compress(message, self.head.accepts, self.compression_level),)
        nbytes = sum([memoryview(part).nbytes for part in message])
        prefix = PREFIX.pack(compressed, nbytes)
        self.outbox.data(self, (prefix, *message), PREFIX_NBYTES + nbytes)

    @property
    def unsent_nbytes(self) -> int:
        """How much of what was sent waits for the client to read on."""
        return self.queued_nbytes

    def drained(self) -> None:
        """All that waited for the client is on its way."""
        if self.unary or self.answered:
            return
        try:
            self._handler.drained(self)
        except Exception:  # as in ``opened``
            self._broken()

    def finish(self, code: int, message: str, pushback_ms: int = 0) -> None:
        """The status that ends the call."""
        if self.answered:
            return
        self._answer()
        block = grpc_codec.status_block(code, message, pushback_ms)
        if self._head_sent:
            self.outbox.end(self, block)
        else:
            self.outbox.headers(self.stream_id, HEAD_BLOCK + block, END_STREAM)
            self.connection.finished(self)

    def refuse(self, code: int, message: str) -> None:
        """End the call from below: the client gets the status, the handler hears that the call is over."""
        if not self.answered:
            self.finish(code, message)
            if self._begun:
                self._tell_cancelled()

    # --- inside

    def _answer(self) -> None:
        """Nothing may be sent by the handler from here on; what had arrived of a message is free at once."""
        self.answered = True
        self._reader = None  # it refers to us: left to the collector, a large message's buffer would outlive the call
        if self._deadline is not None:
            self._deadline.discard(self)

    def _deliver(self, message: Buffer) -> None:
        try:
            self._handler.message(self, message)
        except Exception:  # as in ``opened``
            self._broken()

    def _half_close(self) -> None:
        """The client's side has ended: check that it ended well, and tell the handler."""
        if self.answered:
            return
        if self.receiving:
            self.refuse(INTERNAL, "the request ended in the middle of a message")
        elif self.unary:
            if not self._messages:
                self.refuse(UNIMPLEMENTED, f"'{self.path}' takes one request message, and none came")
        else:
            try:
                self._handler.half_closed(self)
            except Exception:  # as in ``opened``
                self._broken()

    def _broken(self) -> None:
        """The handler raised: its fault, reported to the client without details."""
        log.exception("the handler of gRPC call %s raised", self.path)
        self.refuse(INTERNAL, "internal error")

    def _tell_cancelled(self) -> None:
        try:
            self._handler.cancelled(self)
        except Exception:  # as in ``opened``
            log.exception("the handler of gRPC call %s raised when it was cancelled", self.path)
