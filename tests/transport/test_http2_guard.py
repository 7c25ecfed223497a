"""Abuse is answered with ENHANCE_YOUR_CALM, and what correct clients do is not. In memory, with time moved by hand."""

import pytest
from hpack import Encoder

from shoal.transport.connection import Limits
from shoal.transport.http2 import Http2Connection
from shoal.transport.http2_frames import (
    CONTINUATION,
    DATA,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    ErrorCode,
    frame,
)
from shoal.transport.http2_guard import UNREAD_PATIENCE
from tests.transport.http1_support import EchoHandler
from tests.transport.http2_support import (
    GRPC_HEADERS,
    HTTP_HEADERS,
    OPENING,
    Answer,
    Memory,
    block,
    call_bytes,
    goaway_of,
    headers_frame,
    message,
    rst,
    settings,
    window_update,
)

CALM = ErrorCode.ENHANCE_YOUR_CALM
OPEN = headers_frame(1, method="Stream")


def is_calmed(memory):
    goaway = goaway_of(memory.frames())
    assert goaway is None or goaway[0] == CALM
    return goaway is not None


FLOODS = {
    "PING": frame(PING, 0, 0, b"12345678"),
    "PING acknowledgements": frame(PING, 1, 0, b"12345678"),
    "SETTINGS": settings((4, 100), (4, 65535)),
    "empty DATA": frame(DATA, 0, 1),
    "DATA of padding": frame(DATA, 8, 1, b"\x00"),
    "PRIORITY": frame(PRIORITY, 0, 1, b"\0\0\0\0\x10"),
    "WINDOW_UPDATE": window_update(0, 1),
    "WINDOW_UPDATE on a stream": window_update(1, 1),
    "RST_STREAM on a closed stream": rst(1),
    "unknown frames": frame(0x77, 0, 0),
    "PRIORITY_UPDATE": frame(0x10, 0, 0, b"\0\0\0\1u=1"),
}


@pytest.mark.parametrize("name", FLOODS)
def test_flood(name):
    """A client that sends only such frames is sent away, and its open call is cancelled."""
    memory = Memory(opening=OPENING + OPEN)
    for _ in range(11):
        assert memory.connection.ending is False
        memory.receive(FLOODS[name] * 1000)
        if memory.connection.ending:
            break
    assert is_calmed(memory)
    assert len(memory.grpc.cancelled_calls) == 1
    assert memory.connection.in_flight == 0


@pytest.mark.parametrize("name", FLOODS)
def test_the_same_frames_between_answers_are_no_flood(name):
    memory = Memory(opening=OPENING + OPEN)
    for number in range(3, 203, 2):
        memory.receive(FLOODS[name] * 300 + call_bytes(number) + window_update(0, 10) + window_update(1, 10))
    assert not is_calmed(memory)


def test_pings_of_an_idle_connection_may_go_on_for_ever():
    memory = Memory()
    for _ in range(5000):
        memory.loop.advance(1.0)
        memory.receive(FLOODS["PING"])
    assert not is_calmed(memory)


def test_rapid_reset():
    """CVE-2023-44487: requests that are reset as soon as they are made."""
    memory = Memory()
    for number in range(1, 4001, 2):
        memory.receive(call_bytes(number, method="Held") + rst(number))
        if memory.connection.ending:
            break
    assert is_calmed(memory)
    assert 900 < len(memory.grpc.cancelled_calls) < 1100


def test_resets_that_the_client_provokes():
    """CVE-2025-8671: requests that break a rule just after they were handed over."""
    memory = Memory()
    for number in range(1, 4001, 2):
        memory.receive(call_bytes(number, method="Held") + window_update(number, 0))
        if memory.connection.ending:
            break
    assert is_calmed(memory)


def test_calls_over_the_stream_limit_without_end():
    memory = Memory(limits=Limits(streams=1), opening=OPENING + OPEN)
    for number in range(3, 4001, 2):
        memory.receive(call_bytes(number))
        if memory.connection.ending:
            break
    assert is_calmed(memory)


def test_a_client_that_cancels_now_and_then_stays():
    memory = Memory()
    for number in range(1, 8001, 2):
        memory.loop.advance(0.01)
        memory.receive(call_bytes(number, method="Held") + rst(number))
    assert not is_calmed(memory)
    assert len(memory.grpc.cancelled_calls) == 4000


def test_resetting_calls_that_were_answered_is_free():
    memory = Memory(opening=OPENING + settings((4, 0)))
    for number in range(1, 8001, 2):
        memory.receive(call_bytes(number))
        memory.receive(rst(number))
    assert not is_calmed(memory)


@pytest.mark.parametrize("part", [b"", b"\0\1a\1b", b"\0\1a\x7f\x81\x3e" + b"x" * 8049])
def test_continuation_flood(part):
    """A header block without end, of empty, small or large parts."""
    memory = Memory()
    memory.receive(frame(HEADERS, 0, 1, block(GRPC_HEADERS)))
    for _ in range(2000):
        memory.receive(frame(CONTINUATION, 0, 1, part))
        if memory.connection.ending:
            break
    assert is_calmed(memory)
    assert memory.grpc.calls == []


def test_header_bomb():
    """RFC 7541 section 7.1: a few bytes that refer to a large table entry again and again."""
    memory = Memory()
    bomb = Encoder().encode([(name, value) for name, value in [*GRPC_HEADERS, ("bomb", "x" * 3000)]])
    memory.receive(frame(HEADERS, 5, 1, bomb))
    memory.frames()
    memory.receive(frame(HEADERS, 5, 3, b"\xbe" * 60_000))
    assert is_calmed(memory)


def test_a_header_list_over_the_soft_limit_is_refused_on_its_stream():
    """The header table stays right, so the connection goes on; 431 or RESOURCE_EXHAUSTED says why."""
    memory = Memory(limits=Limits(head_nbytes=1000), http=EchoHandler())
    memory.receive(headers_frame(1, [*GRPC_HEADERS, ("long", "x" * 1000)], end=True))
    assert memory.answer(1).status == 8
    memory.receive(headers_frame(3, [*HTTP_HEADERS, ("long", "x" * 1000)], end=True))
    assert memory.answer(3).blocks[0][":status"] == "431"
    memory.receive(headers_frame(5, [*HTTP_HEADERS, ("long", "x" * 2000)], end=True))
    assert is_calmed(memory)


def test_too_many_headers_are_refused_on_their_stream():
    memory = Memory(limits=Limits(header_count=10))
    memory.receive(headers_frame(1, [*GRPC_HEADERS, *[(f"n{number}", "") for number in range(10)]], end=True))
    assert memory.answer(1).status == 8
    memory.receive(call_bytes(3))
    assert memory.answer(3).status == 0


@pytest.mark.parametrize("kind", [SETTINGS, PING, RST_STREAM, PRIORITY, GOAWAY])
def test_control_frames_of_absurd_length_are_not_waited_for(kind):
    memory = Memory()
    memory.receive(frame(kind, 0, 0, bytes(100_000))[:9])
    assert is_calmed(memory)


def test_declaring_much_takes_no_memory():
    """A prefix that promises 2 GiB is followed by nothing; so are a thousand that promise 2 MiB."""
    import resource  # noqa: PLC0415

    class NoBuffers(type(Memory().grpc)):
        def message_buffer(self, call, first, nbytes):
            return None

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    memory = Memory(grpc=NoBuffers())
    for number in range(1, 2001, 2):
        promised = (2**31 - 1) if number == 1 else 2 << 20
        data = b"\0" + promised.to_bytes(4, "big") + bytes(4096)
        memory.receive(headers_frame(number, method="Stream") + frame(DATA, 0, number, data))
    assert not is_calmed(memory)
    assert memory.connection.in_flight == 1000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 * 1024
    memory.lose()


def sweep(memory, seconds):
    """Let the time pass as a listener does: a sweep every second."""
    for _ in range(int(seconds)):
        memory.loop.advance(1.0)
        memory.context.now = memory.loop.now
        memory.connection.sweep(memory.loop.now)
        if memory.connection.ending:
            break


LIMITS = Limits(head_timeout_s=20, body_timeout_s=30, write_timeout_s=30)


@pytest.mark.parametrize("opening", [b"", PREFACE[:10], PREFACE, PREFACE + frame(SETTINGS, 0, 0)[:8]])
def test_a_stalled_preface(opening):
    memory = Memory(limits=LIMITS, opening=opening)
    sweep(memory, 20)
    assert not memory.connection.ending
    sweep(memory, 2)
    assert memory.connection.ending
    assert is_calmed(memory)


@pytest.mark.parametrize("sent", [headers_frame(3)[:4], headers_frame(3)[:40], frame(HEADERS, 0, 3, b"\x80")])
def test_a_stalled_header_block(sent):
    memory = Memory(limits=LIMITS)
    memory.receive(sent)
    sweep(memory, 20)
    assert not memory.connection.ending
    sweep(memory, 3)
    assert is_calmed(memory)


def test_a_header_block_that_trickles_in_is_stalled_too():
    memory = Memory(limits=LIMITS)
    for byte in headers_frame(3)[:30]:
        memory.receive(bytes((byte,)))
        sweep(memory, 1)
    assert is_calmed(memory)


def test_a_busy_connection_whose_reads_end_within_frames_is_not_stalled():
    memory = Memory(limits=LIMITS)
    data = b"".join(call_bytes(number) for number in range(1, 241, 2))
    step = len(data) // 60 + 1
    for start in range(0, len(data), step):
        memory.receive(data[start : start + step])
        sweep(memory, 1)
    assert not is_calmed(memory)


def test_a_message_that_stops_in_the_middle():
    memory = Memory(
        limits=LIMITS, opening=OPENING + headers_frame(1, method="Stream") + headers_frame(3, method="Stream")
    )
    memory.receive(frame(DATA, 0, 1, message(b"x" * 100)[:50]))
    sweep(memory, 30)
    assert memory.connection.in_flight == 2
    sweep(memory, 2)
    answer = memory.answer(1)
    assert (answer.status, answer.reset) == (4, ErrorCode.NO_ERROR)
    assert [call.stream_id for call in memory.grpc.cancelled_calls] == [1]
    sweep(memory, 100)
    assert memory.connection.in_flight == 1, "a stream between its messages may rest as long as it likes"


def test_a_message_that_comes_slowly_but_comes():
    memory = Memory(limits=LIMITS, opening=OPENING + OPEN)
    for byte in message(b"hello"):
        memory.receive(frame(DATA, 0, 1, bytes((byte,))))
        sweep(memory, 20)
    assert memory.answer(1).messages == [(0, b"hello")]


def test_a_body_that_stops_in_the_middle():
    memory = Memory(limits=LIMITS, http=EchoHandler())
    memory.receive(headers_frame(1, HTTP_HEADERS) + frame(DATA, 0, 1, b"x"))
    sweep(memory, 32)
    answer = memory.answer(1)
    assert (answer.blocks[0][":status"], answer.reset) == ("408", ErrorCode.NO_ERROR)
    assert memory.http.events.empty()


def test_a_stream_that_is_never_read():
    """Its queue is given up; the connection, which moves, goes on."""
    memory = Memory(limits=LIMITS, opening=OPENING + settings((4, 10)))
    memory.receive(call_bytes(1, b"x" * 100))
    for number in range(3, 1003, 2):
        sweep(memory, 1)
        memory.receive(call_bytes(number, b""))
        if memory.answer(1).reset is not None:
            break
    assert number == pytest.approx(2 * UNREAD_PATIENCE * 30, abs=6)
    assert memory.connection.in_flight == 0
    assert not memory.connection.ending


def test_a_connection_that_is_never_read():
    memory = Memory(limits=LIMITS)
    memory.receive(call_bytes(1, b"x" * 100_000))
    memory.receive(window_update(1, 1 << 20))
    sweep(memory, UNREAD_PATIENCE * 30)
    assert not memory.connection.ending
    sweep(memory, 3)
    assert is_calmed(memory)


def test_a_stream_that_grows_faster_than_it_is_read():
    """Nothing but this bounds what a handler streams to a client that takes nothing."""
    memory = Memory(limits=Limits(unsent_nbytes=1000), opening=OPENING + OPEN, http=EchoHandler())
    memory.receive(headers_frame(3, [(n, "/hold" if n == ":path" else v) for n, v in HTTP_HEADERS], end=True))
    exchange = memory.http.next("request")
    exchange.start(200, b"")
    (call,) = memory.grpc.calls
    for _ in range(200):
        call.send((b"x" * 1000,))
        exchange.write(b"x" * 1000)
    assert memory.grpc.cancelled_calls == [], "the handler is not called back from within its own call"
    frames = memory.frames()
    assert {Answer(frames, number).reset for number in (1, 3)} == {CALM}
    assert memory.grpc.cancelled_calls == [call]
    assert memory.http.next("disconnected") is exchange
    assert memory.connection.in_flight == 0


def test_a_slow_reader_that_reads():
    memory = Memory(limits=LIMITS)
    memory.receive(call_bytes(1, b"x" * 100_000) + window_update(1, 1 << 20))
    for _ in range(9):
        sweep(memory, 100)
        memory.receive(window_update(0, 1))
    assert not is_calmed(memory)


def test_a_socket_that_takes_nothing():
    memory = Memory(limits=Limits(unsent_nbytes=1000, write_timeout_s=30))
    memory.transport.stuck = True
    memory.receive(call_bytes(1, b"x" * 2000))
    assert not memory.transport.reading
    sweep(memory, 30)
    assert not memory.transport.closed
    sweep(memory, 2)
    assert memory.transport.closed


def test_an_idle_connection_is_closed_politely_when_the_limit_says_so():
    memory = Memory(limits=Limits(idle_timeout_s=60))
    sweep(memory, 50)
    memory.receive(call_bytes(1, method="Held"))
    sweep(memory, 200)
    assert goaway_of(memory.frames()) is None
    memory.grpc.calls[0].respond((b"",))
    sweep(memory, 60)
    assert goaway_of(memory.frames()) is None
    sweep(memory, 3)
    assert goaway_of(memory.frames()) == (ErrorCode.NO_ERROR, b"")
    assert memory.transport.half_closed


def test_nothing_is_left_of_a_connection():
    """Neither stream nor timer: what is not referenced is not kept."""
    import gc  # noqa: PLC0415

    from shoal.transport.grpc_call import GrpcStream  # noqa: PLC0415

    def alive():
        gc.collect()
        return sum(isinstance(thing, GrpcStream | Http2Connection) for thing in gc.get_objects())

    before = alive()
    memory = Memory()
    headers = [*GRPC_HEADERS, ("grpc-timeout", "1H")]
    memory.receive(headers_frame(1, headers) + frame(DATA, 0, 1, b"\0\0") + call_bytes(3, method="Held"))
    assert len(memory.loop.timers) == 1
    memory.lose()
    assert len(memory.grpc.cancelled_calls) == 2
    assert memory.loop.timers == []
    assert memory.context.connections == set()
    del memory
    assert alive() == before
