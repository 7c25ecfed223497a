"""What the HTTP/2 and gRPC tests share: handlers, frames, a connection in memory with a clock moved by hand."""

import heapq
import itertools
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from hpack import Decoder, Encoder

from shoal.transport.connection import ConnectionContext, Limits
from shoal.transport.http2 import Http2Connection
from shoal.transport.http2_flow import Outbox
from shoal.transport.http2_frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
)
from tests.transport.http1_support import TIMEOUT_S, EchoHandler, MemoryTransport, Server

GRPC_HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/echo.Echo/Unary"),
    (":authority", "127.0.0.1:8001"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
    ("user-agent", "test/1"),
]
HTTP_HEADERS = [(":method", "POST"), (":scheme", "http"), (":path", "/echo?x=1"), (":authority", "127.0.0.1:8000")]
OPENING = PREFACE + frame(SETTINGS, 0, 0)


class EchoCalls:
    """A gRPC handler whose methods are told apart by the last part of their path."""

    def __init__(self, compression_level=0):
        self.compression_level = compression_level
        self.calls = []
        self.cancelled_calls = []
        self.half_closed_calls = []
        self.drained_calls = []
        self.buffers = []

    def started(self, call):
        self.calls.append(call)
        call.context = []
        call.compression_level = self.compression_level
        method = call.path.rpartition("/")[2]
        call.unary = method in {"Unary", "Held", "Fail", "Metadata"}
        if method == "Refused":
            call.finish(7, "not for you")
        elif method == "Bug":
            raise RuntimeError("a bug of the handler")
        elif method not in {"Unary", "Held", "Fail", "Metadata", "Stream", "Collect", "Count"}:
            call.finish(12, f"no method '{method}'")

    def message_buffer(self, call, first, nbytes):
        assert len(first) >= min(nbytes, 4096)
        self.buffers.append((bytes(first[:16]), memoryview(bytearray(nbytes))))
        return self.buffers[-1][1]

    def message(self, call, message):
        method = call.path.rpartition("/")[2]
        call.context.append(message)
        if method == "Unary":
            call.respond((message,))
        elif method == "Metadata":
            call.respond((repr(call.metadata).encode(),))
        elif method == "Fail":
            call.finish(3, bytes(message).decode())
        elif method == "Stream":
            call.send((message,))
        elif method == "Count":
            for number in range(int(bytes(message))):
                call.send((b"%d" % number,))

    def drained(self, call):
        self.drained_calls.append((call, call.unsent_nbytes))

    def half_closed(self, call):
        self.half_closed_calls.append(call)
        if call.path.endswith("/Collect"):
            call.respond(call.context)
        elif call.path.endswith(("/Stream", "/Count")):
            call.finish(0, "")

    def cancelled(self, call):
        assert call not in self.cancelled_calls
        self.cancelled_calls.append(call)
        call.send((b"too late",))
        call.finish(0, "")


class Frame(NamedTuple):
    kind: int
    flags: int
    stream_id: int
    payload: bytes


def split_frames(data: bytes) -> list[Frame]:
    """Whole frames of what a server sent."""
    frames = []
    while data:
        word, flags, stream_id = struct.unpack_from(">IBI", data)
        stop = 9 + (word >> 8)
        assert len(data) >= stop, "the server sent a part of a frame"
        frames.append(Frame(word & 255, flags, stream_id, data[9:stop]))
        data = data[stop:]
    return frames


def block(headers, *more) -> bytes:
    """A header block that leaves the dynamic table alone."""
    return Encoder().encode([(name, value, True) for name, value in [*headers, *more]])


def with_path(headers, path):
    return [(name, path if name == ":path" else value) for name, value in headers]


def message(data: bytes, compressed: int = 0) -> bytes:
    return struct.pack(">BI", compressed, len(data)) + data


def headers_frame(stream_id: int, headers=None, *, end: bool = False, method: str = "Unary") -> bytes:
    headers = headers or with_path(GRPC_HEADERS, f"/echo.Echo/{method}")
    return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream_id, block(headers))


def call_bytes(stream_id: int, data: bytes = b"hello", method: str = "Unary") -> bytes:
    """A whole unary call."""
    return headers_frame(stream_id, method=method) + frame(DATA, END_STREAM, stream_id, message(data))


def settings(*values) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *value) for value in values))


def window_update(stream_id: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream_id, struct.pack(">I", increment))


def rst(stream_id: int, code: int = 8) -> bytes:
    return frame(RST_STREAM, 0, stream_id, struct.pack(">I", code))


class Answer:
    """What the frames of one stream say together."""

    def __init__(self, frames, stream_id, decoder=None):
        decoder = decoder or Decoder()
        self.blocks = []
        self.body = b""
        self.reset = None
        self.ended = False
        pending = b""
        for kind, flags, number, payload in frames:
            if number != stream_id:
                continue
            if kind in (1, 9):
                pending += payload
                if flags & END_HEADERS:
                    self.blocks.append(dict(decoder.decode(pending)))
                    pending = b""
            if kind == DATA:
                assert not self.ended
                self.body += payload
            if kind in (DATA, HEADERS) and flags & END_STREAM:
                self.ended = True
            if kind == RST_STREAM:
                self.reset = struct.unpack(">I", payload)[0]

    @property
    def status(self):
        """The gRPC status; None when there is none."""
        return int(self.blocks[-1]["grpc-status"]) if self.blocks and "grpc-status" in self.blocks[-1] else None

    @property
    def messages(self):
        data, found = self.body, []
        while data:
            compressed, nbytes = struct.unpack_from(">BI", data)
            found.append((compressed, data[5 : 5 + nbytes]))
            data = data[5 + nbytes :]
        return found


class ManualHandle:
    def __init__(self, when, callback):
        self.when, self.callback, self.cancelled = when, callback, False

    def cancel(self):
        self.cancelled = True


class ManualLoop:
    """The part of an event loop that a connection uses, with a clock moved by hand."""

    def __init__(self):
        self.now = 1000.0
        self._order = itertools.count()
        self._soon = []
        self._timers = []

    def time(self):
        return self.now

    def call_soon(self, callback, *arguments):
        self._soon.append((callback, arguments))

    def call_at(self, when, callback):
        handle = ManualHandle(when, callback)
        heapq.heappush(self._timers, (when, next(self._order), handle))
        return handle

    def call_later(self, delay, callback, *arguments):
        return self.call_at(self.now + delay, lambda: callback(*arguments))

    def run(self):
        """Run what is due."""
        while self._soon or (self._timers and self._timers[0][0] <= self.now):
            soon, self._soon = self._soon, []
            for callback, arguments in soon:
                callback(*arguments)
            while self._timers and self._timers[0][0] <= self.now:
                handle = heapq.heappop(self._timers)[2]
                if not handle.cancelled:
                    handle.callback()

    def advance(self, seconds):
        self.now += seconds
        self.run()

    @property
    def timers(self):
        """Timers that are still to fire."""
        return [handle for _, _, handle in self._timers if not handle.cancelled]


class FullTransport(MemoryTransport):
    """A transport whose socket takes nothing while ``stuck``: it pauses its connection above the limit, as loops do."""

    connection = None
    stuck = False

    def write(self, data):
        super().write(bytes(data))
        if self.stuck:
            self.unsent_nbytes += len(data)
            if self.unsent_nbytes > self.high and self.connection is not None and not self.connection.paused:
                self.connection.pause_writing()

    def writelines(self, pieces):
        self.write(b"".join(pieces))

    def unstick(self):
        self.stuck = False
        self.unsent_nbytes = 0
        if self.connection.paused:
            self.connection.resume_writing()

    def is_closing(self):
        return self.closed


class WatchedOutbox(Outbox):
    """Knows whether an answer ever had to wait."""

    held_up = False

    def data(self, sender, parts, nbytes):
        super().data(sender, parts, nbytes)
        self.held_up = self.held_up or sender.queue is not None


class Memory:
    """An HTTP/2 connection without a socket."""

    def __init__(self, *, grpc=None, http=None, limits=None, opening=OPENING):
        self.loop = ManualLoop()
        self.grpc = grpc or EchoCalls()
        self.http = http
        self.context = ConnectionContext(self.loop, http, self.grpc, limits or Limits())
        self.connection = Http2Connection(self.context)
        self.connection.outbox = WatchedOutbox(self.loop)
        self.transport = FullTransport()
        self.transport.connection = self.connection
        self.connection.connection_made(self.transport)
        self.decoder = Decoder()
        self.receive(opening)
        self.sent_before = self.frames()

    def receive(self, data, chunk=1 << 20):
        """Let bytes arrive in reads of at most ``chunk`` and go once round the loop."""
        view = memoryview(data)
        while view and not self.transport.closed:
            buffer = self.connection.get_buffer(-1)
            nbytes = min(len(buffer), len(view), chunk)
            buffer[:nbytes] = view[:nbytes]
            self.connection.buffer_updated(nbytes)
            view = view[nbytes:]
        self.loop.run()

    def frames(self):
        """What was sent since the last time."""
        self.loop.run()
        data = b"".join(self.transport.writes)
        self.transport.writes.clear()
        return split_frames(data)

    def answer(self, stream_id):
        return Answer(self.frames(), stream_id, self.decoder)

    def lose(self):
        self.connection.connection_lost(None)
        self.loop.run()


def goaway_of(frames):
    """The code and text of the GOAWAY among the frames; None when there is none."""
    found = [item for item in frames if item.kind == GOAWAY]
    return (struct.unpack(">II", found[-1].payload[:8])[1], found[-1].payload[8:]) if found else None


class Wire:
    """A real socket that sends bytes and reads frames."""

    def __init__(self, port, opening=OPENING):
        self.socket = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.frames = []
        self._data = b""
        self.send(opening)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def read(self):
        """The next frame; None when the server has closed."""
        while len(self._data) < 9 or len(self._data) < 9 + (struct.unpack_from(">I", self._data)[0] >> 8):
            received = self.socket.recv(1 << 20)
            if not received:
                assert not self._data
                return None
            self._data += received
        stop = 9 + (struct.unpack_from(">I", self._data)[0] >> 8)
        self.frames += split_frames(self._data[:stop])
        self._data = self._data[stop:]
        return self.frames[-1]

    def probe(self, payload=b"probe..."):
        """Send a PING and read until it is answered or the server ends; returns all frames so far."""
        self.send(frame(PING, 0, 0, payload))
        while (item := self.read()) is not None and (item.kind, item.payload) != (PING, payload):
            pass
        return self.frames

    def answer(self, stream_id):
        """Read until the stream has ended."""
        while not (found := Answer(self.frames, stream_id)).ended and found.reset is None:
            assert self.read() is not None
        return found


@contextmanager
def serve_http2(kind, *, grpc=None, http=True, limits=None, ssl_context=None) -> Iterator[Server]:
    """A listener on a thread; in the end nothing may be left of its connections, nor an exception."""
    handler = EchoHandler() if http else None
    server = Server(
        kind, handler, limits=limits or Limits(), grpc=grpc or EchoCalls(), ssl_context=ssl_context, address="127.0.0.1"
    )
    try:
        yield server
    finally:
        server.close()
    assert not server.context.connections
    assert server.errors == []
