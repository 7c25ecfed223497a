"""RFC 9113 rule by rule: what a client sends, and the error, or the peace, that must follow. Over real sockets."""
# ruff: noqa: E501  # the cases are a table: one line each

import struct
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from shoal.transport.http2_frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    GOAWAY,
    HAS_PRIORITY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    ErrorCode,
    frame,
)
from shoal.transport.http2_settings import FRAME_NBYTES
from tests.transport.http1_support import Server
from tests.transport.http2_support import (
    GRPC_HEADERS,
    HTTP_HEADERS,
    OPENING,
    Wire,
    block,
    call_bytes,
    goaway_of,
    headers_frame,
    message,
    rst,
    serve_http2,
    settings,
    window_update,
)

OPEN = headers_frame(1, method="Held")
HELD = call_bytes(1, method="Held")
DONE = call_bytes(1)
BLOCK = block(GRPC_HEADERS)
E = ErrorCode


class Case(NamedTuple):
    """What is sent behind the preface and SETTINGS, and what must come back."""

    name: str
    sent: bytes
    goaway: ErrorCode | None = None
    reset: tuple[int, ErrorCode] | None = None
    opening: bytes = OPENING


def without(name: str) -> list[tuple[str, str]]:
    return [header for header in HTTP_HEADERS if header[0] != name]


def malformed(name: str, headers: list[tuple[str, str]]) -> Case:
    """A request that section 8 calls malformed."""
    return Case(name, headers_frame(1, headers, end=True), reset=(1, E.PROTOCOL_ERROR))


CASES = [
    # 3.4: the preface
    Case("3.4 not a preface", b"", goaway=E.PROTOCOL_ERROR, opening=b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(PING, 0, 0, b"8" * 8)),
    Case("3.4 the first SETTINGS is an ACK", b"", goaway=E.PROTOCOL_ERROR, opening=PREFACE + frame(SETTINGS, ACK, 0)),
    # 4.1 and 5.5: unknown frames and flags are ignored
    Case("4.1 unknown frame type", frame(0x20, 0xFF, 0, b"x" * 100)),
    Case("4.1 unknown frame type on an idle stream", frame(0xFA, 0, 77, b"x" * 20_000)),
    Case("4.1 PRIORITY_UPDATE", frame(0x10, 0, 0, struct.pack(">I", 1) + b"u=1")),
    Case("4.1 unknown flags", frame(PING, 0xFE, 0, b"whatever")),
    Case("4.1 the reserved bit of the stream", frame(HEADERS, END_HEADERS, 1 | 1 << 31, BLOCK)),
    # 4.2: frame sizes
    Case("4.2 DATA over the limit", OPEN + struct.pack(">IBI", (FRAME_NBYTES + 1) << 8, 0, 1), goaway=E.FRAME_SIZE_ERROR),
    Case("4.2 HEADERS over the limit", struct.pack(">IBI", (FRAME_NBYTES + 1) << 8 | 1, 4, 1), goaway=E.FRAME_SIZE_ERROR),
    Case("4.2 DATA longer than 16 KiB", OPEN + frame(DATA, 0, 1, message(b"x" * 50_000)[:40_000])),
    # 4.3: header compression
    Case("4.3 index 0", frame(HEADERS, 5, 1, b"\x80"), goaway=E.COMPRESSION_ERROR),
    Case("4.3 index beyond the table", frame(HEADERS, 5, 1, b"\xff\x20"), goaway=E.COMPRESSION_ERROR),
    Case("4.3 truncated literal", frame(HEADERS, 5, 1, b"\x00\x05ab"), goaway=E.COMPRESSION_ERROR),
    Case("4.3 table size over the limit", frame(HEADERS, 5, 1, b"\x3f\xe2\x1f" + BLOCK), goaway=E.COMPRESSION_ERROR),
    Case("4.3 table size update behind a field", frame(HEADERS, 5, 1, BLOCK + b"\x20"), goaway=E.COMPRESSION_ERROR),
    Case("4.3 bad Huffman code", frame(HEADERS, 5, 1, b"\x00\x84\xff\xff\xff\xff\x01a"), goaway=E.COMPRESSION_ERROR),
    Case("4.3 interleaved DATA", frame(HEADERS, 0, 1, BLOCK) + frame(DATA, 0, 1), goaway=E.PROTOCOL_ERROR),
    Case("4.3 interleaved unknown frame", frame(HEADERS, 0, 1, BLOCK) + frame(0x20, 0, 0), goaway=E.PROTOCOL_ERROR),
    Case("4.3 interleaved HEADERS", frame(HEADERS, 0, 1, BLOCK) + headers_frame(3), goaway=E.PROTOCOL_ERROR),
    # 5.1: stream states
    Case("5.1 DATA on an idle stream", frame(DATA, 1, 1, b"x"), goaway=E.PROTOCOL_ERROR),
    Case("5.1 RST_STREAM on an idle stream", rst(1), goaway=E.PROTOCOL_ERROR),
    Case("5.1 WINDOW_UPDATE on an idle stream", window_update(1, 1), goaway=E.PROTOCOL_ERROR),
    Case("5.1 PRIORITY on an idle stream", frame(PRIORITY, 0, 1, b"\0\0\0\0\x10")),
    Case("5.1 DATA on a half-closed stream", HELD + frame(DATA, 0, 1, b"x"), reset=(1, E.STREAM_CLOSED)),
    Case("5.1 HEADERS on a half-closed stream", HELD + headers_frame(1, end=True), reset=(1, E.STREAM_CLOSED)),
    Case("5.1 WINDOW_UPDATE on a half-closed stream", HELD + window_update(1, 100)),
    Case("5.1 PRIORITY on a half-closed stream", HELD + frame(PRIORITY, 0, 1, b"\0\0\0\0\x10")),
    Case("5.1 DATA on a closed stream", DONE + frame(DATA, 0, 1, b"x"), reset=(1, E.STREAM_CLOSED)),
    Case("5.1 DATA after RST_STREAM", OPEN + rst(1) + frame(DATA, 0, 1, b"x"), reset=(1, E.STREAM_CLOSED)),
    Case("5.1 HEADERS on a closed stream", DONE + headers_frame(1), goaway=E.STREAM_CLOSED),
    Case("5.1 HEADERS after RST_STREAM", OPEN + rst(1) + headers_frame(1), goaway=E.STREAM_CLOSED),
    Case("5.1 WINDOW_UPDATE on a closed stream", DONE + window_update(1, 1)),
    Case("5.1 RST_STREAM on a closed stream", DONE + rst(1)),
    Case("5.1 RST_STREAM twice", OPEN + rst(1) + rst(1)),
    Case("5.1 PRIORITY on a closed stream", DONE + frame(PRIORITY, 0, 1, b"\0\0\0\0\x10")),
    # 5.1.1: stream numbers
    Case("5.1.1 an even stream", headers_frame(2), goaway=E.PROTOCOL_ERROR),
    Case("5.1.1 a lower stream", call_bytes(5) + headers_frame(3), goaway=E.PROTOCOL_ERROR),
    # 6.1: DATA
    Case("6.1 DATA on stream 0", frame(DATA, 0, 0, b"x"), goaway=E.PROTOCOL_ERROR),
    Case("6.1 padding as long as the payload", OPEN + frame(DATA, PADDED, 1, b"\x05abcd"), goaway=E.PROTOCOL_ERROR),
    Case("6.1 padded without a length", OPEN + frame(DATA, PADDED, 1, b""), goaway=E.FRAME_SIZE_ERROR),
    Case("6.1 nothing but padding", OPEN + frame(DATA, PADDED, 1, b"\x04abcd")),
    # 6.2: HEADERS
    Case("6.2 HEADERS on stream 0", frame(HEADERS, 5, 0, BLOCK), goaway=E.PROTOCOL_ERROR),
    Case("6.2 padding over the payload", frame(HEADERS, 4 | PADDED, 1, b"\xff" + BLOCK), goaway=E.PROTOCOL_ERROR),
    Case("6.2 padded without a length", frame(HEADERS, 4 | PADDED, 1), goaway=E.FRAME_SIZE_ERROR),
    Case("6.2 priority cut short", frame(HEADERS, 4 | HAS_PRIORITY, 1, b"abc"), goaway=E.FRAME_SIZE_ERROR),
    Case("6.2 padding and priority", frame(HEADERS, 4 | PADDED | HAS_PRIORITY, 1, b"\x03\0\0\0\0\x10" + BLOCK + b"pad")),
    # 6.3: PRIORITY
    Case("6.3 PRIORITY on stream 0", frame(PRIORITY, 0, 0, b"\0\0\0\0\x10"), goaway=E.PROTOCOL_ERROR),
    Case("6.3 PRIORITY of 4 bytes", OPEN + frame(PRIORITY, 0, 1, b"\0\0\0\0"), reset=(1, E.FRAME_SIZE_ERROR)),
    # 6.4: RST_STREAM
    Case("6.4 RST_STREAM on stream 0", rst(0), goaway=E.PROTOCOL_ERROR),
    Case("6.4 RST_STREAM of 3 bytes", OPEN + frame(RST_STREAM, 0, 1, b"\0\0\0"), goaway=E.FRAME_SIZE_ERROR),
    # 6.5: SETTINGS
    Case("6.5 SETTINGS on a stream", frame(SETTINGS, 0, 1), goaway=E.PROTOCOL_ERROR),
    Case("6.5 SETTINGS of 5 bytes", frame(SETTINGS, 0, 0, b"12345"), goaway=E.FRAME_SIZE_ERROR),
    Case("6.5 an acknowledgement with content", frame(SETTINGS, ACK, 0, b"\0\1\0\0\0\0"), goaway=E.FRAME_SIZE_ERROR),
    Case("6.5 ENABLE_PUSH 2", settings((2, 2)), goaway=E.PROTOCOL_ERROR),
    Case("6.5 INITIAL_WINDOW_SIZE 2^31", settings((4, 2**31)), goaway=E.FLOW_CONTROL_ERROR),
    Case("6.5 MAX_FRAME_SIZE 16383", settings((5, 16383)), goaway=E.PROTOCOL_ERROR),
    Case("6.5 MAX_FRAME_SIZE 2^24", settings((5, 2**24)), goaway=E.PROTOCOL_ERROR),
    Case("6.5 all known settings", settings((1, 0), (2, 1), (3, 0), (4, 1000), (5, 16384), (6, 100), (8, 1), (9, 1))),
    Case("6.5 unknown setting", settings((0xABCD, 2**32 - 1))),
    Case("RFC 9218 NO_RFC7540_PRIORITIES 2", settings((9, 2)), goaway=E.PROTOCOL_ERROR),
    # 6.6: PUSH_PROMISE
    Case("6.6 PUSH_PROMISE", OPEN + frame(PUSH_PROMISE, 4, 1, b"\0\0\0\2" + BLOCK), goaway=E.PROTOCOL_ERROR),
    # 6.7: PING
    Case("6.7 PING of 7 bytes", frame(PING, 0, 0, b"1234567"), goaway=E.FRAME_SIZE_ERROR),
    Case("6.7 PING on a stream", frame(PING, 0, 1, b"12345678"), goaway=E.PROTOCOL_ERROR),
    Case("6.7 an acknowledgement that nobody asked for", frame(PING, ACK, 0, b"12345678")),
    # 6.8: GOAWAY
    Case("6.8 GOAWAY on a stream", frame(GOAWAY, 0, 1, b"\0" * 8), goaway=E.PROTOCOL_ERROR),
    Case("6.8 GOAWAY of 7 bytes", frame(GOAWAY, 0, 0, b"\0" * 7), goaway=E.FRAME_SIZE_ERROR),
    Case("6.8 GOAWAY while a call is open", HELD + frame(GOAWAY, 0, 0, b"\0" * 8)),
    # 6.9: WINDOW_UPDATE
    Case("6.9 WINDOW_UPDATE of 3 bytes", frame(WINDOW_UPDATE, 0, 0, b"\0\0\1"), goaway=E.FRAME_SIZE_ERROR),
    Case("6.9 increment 0 on the connection", window_update(0, 0), goaway=E.PROTOCOL_ERROR),
    Case("6.9 increment 0 on a stream", OPEN + window_update(1, 0), reset=(1, E.PROTOCOL_ERROR)),
    Case("6.9.1 the connection's window overflows", window_update(0, 2**31 - 1), goaway=E.FLOW_CONTROL_ERROR),
    Case("6.9.1 a stream's window overflows", OPEN + window_update(1, 2**31 - 1), reset=(1, E.FLOW_CONTROL_ERROR)),
    Case("6.9.2 SETTINGS overflow a stream's window", OPEN + window_update(1, 2**31 - 65536) + settings((4, 65536)), goaway=E.FLOW_CONTROL_ERROR),
    # 6.10: CONTINUATION
    Case("6.10 CONTINUATION out of place", frame(CONTINUATION, 4, 1, BLOCK), goaway=E.PROTOCOL_ERROR),
    Case("6.10 CONTINUATION behind END_HEADERS", OPEN + frame(CONTINUATION, 4, 1, b""), goaway=E.PROTOCOL_ERROR),
    Case("6.10 CONTINUATION on another stream", frame(HEADERS, 0, 1, BLOCK) + frame(CONTINUATION, 4, 3), goaway=E.PROTOCOL_ERROR),
    Case("6.10 a block in three parts", frame(HEADERS, 0, 1, BLOCK[:5]) + frame(CONTINUATION, 0, 1, b"") + frame(CONTINUATION, 4, 1, BLOCK[5:])),
    # 8.1: messages
    Case("8.1 HEADERS behind HEADERS", OPEN + headers_frame(1), reset=(1, E.PROTOCOL_ERROR)),
    Case("8.1 trailers with a pseudo-header", OPEN + headers_frame(1, end=True), reset=(1, E.PROTOCOL_ERROR)),
    Case("8.1 trailers", OPEN + frame(DATA, 0, 1, message(b"x")) + headers_frame(1, [("a", "b")], end=True)),
    Case("8.1.1 content-length too small", headers_frame(1, [*HTTP_HEADERS, ("content-length", "1")]) + frame(DATA, 0, 1, b"xx"), reset=(1, E.PROTOCOL_ERROR)),
    Case("8.1.1 content-length too large", headers_frame(1, [*HTTP_HEADERS, ("content-length", "3")]) + frame(DATA, 1, 1, b"xx"), reset=(1, E.PROTOCOL_ERROR)),
    Case("8.1.1 content-length without DATA", headers_frame(1, [*HTTP_HEADERS, ("content-length", "3")], end=True), reset=(1, E.PROTOCOL_ERROR)),
    Case("8.1.1 content-length of a call", headers_frame(1, [*GRPC_HEADERS, ("content-length", "9")]) + frame(DATA, 1, 1, message(b"x")), reset=(1, E.PROTOCOL_ERROR)),
    malformed("8.1.1 content-length is no number", [*HTTP_HEADERS, ("content-length", "x")]),
    malformed("8.1.1 two content-lengths", [*HTTP_HEADERS, ("content-length", "0"), ("content-length", "1")]),
    # 8.2: fields
    malformed("8.2.1 upper-case name", [*HTTP_HEADERS, ("Accept", "x")]),
    malformed("8.2.1 space in a name", [*HTTP_HEADERS, ("a b", "x")]),
    malformed("8.2.1 empty name", [*HTTP_HEADERS, ("", "x")]),
    malformed("8.2.1 colon in a name", [*HTTP_HEADERS, ("a:b", "x")]),
    malformed("8.2.1 line feed in a value", [*HTTP_HEADERS, ("a", "x\ny: z")]),
    malformed("8.2.1 NUL in a value", [*HTTP_HEADERS, ("a", "x\0")]),
    malformed("8.2.1 carriage return in a pseudo-header", [*without(":path"), (":path", "/\r")]),
    malformed("8.2.1 space before a value", [*HTTP_HEADERS, ("a", " x")]),
    malformed("8.2.1 tab behind a value", [*HTTP_HEADERS, ("a", "x\t")]),
    *[malformed(f"8.2.2 {name}", [*HTTP_HEADERS, (name, "x")]) for name in ("connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade")],
    malformed("8.2.2 te: gzip", [*HTTP_HEADERS, ("te", "gzip")]),
    # 8.3: pseudo-headers
    *[malformed(f"8.3 no {name}", without(name)) for name in (":method", ":scheme", ":path")],
    *[malformed(f"8.3 {name} twice", [(name, "/x"), *HTTP_HEADERS]) for name in (":method", ":scheme", ":path", ":authority")],
    malformed("8.3 an unknown pseudo-header", [(":test", "x"), *HTTP_HEADERS]),
    malformed("8.3 a pseudo-header of responses", [*HTTP_HEADERS, (":status", "200")]),
    malformed("8.3 a pseudo-header behind a header", [*without(":path"), ("a", "b"), (":path", "/")]),
    malformed("8.3.1 empty :path", [*without(":path"), (":path", "")]),
    malformed("8.3.1 :path without a slash", [*without(":path"), (":path", "x")]),
    malformed("8.3.1 another host", [*HTTP_HEADERS, ("host", "elsewhere")]),
    malformed("8.5 CONNECT with a path", [*without(":method"), (":method", "CONNECT")]),
    malformed("8.5 CONNECT without an authority", [(":method", "CONNECT")]),
]  # fmt: skip


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with serve_http2(request.param) as running:
        yield running


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(server: Server, case: Case) -> None:
    """A broken rule is answered with its code, and what is no error leaves the connection in service."""
    with Wire(server.port, case.opening) as wire:
        wire.send(case.sent)
        frames = wire.probe()
        goaway = goaway_of(frames)
        resets = [(item.stream_id, *struct.unpack(">I", item.payload)) for item in frames if item.kind == RST_STREAM]
        assert goaway is None if case.goaway is None else (goaway is not None and goaway[0] == case.goaway)
        assert resets == ([] if case.reset is None else [case.reset])
        if case.goaway is None:
            wire.send(call_bytes(101))
            assert wire.answer(101).messages == [(0, b"hello")]
        else:
            assert frames[-1].kind == GOAWAY
            assert goaway is not None
            assert goaway[1], "GOAWAY says what is wrong"


def test_what_is_announced(server: Server) -> None:
    """Large windows and frames, so that tensors are not throttled; 6.5.3 the client's SETTINGS are acknowledged."""
    with Wire(server.port) as wire:
        frames = wire.probe()
    assert [(item.kind, item.flags) for item in frames[:3]] == [(SETTINGS, 0), (WINDOW_UPDATE, 0), (SETTINGS, ACK)]
    values = dict(struct.iter_unpack(">HI", frames[0].payload))
    assert values == {3: 1024, 4: 16 << 20, 5: 2 << 20, 6: 64 << 10, 9: 1}
    assert struct.unpack(">I", frames[1].payload)[0] == (64 << 20) - 65535


def test_ping_is_answered_with_its_payload(server: Server) -> None:
    with Wire(server.port) as wire:
        frames = wire.probe(b"\0\1\2\3\4\5\6\7")
    assert frames[-1] == (PING, ACK, 0, b"\0\1\2\3\4\5\6\7")


def test_frames_sent_before_the_client_saw_our_reset_are_ignored(server: Server) -> None:
    """5.1: a stream that we reset may still get DATA, trailers and WINDOW_UPDATE; the header table stays right."""
    with Wire(server.port) as wire:
        wire.send(headers_frame(1, method="Refused"))
        wire.send(frame(DATA, 0, 1, b"x" * 100) + window_update(1, 5) + headers_frame(1, [("a", "b")], end=True))
        frames = wire.probe()
        assert goaway_of(frames) is None
        assert [item.stream_id for item in frames if item.kind == RST_STREAM] == [1]
        assert wire.answer(1).reset == ErrorCode.NO_ERROR
        assert wire.answer(1).status == 7


def test_a_stream_over_the_limit_is_refused(loop_kind: str) -> None:
    """5.1.2: REFUSED_STREAM tells the client that it may try again; the streams below the limit go on."""
    from shoal.transport.connection import Limits  # noqa: PLC0415

    with serve_http2(loop_kind, limits=Limits(streams=2)) as server, Wire(server.port) as wire:
        wire.send(b"".join(call_bytes(number, method="Held") for number in (1, 3, 5)))
        wire.probe()
        assert wire.answer(5).reset == ErrorCode.REFUSED_STREAM
        wire.send(rst(1) + call_bytes(7))
        assert wire.answer(7).status == 0
