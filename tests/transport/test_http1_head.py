"""Request heads: what is understood, and what is refused because two servers could read it in two ways."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.transport.http1_head import RefusedError, check_partial_head, parse_head

START = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: localhost\r\n"


def parse(lines: bytes, start: bytes = START):
    return parse_head(start + lines + b"\r\n", header_count=50)


def refusal(lines: bytes, start: bytes = START) -> int:
    with pytest.raises(RefusedError) as refused:
        parse(lines, start)
    assert str(refused.value)
    return refused.value.status


def test_a_head_is_understood() -> None:
    head = parse(b"Content-Length: 12\r\nX-Many: a\r\nx-many:\tb \r\nX-Latin: \xe9\r\n")
    assert (head.method, head.target, head.path) == ("POST", "/v2/models/m/infer", "/v2/models/m/infer")
    assert head.headers == {"host": "localhost", "content-length": "12", "x-many": "a, b", "x-latin": "é"}
    assert (head.content_length, head.body_nbytes, head.chunked, head.keep_alive) == (12, 12, False, True)
    assert head.memo is None


def test_a_head_without_a_body_has_no_content_length() -> None:
    head = parse(b"", b"GET /v2 HTTP/1.1\r\n")
    assert (head.content_length, head.body_nbytes, head.chunked, head.bodiless) == (None, 0, False, False)


@pytest.mark.parametrize(
    ("sent", "target", "path"),
    [
        (b"/v2/models/a%20b/ready?x=%20#f", "/v2/models/a%20b/ready?x=%20#f", "/v2/models/a b/ready"),
        (b"http://example.org:8000/v2/health/live?a=1", "/v2/health/live?a=1", "/v2/health/live"),
        (b"http://example.org", "/", "/"),
        (b"HTTP://example.org?a=1", "/?a=1", "/"),
        (b"*", "*", "*"),
        (b"/?u=http://a/b", "/?u=http://a/b", "/"),
    ],
)
def test_targets(sent: bytes, target: str, path: str) -> None:
    """RFC 9112 section 3.2: the origin, absolute and asterisk forms."""
    head = parse(b"", b"OPTIONS " + sent + b" HTTP/1.1\r\n")
    assert (head.target, head.path) == (target, path)


@pytest.mark.parametrize(
    ("version", "connection", "keep_alive"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"Connection: close\r\n", False),
        (b"1.1", b"Connection: TE, Close\r\n", False),
        (b"1.1", b"Connection: TE\r\nConnection: close\r\n", False),
        (b"1.1", b"Connection: keep-alive\r\n", True),
        (b"1.0", b"", False),
        (b"1.0", b"Connection: Keep-Alive\r\n", True),
        (b"1.0", b"Connection: keep-alive, close\r\n", False),
    ],
)
def test_persistence(version: bytes, connection: bytes, keep_alive: bool) -> None:
    """RFC 9112 section 9.3."""
    head = parse(connection, b"GET / HTTP/" + version + b"\r\n")
    assert head.keep_alive is keep_alive
    assert head.version_1_0 is (version == b"1.0")


def test_chunked_and_expect() -> None:
    head = parse(b"Transfer-Encoding: Chunked\r\nExpect: 100-Continue\r\n")
    assert (head.chunked, head.body_nbytes, head.expects_continue) == (True, 0, True)
    assert parse(b"Expect: 100-continue\r\n", b"POST / HTTP/1.0\r\n").expects_continue is False


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", 400),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", 400),
        (b"Content-Length: 3\r\nContent-Length: 3\r\n", 400),
        (b"Content-Length: 3\r\nContent-Length: 4\r\n", 400),
        (b"Content-Length: 3, 3\r\n", 400),
        (b"Content-Length: +3\r\n", 400),
        (b"Content-Length: -3\r\n", 400),
        (b"Content-Length: 0x3\r\n", 400),
        (b"Content-Length: 3 3\r\n", 400),
        (b"Content-Length: \r\n", 400),
        (b"Content-Length: 99999999999999999999\r\n", 400),
        (b"Transfer-Encoding: gzip, chunked\r\n", 501),
        (b"Transfer-Encoding: gzip\r\n", 400),
        (b"Transfer-Encoding: identity\r\n", 400),
        (b"Transfer-Encoding: chunked, chunked\r\n", 400),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
        (b"Transfer-Encoding: xchunked\r\n", 400),
        (b"Transfer-Encoding:\x0bchunked\r\n", 400),
        (b"Transfer-Encoding : chunked\r\n", 400),
        (b"X : y\r\n", 400),
        (b" X: y\r\n", 400),
        (b"X: y\r\n folded\r\n", 400),
        (b"X: y\n", 400),
        (b"X: y\rZ: a\r\n", 400),
        (b"X: \x00\r\n", 400),
        (b"X: \x7f\r\n", 400),
        (b"X\x00: y\r\n", 400),
        (b"X\xe9: y\r\n", 400),
        (b"X(: y\r\n", 400),
        (b": y\r\n", 400),
        (b"no colon\r\n", 400),
        (b"Host: other\r\n", 400),
        (b"Expect: a miracle\r\n", 417),
        (b"X: y\r\n" * 60, 431),
    ],
)
def test_refused_headers(lines: bytes, status: int) -> None:
    """RFC 9112 sections 5 and 6 and 11.2: whatever makes the end of a request doubtful."""
    assert refusal(lines) == status


@pytest.mark.parametrize(
    ("start", "status"),
    [
        (b"GET / HTTP/2.0\r\n", 505),
        (b"GET / HTTP/1.2\r\n", 505),
        (b"GET / HTTP/0.9\r\n", 505),
        (b"GET /\r\n", 400),
        (b"GET  / HTTP/1.1\r\n", 400),
        (b"GET / HTTP/1.1 \r\n", 400),
        (b"GET /a b HTTP/1.1\r\n", 400),
        (b"GET\t/\tHTTP/1.1\r\n", 400),
        (b"GET / http/1.1\r\n", 400),
        (b"GET / RTSP/1.0\r\n", 400),
        (b"SOURCE / ICE/1.0\r\n", 400),
        (b"get / HTTP/1.1\r\n", 400),
        (b"NOSUCH / HTTP/1.1\r\n", 400),
        (b"GET /\x00 HTTP/1.1\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\n", 400),
        (b" GET / HTTP/1.1\r\n", 400),
        (b"\nGET / HTTP/1.1\r\n", 400),
        (b"\rGET / HTTP/1.1\r\n", 400),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n", 400),
    ],
)
def test_refused_request_lines(start: bytes, status: int) -> None:
    assert refusal(b"", start) == status


def test_upgrade_is_ignored() -> None:
    """RFC 9110 section 7.8: h2c by upgrade is not spoken; the request is served as it is."""
    head = parse(b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAA\r\nContent-Length: 3\r\n")
    assert (head.method, head.body_nbytes, head.keep_alive) == ("POST", 3, True)


def test_connect_is_an_ordinary_request() -> None:
    """No tunnel is opened; the handler answers CONNECT like any method it does not know."""
    assert parse(b"", b"CONNECT example.org:80 HTTP/1.1\r\n").method == "CONNECT"


@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    """No other exception leaves the parser, whatever the head."""
    head = data.replace(b"\r\n\r\n", b"") + b"\r\n\r\n"
    try:
        parse_head(head, header_count=10)
    except RefusedError as refused:
        assert refused.status in (400, 417, 431, 501, 505)  # noqa: PT017 # both outcomes are right


@pytest.mark.parametrize(
    "start",
    [b"\x16\x03\x01\x02\x00", b"\x00", b"\n", b"GET / HTTP/1.1\n", b"GET / HTTP/1.1\r\nHost: x\n", b"{}"],
)
def test_what_can_no_longer_become_a_head_is_refused_at_once(start: bytes) -> None:
    """A TLS client, a binary protocol or a bare LF is told so rather than left waiting for the time limit."""
    with pytest.raises(RefusedError) as refused:
        check_partial_head(start, 0)
    assert refused.value.status == 400


@pytest.mark.parametrize("known_nbytes", range(16))
def test_a_bare_lf_is_found_in_the_new_part(known_nbytes: int) -> None:
    check_partial_head(b"GET / HTTP/1.1\r\n", known_nbytes)
    with pytest.raises(RefusedError):
        check_partial_head(b"GET / HTTP/1.1\r\n\n", known_nbytes)


@given(st.integers(min_value=1, max_value=len(START)))
def test_the_beginning_of_a_good_head_is_not_refused(nbytes: int) -> None:
    check_partial_head(START[:nbytes], 0)
