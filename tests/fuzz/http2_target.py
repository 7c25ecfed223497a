"""What is fuzzed of HTTP/2: frames of a client, changed and cut into reads, and what must hold whatever they are."""

import random
import struct
from pathlib import Path
from typing import NamedTuple

from shoal.transport.connection import Limits
from shoal.transport.http2 import Http2Connection
from shoal.transport.http2_frames import ACK, GOAWAY, PING, PREFACE, RST_STREAM, ErrorCode, frame
from tests.transport.http1_support import EchoHandler
from tests.transport.http2_support import Answer, EchoCalls, Memory, goaway_of

CORPUS = {path.name: path.read_bytes() for path in sorted((Path(__file__).parent / "corpus" / "http2").iterdir())}
LIMITS = Limits(head_nbytes=2000, header_count=20, body_nbytes=5000, message_nbytes=200_000, streams=8)
NUMBERS = (0, 1, 2, 3, 5, 7, 99, 2**31 - 1, 2**31)
PAYLOADS = (
    b"",
    bytes(4),
    bytes(5),
    bytes(8),
    b"\x7f\xff\xff\xff",
    b"\xff" * 9,
    b"\0\4\0\0\0\0",
    b"\0\4\x7f\xff\xff\xff",
    b"\0\1\0\0\0\0",
    b"\0\5\0\0\x40\0",
    b"\0\0\0\0\0",
    b"\0\0\0\0\1x",
    b"\1\0\0\0\1x",
    b"\0\xff\xff\xff\xff",
    b"\x82\x84\x86",
    b"\xbe" * 50,
    b"\x20",
    b"\x3f\xe1\x1f",
    b"\x40\1a\1b",
)


def frames_of(data: bytes) -> list[bytes]:
    """A sample behind its preface, frame by frame; the last may be cut short."""
    data = data.removeprefix(PREFACE)
    frames = []
    while len(data) >= 9:
        stop = 9 + (struct.unpack_from(">I", data)[0] >> 8)
        frames.append(data[:stop])
        data = data[stop:]
    return [*frames, data] if data else frames


def _change_frame(item: bytes, source: random.Random) -> bytes:
    """A frame with one part of it changed."""
    if len(item) < 9:
        return item
    word, flags, stream_id = struct.unpack_from(">IBI", item)
    kind, payload = word & 255, item[9:]
    match source.randrange(7):
        case 0:
            kind = source.randrange(12)
        case 1:
            flags ^= 1 << source.randrange(8)
        case 2:
            stream_id = source.choice(NUMBERS)
        case 3:
            payload = source.choice(PAYLOADS)
        case 4:
            at = source.randint(0, len(payload))
            payload = payload[:at] + bytes((source.randrange(256),)) + payload[at + source.randrange(2) :]
        case 5:
            payload = payload[: source.randint(0, len(payload))]
        case _:
            return struct.pack(">IBI", source.randrange(1 << 32), flags, stream_id) + payload
    return struct.pack(">IBI", (len(payload) << 8 | kind) & 0xFFFFFFFF, flags, stream_id & 0xFFFFFFFF) + payload


def mutate(data: bytes, source: random.Random) -> bytes:
    """A few random changes: of a frame, of their order, with a frame of another sample or one made up, of a byte."""
    frames = frames_of(data)
    for _ in range(source.randint(0, 5)):
        at = source.randrange(len(frames)) if frames else 0
        other = source.choice(frames_of(source.choice(list(CORPUS.values()))))
        made_up = frame(source.randrange(12), source.randrange(256), source.choice(NUMBERS), source.choice(PAYLOADS))
        match source.randrange(6):
            case 0 | 1 if frames:
                frames[at] = _change_frame(frames[at], source)
            case 2 if frames:
                frames.insert(source.randrange(len(frames)), frames.pop(at))
            case 3 if frames:
                frames[at] *= source.choice((0, 2, 3, 20))
            case 4:
                frames.insert(at, other)
            case _:
                frames.insert(at, made_up)
    data = PREFACE + b"".join(frames)
    if source.random() < 0.1:
        at = source.randrange(len(data))
        data = data[:at] + bytes((source.randrange(256),)) + data[at + 1 :]
    return data


def understood(memory: Memory) -> tuple[object, ...]:
    """What a connection took from its client: calls with their messages, and requests."""
    calls = [(call.path, call.stream_id, [bytes(data) for data in call.context]) for call in memory.grpc.calls]
    requests = []
    while not memory.http.events.empty():
        kind, exchange = memory.http.events.get()
        requests.append((kind, exchange.head.target, bytes(exchange.body)))
    return calls, requests


class Outcome(NamedTuple):
    """What a connection understood, how it ended, and whether a stream's end hung on the time."""

    understood: tuple[object, ...]
    goaway: int | None
    uncertain: bool


def is_between_frames(connection: Http2Connection) -> bool:
    """Whether a new frame may come now."""
    left = connection.rest or connection._body_left or connection._body_padding
    return connection.settled and not left and connection.block is None


def receive(data: bytes, edges: list[int]) -> Outcome:
    """Deliver the bytes in these reads and see that the connection is sound; returns what it understood."""
    memory = Memory(grpc=EchoCalls(), http=EchoHandler(), limits=LIMITS, opening=b"")
    for start, stop in zip([0, *edges], [*edges, len(data)], strict=True):
        memory.receive(data[start:stop])
    frames = memory.sent_before + memory.frames()
    goaway = goaway_of(frames)
    assert goaway is None or goaway[0] != ErrorCode.INTERNAL_ERROR, goaway
    assert memory.connection.ending == (goaway is not None or memory.transport.half_closed)
    assert sum(item.kind == GOAWAY for item in frames) <= 1
    for number in {item.stream_id for item in frames} - {0}:
        Answer([item for item in frames if item.stream_id == number], number)
    if not memory.connection.ending and is_between_frames(memory.connection):
        memory.receive(frame(PING, 0, 0, b"survives"))
        assert frame(PING, ACK, 0, b"survives") in [frame(*item) for item in memory.frames()]
    memory.loop.advance(10_000)
    memory.connection.sweep(memory.loop.now)
    unanswered = [stream for stream in memory.connection.streams.values() if not stream.answered]
    memory.lose()
    assert all(stream.answered for stream in unanswered)
    assert memory.connection.in_flight == 0
    assert memory.loop.timers == []
    assert memory.context.connections == set()
    uncertain = memory.connection.outbox.held_up or any(item.kind == RST_STREAM for item in frames)
    return Outcome(understood(memory), None if goaway is None else goaway[0], uncertain)


def check(data: bytes, edges: list[int]) -> None:
    """No exception escapes, nothing is left over, and the cuts between reads change nothing.

    A reader of a stream whose meaning depends on how it was cut is what request smuggling lives on. But for one thing:
    a stream whose answer is held up, or comes before the request has ended, may or may not be over when more comes.
    """
    whole, cut = receive(data, []), receive(data, edges)
    assert cut == whole or whole.uncertain or cut.uncertain
