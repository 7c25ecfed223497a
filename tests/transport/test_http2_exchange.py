"""REST over HTTP/2: the same handler as over HTTP/1.1. In memory; real clients are in ``test_http2_clients``."""

import pytest

from shoal.transport.connection import Limits
from shoal.transport.http2_frames import DATA, RST_STREAM, ErrorCode, frame
from tests.transport.http1_support import EchoHandler
from tests.transport.http2_support import (
    GRPC_HEADERS,
    HTTP_HEADERS,
    OPENING,
    Memory,
    headers_frame,
    rst,
    settings,
    window_update,
    with_path,
)

WIDE = OPENING + settings((4, 1 << 24)) + window_update(0, 1 << 24)


def ask(path="/echo", body=None, method="POST", headers=(), memory=None):
    memory = memory or Memory(http=EchoHandler(), opening=WIDE)
    fields = [(name, method if name == ":method" else value) for name, value in with_path(HTTP_HEADERS, path)]
    memory.receive(headers_frame(1, [*fields, *headers], end=body is None))
    if body is not None:
        memory.receive(frame(DATA, 1, 1, body))
    return memory.answer(1), memory


def test_the_exchange_a_handler_sees():
    answer, memory = ask("/a%20b?x=%31", b"body", headers=[("a", "1"), ("a", "2"), ("cookie", "x"), ("cookie", "y")])
    exchange = memory.http.next("request")
    head = exchange.head
    assert (head.method, head.target, head.path) == ("POST", "/a%20b?x=%31", "/a b")
    assert head.headers == {"a": "1, 2", "cookie": "x; y", "host": "127.0.0.1:8000"}
    assert head.content_length is None
    assert bytes(exchange.body) == b"body"
    assert exchange.context is None
    assert answer.blocks == [{":status": "200", "content-type": "application/octet-stream", "content-length": "4"}]
    assert answer.body == b"body"


@pytest.mark.parametrize("body", [None, b""])
def test_a_request_without_a_body(body):
    answer, _ = ask(body=body)
    assert answer.blocks[0]["content-length"] == "0"
    assert answer.ended


def test_head_requests_get_the_length_and_no_body():
    answer, _ = ask(body=b"12345", method="HEAD")
    assert answer.blocks[0]["content-length"] == "5"
    assert (answer.body, answer.ended) == (b"", True)
    answer, _ = ask("/stream", body=b"1|2", method="HEAD")
    assert (answer.body, answer.ended) == (b"", True)


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body(status):
    class Empty(EchoHandler):
        def request(self, exchange):
            exchange.respond(status, b"Content-Type: application/octet-stream\r\n", (exchange.body,))

    answer, _ = ask(body=b"x", memory=Memory(http=Empty()))
    assert answer.blocks[0] == {":status": str(status), "content-type": "application/octet-stream"}
    assert answer.body == b""


def test_a_response_in_parts():
    answer, _ = ask("/stream", b"one|two||three")
    assert "content-length" not in answer.blocks[0]
    assert (answer.body, answer.ended) == (b"onetwothree", True)


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("nbytes", [1, 65_535, 65_536, 300_000])
def test_bodies(nbytes, declared):
    """A large body of declared length is received in the handler's buffer."""
    data = bytes(range(256)) * (nbytes // 256 + 1)
    headers = [("content-length", str(nbytes))] if declared else []
    answer, memory = ask(body=data[:nbytes], headers=headers)
    assert answer.body == data[:nbytes]
    assert len(memory.http.buffers) == (declared and nbytes >= 65_536)


def test_a_body_over_the_limit_is_refused_as_soon_as_it_is_known():
    memory = Memory(http=EchoHandler(), limits=Limits(body_nbytes=1000))
    memory.receive(headers_frame(1, [*HTTP_HEADERS, ("content-length", "1001")]))
    answer = memory.answer(1)
    assert (answer.blocks[0][":status"], answer.ended) == ("400", True)
    assert b"exceeds the maximum allowed value of 1000 bytes" in answer.body
    memory.receive(headers_frame(3, HTTP_HEADERS) + frame(DATA, 0, 3, bytes(600)) + frame(DATA, 0, 3, bytes(600)))
    assert memory.answer(3).blocks[0][":status"] == "400"
    memory.receive(headers_frame(5, HTTP_HEADERS) + frame(DATA, 1, 5, bytes(1200)))
    assert memory.answer(5).blocks[0][":status"] == "400"
    memory.receive(headers_frame(7, HTTP_HEADERS) + frame(DATA, 1, 7, bytes(1000)))
    assert memory.answer(7).blocks[0][":status"] == "200"


TOO_LONG = headers_frame(1, [*HTTP_HEADERS, ("content-length", "9000")]) + frame(DATA, 0, 1, bytes(500))


def refused(first=TOO_LONG):
    memory = Memory(http=EchoHandler(), limits=Limits(body_nbytes=1000))
    memory.receive(first)
    assert memory.answer(1).reset is None
    return memory


def test_a_client_that_does_not_stop_sending_a_refused_body_is_told_to_after_a_moment():
    """Some clients lose the answer when RST_STREAM comes right behind it."""
    memory = refused()
    memory.receive(frame(DATA, 0, 1, bytes(500)))
    memory.loop.advance(0.9)
    assert memory.answer(1).reset is None
    memory.loop.advance(0.2)
    assert memory.answer(1).reset == ErrorCode.NO_ERROR
    memory.receive(frame(DATA, 1, 1, bytes(500)))
    assert memory.frames() == [], "what was under way when it was told is dropped"


@pytest.mark.parametrize(
    "end",
    [frame(DATA, 1, 1, bytes(8500)), headers_frame(1, [("a", "b")], end=True), rst(1)],
    ids=["data", "trailers", "reset"],
)
def test_a_client_that_ends_a_refused_body_is_told_nothing_more(end):
    memory = refused()
    memory.receive(end)
    assert not memory.loop.timers
    memory.loop.advance(2)
    assert memory.frames() == []
    assert not memory.connection.ending


def test_only_so_many_refused_bodies_are_waited_for():
    memory = Memory(http=EchoHandler(), limits=Limits(body_nbytes=1000))
    for number in range(20):
        memory.receive(headers_frame(2 * number + 1, [*HTTP_HEADERS, ("content-length", "9000")]))
    resets = [item.stream_id for item in memory.frames() if item.kind == RST_STREAM]
    assert resets == [33, 35, 37, 39]
    memory.lose()
    assert not memory.loop.timers


def test_a_refused_body_that_ends_before_the_answer_can_be_sent():
    memory = Memory(http=EchoHandler(), limits=Limits(body_nbytes=1000), opening=OPENING + settings((4, 0)))
    memory.receive(TOO_LONG + frame(DATA, 1, 1, bytes(8500)))
    memory.receive(window_update(1, 1000))
    assert (answer := memory.answer(1)).ended
    assert answer.reset is None
    memory.loop.advance(2)
    assert memory.frames() == []


def test_expect_100_continue():
    memory = Memory(http=EchoHandler())
    memory.receive(headers_frame(1, [*HTTP_HEADERS, ("expect", "100-continue")]))
    answer = memory.answer(1)
    assert answer.blocks == [{":status": "100"}]
    memory.receive(frame(DATA, 1, 1, b"x"))
    assert memory.answer(1).body == b"x"


def test_a_handler_that_raises(caplog):
    answer, memory = ask("/fail", b"x")
    assert answer.blocks[0][":status"] == "500"
    assert "/fail" in caplog.text
    assert not memory.connection.ending

    class Late(EchoHandler):
        def request(self, exchange):
            exchange.start(200, b"")
            raise RuntimeError

    answer, memory = ask(body=b"x", memory=Memory(http=Late()))
    assert answer.reset == ErrorCode.INTERNAL_ERROR
    assert memory.connection.in_flight == 0


def test_long_response_headers_take_continuation_frames():
    class Long(EchoHandler):
        def request(self, exchange):
            exchange.respond(200, b"X-Long: %s\r\n" % (b"x" * 50_000), (b"body",))

    answer, _ = ask(body=b"x", memory=Memory(http=Long()))
    assert len(answer.blocks[0]["x-long"]) == 50_000
    assert answer.body == b"body"


def test_grpc_content_with_another_method_is_http():
    headers = [(name, "GET" if name == ":method" else value) for name, value in GRPC_HEADERS]
    memory = Memory(http=EchoHandler())
    memory.receive(headers_frame(1, headers, end=True))
    assert memory.answer(1).blocks[0][":status"] == "200"


@pytest.mark.parametrize(
    ("method", "target", "path"), [("OPTIONS", "*", "*"), ("OPTIONS", "/", "/"), ("CONNECT", "h:1", "h:1")]
)
def test_methods_with_targets_of_their_own(method, target, path):
    memory = Memory(http=EchoHandler())
    fields = [(":method", method), (":authority", "h:1")]
    if method != "CONNECT":
        fields += [(":scheme", "http"), (":path", target)]
    memory.receive(headers_frame(1, fields, end=True))
    exchange = memory.http.next("request")
    assert (exchange.head.method, exchange.head.target, exchange.head.path) == (method, target, path)
