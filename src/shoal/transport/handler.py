"""What a transport asks of the floors above it, and what it offers them: the seam between bytes and meaning.

A transport knows connections, requests, streams and bytes. A handler (in ``frontends``) knows what the bytes mean. Both
directions are plain calls on the event loop's thread: no task, future or coroutine per request.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from shoal.requests import Buffer

LARGE_BODY_NBYTES = 64 * 1024
"""A body at least this long is received straight into a buffer of its own, which the handler may provide."""


class RequestHead:
    """The head of an HTTP request: request line and headers.

    A client repeats its head byte for byte, so connections look up heads by their bytes and one object serves many
    requests: treat it as frozen, all but ``memo``, where a handler may keep what it derived from the head (its route).

    Attributes:
        method: such as ``GET``.
        target: path and query as sent, such as ``/v2/models/m/infer?x=1``.
        path: the path alone, percent-decoded.
        headers: values by lower-case name; of a repeated header the values joined by ``, ``.
        content_length: the body's declared length; None when chunked or absent.
        memo: the handler's own.
    """

    __slots__ = ("content_length", "headers", "memo", "method", "path", "target")

    def __init__(
        self, method: str, target: str, path: str, headers: dict[str, str], content_length: int | None
    ) -> None:
        self.method = method
        self.target = target
        self.path = path
        self.headers = headers
        self.content_length = content_length
        self.memo: object = None


class HttpExchange(Protocol):
    """One HTTP request and its response, over HTTP/1.1 or HTTP/2.

    Attributes:
        head: the request's head.
        body: the whole body, content encoding still applied.
        context: the handler's own; None at first.
        peer: the client's address, for logs.
    """

    body: Buffer
    context: object

    @property
    def head(self) -> RequestHead:
        """The request's head."""

    @property
    def peer(self) -> str:
        """The client's address, for logs."""

    def respond(self, status: int, headers: bytes, body: Sequence[Buffer]) -> None:
        """Send the whole response; the connection adds ``Content-Length`` (and nothing else but what framing needs).

        Args:
            status: the HTTP status.
            headers: header lines as HTTP/1.1 has them, line ends included; built once and reused by the handler.
            body: buffers to send one after the other; kept until sent, never copied when large.
        """

    def start(self, status: int, headers: bytes) -> None:
        """Send the head of a response of unknown length; ``write`` and ``finish`` follow."""

    def write(self, data: Buffer) -> None:
        """Send a part of a response begun with ``start``."""

    def finish(self) -> None:
        """End a response begun with ``start``."""


class HttpHandler(Protocol):
    """Serves HTTP requests."""

    def body_buffer(self, head: RequestHead, nbytes: int) -> memoryview | None:
        """A writable buffer of exactly ``nbytes`` for a large body, or None for one of the transport's own."""

    def request(self, exchange: HttpExchange) -> None:
        """A whole request has arrived; answer it through the exchange, now or later, exactly once."""

    def disconnected(self, exchange: HttpExchange) -> None:
        """The client went away before the exchange was answered; no answer may be sent any more."""


class GrpcCall(Protocol):
    """One gRPC call: any number of messages each way, then a status.

    Attributes:
        path: such as ``/inference.GRPCInferenceService/ModelInfer``.
        metadata: request headers by lower-case name, pseudo-headers left out; ``-bin`` values are decoded to bytes.
        context: the handler's own; None at first.
        unary: False at first. A handler sets it in ``started`` when the call takes exactly one message; the transport
            then refuses none and more than one (UNIMPLEMENTED), and ``half_closed`` is not called.
        compression_level: 0 at first. A handler sets it to 1..9 in ``started`` to have its messages compressed where
            the client accepts that.
        peer: the client's address, for logs.
    """

    path: str
    metadata: dict[str, str | bytes]
    context: object
    unary: bool
    compression_level: int

    @property
    def peer(self) -> str:
        """The client's address, for logs."""

    @property
    def unsent_nbytes(self) -> int:
        """How much of what was sent waits for the client to read on; ``GrpcHandler.drained`` tells of its end."""

    def respond(self, message: Sequence[Buffer]) -> None:
        """The one response message of a unary call and an OK status, in a single write where flow control allows."""

    def send(self, message: Sequence[Buffer]) -> None:
        """One response message, given as buffers that follow each other; the transport frames it."""

    def finish(self, code: int, message: str, pushback_ms: int = 0) -> None:
        """End the call with a gRPC status; 0 is OK.

        Args:
            code: the status.
            message: its text.
            pushback_ms: how long the client is to wait before it tries again (gRFC A6); 0 to leave that to it.
        """


class GrpcHandler(Protocol):
    """Serves gRPC calls.

    For a unary call: ``started``, ``message``, and ``half_closed`` unless ``unary`` was set or the call is answered;
    the answer may come at any time after ``message``.
    """

    def started(self, call: GrpcCall) -> None:
        """A call began; an unknown ``path`` is to be finished with UNIMPLEMENTED here."""

    def message_buffer(self, call: GrpcCall, first: memoryview, nbytes: int) -> memoryview | None:
        """A writable buffer of exactly ``nbytes`` for a large message, or None for one of the transport's own.

        ``first`` holds the message's first bytes, so that the handler can see for which model it is.
        """

    def message(self, call: GrpcCall, message: Buffer) -> None:
        """A whole request message has arrived, decompressed."""

    def half_closed(self, call: GrpcCall) -> None:
        """The client will send no more messages."""

    def drained(self, call: GrpcCall) -> None:
        """Of a call that is not unary: after some messages had to wait for the client, all are on their way to it."""

    def cancelled(self, call: GrpcCall) -> None:
        """The client cancelled, its deadline passed, or its connection is gone; nothing may be sent any more."""
