"""One request of an HTTP/1.1 connection and the response to it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING

from shoal.requests import Buffer
from shoal.transport.handler import LARGE_BODY_NBYTES
from shoal.transport.http1_head import PERSIST_CLOSE, Http1Head

if TYPE_CHECKING:
    from shoal.transport.http1 import Http1Connection

OPEN, STREAMING, DONE = range(3)
"""Not answered yet; begun with ``start``; answered, or nobody is there to answer."""

_BODILESS = (204, 304)

JSON_HEADERS = b"Content-Type: application/json\r\n"


class _StatusLines(dict[int, bytes]):
    """Status lines by status."""

    def __missing__(self, status: int) -> bytes:
        known = status in HTTPStatus.__members__.values()
        line = self[status] = f"HTTP/1.1 {status} {HTTPStatus(status).phrase if known else ''}\r\n".encode()
        return line


_status_lines = _StatusLines()


class Http1Exchange:
    """An ``HttpExchange`` over HTTP/1.1.

    Responses leave in the order of the requests (RFC 9112 section 9.3.2): until this one is the first of its
    connection, what it sends waits in ``waiting``.

    Attributes:
        head: the request's head.
        body: its whole body.
        context: the handler's own.
        connection: where it came from.
        state: ``OPEN``, ``STREAMING`` or ``DONE``.
        last: the connection ends with this response.
        waiting: what cannot be sent yet, in order.
    """

    __slots__ = ("_chunked", "body", "connection", "context", "head", "last", "state", "waiting")

    def __init__(self, connection: Http1Connection, head: Http1Head, body: Buffer) -> None:
        self.connection = connection
        self.head: Http1Head = head
        self.body = body
        self.context: object = None
        self.state = OPEN
        self.last = False
        self.waiting: list[Buffer] | None = None

    @property
    def peer(self) -> str:
        """The client's address, for logs."""
        return self.connection.peer

    def respond(self, status: int, headers: bytes, body: Sequence[Buffer]) -> None:
        """Send the whole response; ignored when it was sent before or when the client is gone."""
        if self.state:
            return
        self.state = DONE
        head = self.head
        nbytes = 0
        for part in body:
            nbytes += part.nbytes if type(part) is memoryview else len(part)
        lines = b"%b%b%bContent-Length: %d\r\n\r\n" % (
            _status_lines[status],
            headers,
            PERSIST_CLOSE if self.last else head.persist,
            nbytes,
        )
        if head.bodiless or status in _BODILESS:
            lines, body, nbytes = self._lines_without_body(status, headers, lines), (), 0
        if nbytes < LARGE_BODY_NBYTES:
            self.connection.send(self, b"".join((lines, *body)) if nbytes else lines)
        else:
            self._send_large(lines, body)
        self.connection.answered(self)

    def _lines_without_body(self, status: int, headers: bytes, lines: bytes) -> bytes:
        """The head of a response that has no body: that of the GET for HEAD; 204 and 304 have no length either."""
        if status not in _BODILESS:
            return lines
        return b"%b%b%b\r\n" % (_status_lines[status], headers, PERSIST_CLOSE if self.last else self.head.persist)

    def _send_large(self, lines: bytes, body: Sequence[Buffer]) -> None:
        """Send without copying what is large; what is small is joined with its neighbours."""
        small: list[Buffer] = [lines]
        for part in body:
            view = memoryview(part)
            if view.nbytes < LARGE_BODY_NBYTES:
                if view.nbytes:
                    small.append(view)
                continue
            if small:
                self.connection.send(self, b"".join(small))
                small = []
            self.connection.send(self, view.cast("B"))  # transports count items, so make them bytes
        if small:
            self.connection.send(self, b"".join(small))

    def start(self, status: int, headers: bytes) -> None:
        """Send the head of a response of unknown length: in chunks, or to HTTP/1.0 until the connection closes."""
        if self.state:
            return
        self.state = STREAMING
        self._chunked = not self.head.version_1_0
        if not self._chunked:
            self.last = True
            self.connection.stop_parsing()
        persist = PERSIST_CLOSE if self.last else self.head.persist
        framing = b"Transfer-Encoding: chunked\r\n" if self._chunked else b""
        self.connection.send(self, b"%b%b%b%b\r\n" % (_status_lines[status], headers, persist, framing))

    def write(self, data: Buffer) -> None:
        """Send a part of a response begun with ``start``."""
        nbytes = data.nbytes if type(data) is memoryview else len(data)
        if self.state != STREAMING or not nbytes or self.head.bodiless:
            return
        connection = self.connection
        if not self._chunked:
            connection.send(self, memoryview(data).cast("B"))
        elif nbytes < LARGE_BODY_NBYTES:
            connection.send(self, b"".join((b"%x\r\n" % nbytes, data, b"\r\n")))
        else:
            connection.send(self, b"%x\r\n" % nbytes)
            connection.send(self, memoryview(data).cast("B"))
            connection.send(self, b"\r\n")
        connection.check_unsent()

    def finish(self) -> None:
        """End a response begun with ``start``."""
        if self.state != STREAMING:
            return
        self.state = DONE
        if self._chunked and not self.head.bodiless:
            self.connection.send(self, b"0\r\n\r\n")
        self.connection.answered(self)


def error_body(message: str) -> bytes:
    """An error as Triton words it: ``{"error":"..."}``."""
    return json.dumps({"error": message}, separators=(",", ":")).encode()
