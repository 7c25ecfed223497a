"""The head of an HTTP/1.1 request: bytes -> ``Http1Head``, strictly by RFC 9112.

httptools (llhttp) reads the grammar; what it leaves open, and what decides where a request ends, is checked here. A
head that two servers could read in two ways is refused (RFC 9112 section 11.2, request smuggling).
"""

from __future__ import annotations

import re
from urllib.parse import unquote

import httptools

from shoal.transport.handler import RequestHead

PERSIST_DEFAULT = b""
PERSIST_KEEP_ALIVE = b"Connection: keep-alive\r\n"
PERSIST_CLOSE = b"Connection: close\r\n"

_REQUEST_LINE = re.compile(rb"[A-Z-]+ [\x21-\x7e]+ HTTP/1\.[01]")
_OTHER_VERSION = re.compile(rb"[A-Z-]+ [\x21-\x7e]+ HTTP/[0-9](\.[0-9])?")
_BARE_LF = re.compile(rb"(?<!\r)\n")
_TOKEN_START = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z\r]")
_DIGITS = re.compile(r"[0-9]{1,18}")
_SINGLE_HEADERS = frozenset(("host", "content-length", "transfer-encoding"))
_TLS_HANDSHAKE = 0x16


class RefusedError(Exception):
    """A request that the transport itself answers, with this HTTP status, before it closes the connection."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class Http1Head(RequestHead):
    """A request head with what decides how HTTP/1.1 frames the request and its response.

    Attributes:
        body_nbytes: the body's declared length; 0 for none, and when chunked.
        chunked: the body comes in chunks.
        expects_continue: the client waits for ``100 Continue`` before it sends the body.
        keep_alive: the connection may serve another request.
        persist: the ``Connection`` line of a response that leaves the connection open; empty where it is the default.
        version_1_0: the client speaks HTTP/1.0, to which nothing may be sent in chunks.
        bodiless: the response has no body whatever its headers say (HEAD).
    """

    __slots__ = ("bodiless", "body_nbytes", "chunked", "expects_continue", "keep_alive", "persist", "version_1_0")

    def __init__(self, method: str, target: str, headers: dict[str, str], version_1_0: bool) -> None:
        path = unquote(target.partition("#")[0].partition("?")[0])
        super().__init__(method, target, path, headers, _content_length(headers))
        self.version_1_0 = version_1_0
        self.chunked = _chunked(headers, version_1_0)
        self.body_nbytes = self.content_length or 0
        self.expects_continue = _expects_continue(headers, version_1_0)
        self.keep_alive = _keep_alive(headers, version_1_0)
        self.persist = PERSIST_KEEP_ALIVE if version_1_0 else PERSIST_DEFAULT
        self.bodiless = method == "HEAD"


def parse_head(head: bytes, header_count: int) -> Http1Head:
    """Parse a request head, the empty line at its end included.

    Args:
        head: the bytes, not longer than the limit.
        header_count: most header lines.

    Raises:
        RefusedError: with 400, 417, 431, 501 or 505.
    """
    line = head[: head.index(b"\r\n")]
    if not _REQUEST_LINE.fullmatch(line):
        raise _bad_request_line(line)
    collector = _Collector(header_count)
    parser = httptools.HttpRequestParser(collector)
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        pass  # RFC 9110 section 7.8: a server may ignore Upgrade; the request is served as HTTP/1.1
    except httptools.HttpParserCallbackError as error:
        raise error.__context__ if isinstance(error.__context__, RefusedError) else _malformed(error) from None
    except httptools.HttpParserError as error:
        raise _malformed(error) from None
    target = _origin_form(collector.target.decode("ascii"))
    return Http1Head(parser.get_method().decode("ascii"), target, collector.headers, line.endswith(b"0"))


def check_partial_head(head: bytes, known_nbytes: int) -> None:
    """Refuse early what can no longer become a head, rather than wait for the rest of it.

    Args:
        head: what is here of it.
        known_nbytes: how much of it was checked before.

    Raises:
        RefusedError: with 400.
    """
    if head[0] == _TLS_HANDSHAKE:
        raise RefusedError(400, "the client began a TLS handshake, but this port speaks plain HTTP; use http://")
    if not _TOKEN_START.match(head):
        raise RefusedError(400, "malformed HTTP request: the first bytes are no HTTP method")
    if _BARE_LF.search(head, known_nbytes):
        raise RefusedError(400, "malformed HTTP request: a line of the head ends without a carriage return")


def body_too_large(head: RequestHead, nbytes: int, limit_nbytes: int) -> RefusedError:
    """The answer to a body beyond the limit, in the words of Triton's ``--http-max-input-size`` (rule of PR 8432).

    Args:
        head: the request's head.
        nbytes: the body's length as far as it is known.
        limit_nbytes: the limit.
    """
    what = "Request JSON size" if "json" in head.headers.get("content-type", "") else "Request size"
    return RefusedError(
        400,
        f"{what} of {nbytes} bytes exceeds the maximum allowed value of {limit_nbytes} bytes. "
        "Use --http-max-input-size to increase the limit.",
    )


class _Collector:
    """Takes the parser's callbacks."""

    __slots__ = ("_count", "_header_count", "headers", "target")

    def __init__(self, header_count: int) -> None:
        self.target = b""
        self.headers: dict[str, str] = {}
        self._header_count = header_count
        self._count = 0

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count += 1
        if self._count > self._header_count:
            raise RefusedError(431, f"the request has more than {self._header_count} header lines")
        key = name.decode("ascii").lower()
        text = value.decode("latin-1").strip(" \t")
        if key not in self.headers:
            self.headers[key] = text
        elif key in _SINGLE_HEADERS:
            raise RefusedError(400, f"malformed HTTP request: the header '{key}' stands more than once")
        else:
            self.headers[key] += ", " + text


def _bad_request_line(line: bytes) -> RefusedError:
    if _OTHER_VERSION.fullmatch(line):
        return RefusedError(505, "the HTTP version of the request is not supported; use HTTP/1.1 or HTTP/2")
    return RefusedError(400, "malformed HTTP request: the request line is not 'METHOD target HTTP/1.1'")


def _malformed(error: Exception) -> RefusedError:
    return RefusedError(400, f"malformed HTTP request: {error}")


def _origin_form(target: str) -> str:
    """The target as path and query, also where the client sent the absolute form (RFC 9112 section 3.2.2)."""
    scheme, separator, rest = target.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        return target
    slash = rest.find("/")
    return rest[slash:] if slash >= 0 else "/" + rest[len(rest.partition("?")[0]) :]


def _content_length(headers: dict[str, str]) -> int | None:
    value = headers.get("content-length")
    if value is None:
        return None
    if not _DIGITS.fullmatch(value):
        raise RefusedError(400, "malformed HTTP request: Content-Length is not a number")
    return int(value)


def _chunked(headers: dict[str, str], version_1_0: bool) -> bool:
    value = headers.get("transfer-encoding")
    if value is None:
        return False
    if version_1_0 or "content-length" in headers:
        raise RefusedError(400, "malformed HTTP request: Transfer-Encoding beside Content-Length or in HTTP/1.0")
    if value.lower() != "chunked":
        raise RefusedError(501, "the only supported Transfer-Encoding is 'chunked'")
    return True


def _expects_continue(headers: dict[str, str], version_1_0: bool) -> bool:
    value = headers.get("expect")
    if value is None or version_1_0:
        return False
    if value.lower() != "100-continue":
        raise RefusedError(417, "the only supported expectation is '100-continue'")
    return True


def _keep_alive(headers: dict[str, str], version_1_0: bool) -> bool:
    options = {option.strip().lower() for option in headers.get("connection", "").split(",")}
    if "close" in options:
        return False
    return not version_1_0 or "keep-alive" in options
