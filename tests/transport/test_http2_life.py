"""How streams and connections end: drain, abort, cancellation, deadlines; every open call hears of it exactly once."""

import struct

import pytest

from shoal.transport.http2 import Http2Connection
from shoal.transport.http2_frames import ACK, DATA, GOAWAY, PING, ErrorCode, frame
from tests.transport.http1_support import EchoHandler
from tests.transport.http2_support import (
    GRPC_HEADERS,
    HTTP_HEADERS,
    OPENING,
    Answer,
    FullTransport,
    Memory,
    call_bytes,
    goaway_of,
    headers_frame,
    message,
    rst,
    settings,
    window_update,
    with_path,
)

HELD = call_bytes(1, method="Held")
CLIENT_GOAWAY = frame(GOAWAY, 0, 0, bytes(8))


def goaways(frames):
    return [struct.unpack(">II", item.payload[:8]) for item in frames if item.kind == GOAWAY]


def drain(memory):
    """Begin to drain, and answer the PING behind the first GOAWAY."""
    memory.connection.drain()
    frames = memory.frames()
    assert goaways(frames) == [(2**31 - 1, ErrorCode.NO_ERROR)]
    (ping,) = [item for item in frames if item.kind == PING]
    return frame(PING, ACK, 0, ping.payload)


def test_draining_takes_two_goaways():
    """6.8: the first one gives the client time to see it; what it sent until then is served."""
    memory = Memory(opening=OPENING + HELD)
    pong = drain(memory)
    memory.receive(call_bytes(3))
    assert memory.answer(3).status == 0
    memory.receive(pong)
    assert goaways(memory.frames()) == [(3, ErrorCode.NO_ERROR)]
    memory.receive(call_bytes(5) + frame(DATA, 0, 5, b"x"))
    assert [item for item in memory.frames() if item.stream_id == 5 and item.kind != 3] == [], "beyond the last stream"
    memory.receive(rst(5) + window_update(5, 1))
    assert not memory.transport.half_closed
    memory.grpc.calls[0].respond((b"late",))
    assert memory.answer(1).messages == [(0, b"late")]
    assert memory.transport.half_closed


def test_draining_does_not_wait_for_a_client_that_never_answers_the_ping():
    memory = Memory()
    drain(memory)
    memory.loop.advance(1.5)
    assert goaways(memory.frames()) == [(0, ErrorCode.NO_ERROR)]
    assert memory.transport.half_closed
    memory.loop.advance(1.5)
    assert memory.transport.closed


def test_draining_waits_for_answers_that_are_held_up_by_flow_control():
    memory = Memory(opening=OPENING + settings((4, 10)) + HELD)
    memory.receive(drain(memory))
    memory.grpc.calls[0].respond((b"x" * 100,))
    assert not Answer(memory.frames(), 1).ended
    assert not memory.transport.half_closed
    memory.receive(window_update(1, 1000))
    assert memory.answer(1).ended
    assert memory.transport.half_closed


def test_draining_twice_and_draining_an_ending_connection_change_nothing():
    memory = Memory(opening=OPENING + HELD)
    memory.connection.drain()
    memory.connection.drain()
    assert len(goaways(memory.frames())) == 1
    memory.receive(frame(DATA, 0, 0))
    assert len(goaways(memory.frames())) == 1
    memory.connection.drain()
    assert memory.frames() == []


def test_draining_before_the_preface_closes():
    memory = Memory(opening=b"")
    memory.connection.drain()
    memory.loop.run()
    assert memory.transport.half_closed


def test_a_server_that_drains_takes_no_new_connection():
    memory = Memory()
    memory.context.draining = True
    connection, transport = Http2Connection(memory.context), FullTransport()
    connection.connection_made(transport)
    assert transport.closed
    connection.feed(OPENING + HELD)
    assert transport.writes == []
    assert memory.grpc.calls == []


def test_abort_cancels_what_is_open():
    memory = Memory(opening=OPENING + HELD + call_bytes(3, method="Held"))
    assert memory.connection.in_flight == 2
    memory.connection.abort()
    assert memory.transport.closed
    memory.lose()
    assert len(memory.grpc.cancelled_calls) == 2
    assert memory.connection.in_flight == 0
    memory.connection.abort()


def test_a_client_that_says_goaway_gets_its_answers_and_then_the_end():
    memory = Memory(opening=OPENING + HELD + CLIENT_GOAWAY)
    assert not memory.transport.half_closed
    memory.connection.sweep(memory.loop.now)
    memory.receive(call_bytes(3))
    assert memory.answer(3).status == 0, "its GOAWAY is about streams that we might open"
    memory.grpc.calls[0].respond((b"x",))
    assert memory.answer(1).status == 0
    assert not memory.transport.half_closed
    memory.connection.sweep(memory.loop.now)
    assert memory.transport.half_closed


def test_a_failed_connection_cancels_its_calls_says_why_and_lingers():
    """The client has to be able to read GOAWAY, which a close with unread input would destroy."""
    memory = Memory(opening=OPENING + HELD)
    memory.receive(frame(DATA, 0, 0) + call_bytes(3))
    code, text = goaway_of(memory.frames())
    assert (code, text) == (ErrorCode.PROTOCOL_ERROR, b"DATA on stream 0, which is not open")
    assert len(memory.grpc.calls) == 1
    assert memory.grpc.cancelled_calls == memory.grpc.calls
    assert memory.transport.half_closed
    assert not memory.transport.closed
    memory.receive(call_bytes(5))
    assert memory.frames() == []
    memory.loop.advance(1.1)
    assert memory.transport.closed
    memory.lose()
    assert len(memory.grpc.cancelled_calls) == 1


def test_connection_lost_tells_each_open_call_once_and_no_answered_one():
    memory = Memory(opening=OPENING + settings((4, 10)) + b"".join(call_bytes(n, method="Held") for n in (1, 3, 5)))
    memory.grpc.calls[0].respond((b"x" * 100,))
    memory.receive(rst(3))
    memory.frames()
    memory.lose()
    assert memory.grpc.cancelled_calls == [memory.grpc.calls[1], memory.grpc.calls[2]]
    for call in memory.grpc.calls:
        call.respond((b"after the end",))
        call.send((b"after the end",))
        call.finish(13, "after the end")
    assert memory.frames() == []


@pytest.mark.parametrize("when", ["reset", "lost"])
def test_a_disconnected_exchange_is_told_once(when):
    memory = Memory(http=EchoHandler())
    memory.receive(headers_frame(1, with_path(HTTP_HEADERS, "/hold"), end=True) + headers_frame(3, HTTP_HEADERS))
    exchange = memory.http.next("request")
    if when == "reset":
        memory.receive(rst(1) + rst(3))
    memory.lose()
    assert memory.http.next("disconnected") is exchange
    assert memory.http.events.empty(), "the handler has never seen the request whose body is not whole"
    exchange.respond(200, b"", (b"x",))
    exchange.start(200, b"")
    exchange.write(b"x")
    exchange.finish()
    assert memory.connection.in_flight == 0


def timed(stream_id, timeout, method="Held"):
    headers = [*with_path(GRPC_HEADERS, f"/echo.Echo/{method}"), ("grpc-timeout", timeout)]
    return headers_frame(stream_id, headers)


def test_deadlines_are_kept_within_twenty_milliseconds():
    memory = Memory()
    whole = frame(DATA, 1, 1, message(b"x"))
    memory.receive(timed(1, "250m") + whole + timed(3, "1S"))
    memory.loop.advance(0.249)
    assert memory.grpc.cancelled_calls == []
    memory.loop.advance(0.022)
    answer = memory.answer(1)
    assert (answer.status, answer.blocks[0]["grpc-message"], answer.reset) == (4, "Deadline Exceeded", None)
    assert memory.grpc.cancelled_calls == memory.grpc.calls[:1]
    memory.loop.advance(1)
    answer = memory.answer(3)
    assert (answer.status, answer.reset) == (4, ErrorCode.NO_ERROR), "its request was not whole"
    assert memory.connection.in_flight == 0


def test_an_answered_call_has_no_deadline_any_more():
    memory = Memory()
    memory.receive(timed(1, "100m", "Unary") + frame(DATA, 1, 1, message(b"x")))
    assert memory.answer(1).status == 0
    memory.loop.advance(1)
    assert memory.frames() == []
    assert memory.grpc.cancelled_calls == []


def test_a_deadline_drops_what_flow_control_holds_up():
    """The status goes out at once, though messages are queued before it."""
    memory = Memory(opening=OPENING + settings((4, 100)))
    memory.receive(timed(1, "100m", "Stream") + frame(DATA, 0, 1, message(b"x" * 1000)))
    memory.loop.advance(0.2)
    answer = memory.answer(1)
    assert len(answer.body) == 100
    assert (answer.status, answer.ended) == (4, True)


@pytest.mark.parametrize("timeout", ["", "1", "m", "-1S", "1.5S", "123456789S", "1s", "1 S"])
def test_a_malformed_timeout_fails_the_call(timeout):
    memory = Memory()
    memory.receive(timed(1, timeout))
    assert memory.answer(1).status == 13
    assert memory.grpc.calls == []


def test_a_small_header_table_is_acknowledged_once():
    """RFC 7541 section 4.2: strict decoders insist on it."""
    memory = Memory(opening=OPENING + settings((1, 0)))
    memory.decoder.max_allowed_table_size = 0
    for number in (1, 3):
        memory.receive(call_bytes(number))
        answer = memory.answer(number)
        assert (answer.messages, answer.status) == ([(0, b"hello")], 0)
    assert memory.decoder.header_table_size == 0


def test_an_error_while_draining_does_not_take_back_the_last_stream():
    """6.8: the number in a later GOAWAY never grows."""
    memory = Memory(opening=OPENING + HELD)
    memory.receive(drain(memory))
    memory.receive(call_bytes(3) + frame(DATA, 0, 0))
    assert goaways(memory.frames()) == [(1, ErrorCode.NO_ERROR), (1, ErrorCode.PROTOCOL_ERROR)]
