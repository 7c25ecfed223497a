"""The body of a request that comes in chunks (RFC 9112 section 7.1), read strictly."""

from __future__ import annotations

import re

from shoal.transport.http1_head import Http1Head, RefusedError, body_too_large

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")
_SIZE_LINE_NBYTES = 1024

_SIZE, _DATA, _DATA_END, _TRAILERS = range(4)


class ChunkedBody:
    """Collects the chunks of one body.

    Trailers are checked and dropped (RFC 9110 section 6.5.1 allows it). So are chunk extensions.

    Attributes:
        head: the request's head.
        body: the bytes so far.
    """

    __slots__ = ("_left_nbytes", "_limit_nbytes", "_rest", "_state", "_trailers_left_nbytes", "body", "head")

    def __init__(self, head: Http1Head, limit_nbytes: int, trailers_nbytes: int) -> None:
        self.head = head
        self.body = bytearray()
        self._limit_nbytes = limit_nbytes
        self._trailers_left_nbytes = trailers_nbytes
        self._state = _SIZE
        self._left_nbytes = 0
        self._rest = b""

    def feed(self, data: bytes) -> bytes | None:
        """Take the next bytes of the connection.

        Returns:
            The bytes that follow the body, once it is complete; None while it is not.

        Raises:
            RefusedError: malformed, or longer than the limit.
        """
        data = self._rest + data
        position = 0
        while True:
            if self._state == _DATA:
                position = self._take(data, position)
                if self._state == _DATA:
                    self._rest = b""
                    return None
            end = data.find(b"\n", position)
            if end < 0:
                self._keep(data[position:])
                return None
            line = data[position : end + 1]
            position = end + 1
            if self._line(line):
                return data[position:]

    def _take(self, data: bytes, position: int) -> int:
        """Take what is there of the current chunk."""
        end = min(position + self._left_nbytes, len(data))
        self.body += memoryview(data)[position:end]
        self._left_nbytes -= end - position
        if not self._left_nbytes:
            self._state = _DATA_END
        return end

    def _keep(self, rest: bytes) -> None:
        """Keep the beginning of a line for later."""
        if self._state == _DATA_END and not b"\r\n".startswith(rest):
            raise _malformed("a chunk is longer than its size says")
        if self._state != _TRAILERS and len(rest) > _SIZE_LINE_NBYTES:
            raise _malformed("a chunk size is too long")
        if len(rest) > self._trailers_left_nbytes:
            raise RefusedError(431, "the trailers of the request are too long")
        self._rest = rest

    def _line(self, line: bytes) -> bool:
        """Take a whole line; whether it ends the body."""
        if not line.endswith(b"\r\n"):
            raise _malformed("a line ends without a carriage return")
        if self._state == _SIZE:
            self._begin(line[:-2])
        elif self._state == _DATA_END:
            if line != b"\r\n":
                raise _malformed("a chunk is longer than its size says")
            self._state = _SIZE
        else:
            return self._trailer(line[:-2])
        return False

    def _begin(self, line: bytes) -> None:
        """Begin the chunk of this size line."""
        match = _SIZE_LINE.fullmatch(line)
        if match is None or len(line) > _SIZE_LINE_NBYTES:
            raise _malformed("a chunk size is not a hexadecimal number")
        self._left_nbytes = int(match[1], 16)
        nbytes = len(self.body) + self._left_nbytes
        if nbytes > self._limit_nbytes:
            raise body_too_large(self.head, nbytes, self._limit_nbytes)
        self._state = _DATA if self._left_nbytes else _TRAILERS

    def _trailer(self, line: bytes) -> bool:
        """Check a trailer; whether it was the empty line that ends the body."""
        if not line:
            return True
        self._trailers_left_nbytes -= len(line)
        if self._trailers_left_nbytes < 0:
            raise RefusedError(431, "the trailers of the request are too long")
        if not _TRAILER_LINE.fullmatch(line):
            raise _malformed("a trailer is not 'Name: value'")
        return False


def _malformed(what: str) -> RefusedError:
    return RefusedError(400, f"malformed HTTP request: {what}")
