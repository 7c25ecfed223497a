"""What the HTTP/1.1 tests share: an echo handler, a server on a thread, a raw client, and a transport in memory."""

import asyncio
import queue
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import uvloop

from shoal.transport.connection import ConnectionContext, Limits
from shoal.transport.http1 import Http1Connection
from shoal.transport.listener import Listener

TIMEOUT_S = 20
OCTETS = b"Content-Type: application/octet-stream\r\n"

T = TypeVar("T")


class EchoHandler:
    """Answers by path: ``/hold`` later, ``/stream`` in parts, ``/fail`` with a bug; others with the body."""

    def __init__(self):
        self.events = queue.Queue()
        self.buffers = []

    def body_buffer(self, head, nbytes):
        self.buffers.append(memoryview(bytearray(nbytes)))
        return self.buffers[-1]

    def request(self, exchange):
        self.events.put(("request", exchange))
        path = exchange.head.path
        if path == "/hold":
            return
        if path == "/fail":
            raise RuntimeError("a bug of the handler")
        if path == "/stream":
            exchange.start(200, OCTETS)
            for part in bytes(exchange.body).split(b"|"):
                exchange.write(part)
            exchange.finish()
            return
        exchange.respond(200, OCTETS, [exchange.body])

    def disconnected(self, exchange):
        self.events.put(("disconnected", exchange))

    def next(self, kind):
        """The exchange of the next event, which must be of this kind."""
        event, exchange = self.events.get(timeout=TIMEOUT_S)
        assert event == kind
        return exchange


class Server:
    """A listener on a thread of its own."""

    def __init__(self, kind, handler, *, limits, grpc, ssl_context, address):
        self.handler = handler
        self.errors = []
        self._loop = uvloop.new_event_loop() if kind == "uvloop" else asyncio.SelectorEventLoop()
        self._loop.set_exception_handler(lambda _, details: self.errors.append(details))
        self.context = ConnectionContext(self._loop, handler, grpc, limits)
        self.listener = Listener(self.context, address, 0, ssl_context=ssl_context)
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.wait(self.listener.start())

    @property
    def port(self):
        return self.listener.port

    def wait(self, awaitable):
        """Run a coroutine on the server's loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(awaitable, self._loop).result(TIMEOUT_S)

    def call(self, function: Callable[..., T], *arguments) -> T:
        """Call a function on the server's thread."""

        async def run():
            return function(*arguments)

        return self.wait(run())

    def sweep_after(self, seconds):
        """Sweep as if so much time had passed."""
        self.call(lambda: self.listener.sweep(self._loop.time() + seconds))

    def until(self, condition):
        """Wait until something is true on the server's thread; its loop goes round in between."""

        async def poll():
            while not condition():  # noqa: ASYNC110 # one turn of the loop; what changes knows no event
                await asyncio.sleep(0)

        self.wait(asyncio.wait_for(poll(), TIMEOUT_S))

    def connect(self):
        return RawClient(socket.create_connection(("127.0.0.1", self.port), TIMEOUT_S))

    def close(self):
        try:
            self.wait(self.listener.stop(0))
            self._settle()
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _settle(self):
        """Wait until asyncio has closed its sockets, those too that were just accepted or just forgotten."""
        for _ in range(5):
            self.wait(asyncio.sleep(0))
            if isinstance(self._loop, asyncio.SelectorEventLoop):  # only its own wake-up pipe may be left
                self.until(lambda: len(self._loop._selector.get_map()) == 1)


@contextmanager
def serve(
    kind: str,
    handler: EchoHandler | None = None,
    *,
    limits: Limits | None = None,
    grpc: object = None,
    http: bool = True,
    ssl_context: ssl.SSLContext | None = None,
    address: str = "127.0.0.1",
    expect_errors: int = 0,
) -> Iterator[Server]:
    """A running server; when it ends no connection may be left, nor an exception that nobody expected."""
    handler = (handler or EchoHandler()) if http else None
    server = Server(kind, handler, limits=limits or Limits(), grpc=grpc, ssl_context=ssl_context, address=address)
    try:
        yield server
    finally:
        server.close()
    assert not server.context.connections
    assert len(server.errors) == expect_errors, server.errors


class Response(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class RawClient:
    """A socket that sends bytes and reads responses."""

    def __init__(self, sock):
        self.socket = sock
        sock.settimeout(TIMEOUT_S)
        self._buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def response(self, method="GET"):
        """The next response; the body ends where HTTP/1.1 says it does."""
        lines = self._until(b"\r\n\r\n").decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
        status = int(lines[0].split(" ")[1])
        if method == "HEAD" or status in (100, 204, 304):
            body = b""
        elif headers.get("transfer-encoding") == "chunked":
            body = b"".join(self._chunks())
        elif "content-length" in headers:
            body = self._exactly(int(headers["content-length"]))
        else:
            body = self.rest()
        return Response(status, headers, body)

    def rest(self):
        """Everything until the server closes."""
        while self._receive():
            pass
        data, self._buffer = self._buffer, b""
        return data

    def closed(self):
        """Whether the server has closed, and said nothing more."""
        try:
            return self.rest() == b""
        except ConnectionResetError:
            return True

    def _chunks(self):
        while nbytes := int(self._until(b"\r\n"), 16):
            yield self._exactly(nbytes)
            assert self._exactly(2) == b"\r\n"
        assert self._exactly(2) == b"\r\n"

    def _until(self, mark):
        while mark not in self._buffer:
            if not self._receive():
                raise ConnectionError(f"the server closed after {self._buffer!r}")
        data, _, self._buffer = self._buffer.partition(mark)
        return data

    def _exactly(self, nbytes):
        while len(self._buffer) < nbytes:
            if not self._receive():
                raise ConnectionError(f"the server closed after {len(self._buffer)} of {nbytes} bytes")
        data, self._buffer = self._buffer[:nbytes], self._buffer[nbytes:]
        return data

    def _receive(self):
        data = self.socket.recv(1 << 20)
        self._buffer += data
        return data


class MemoryTransport(asyncio.Transport):
    """Keeps what is written, and what was asked of it."""

    def __init__(self):
        super().__init__()
        self.writes = []
        self.closed = False
        self.half_closed = False
        self.reading = True
        self.unsent_nbytes = 0

    def write(self, data):
        assert not self.half_closed
        self.writes.append(data)

    def get_write_buffer_size(self):
        return self.unsent_nbytes

    def set_write_buffer_limits(self, high=None, low=None):
        self.high = high

    def pause_reading(self):
        assert self.reading
        self.reading = False

    def resume_reading(self):
        assert not self.reading
        self.reading = True

    def can_write_eof(self):
        return True

    def write_eof(self):
        self.half_closed = True

    def close(self):
        self.closed = True

    abort = close

    @property
    def sent(self):
        return b"".join(bytes(data) for data in self.writes)


class MemoryConnection:
    """An HTTP/1.1 connection without a socket."""

    def __init__(self, handler=None, limits=None):
        self.loop = asyncio.new_event_loop()
        self.errors = []
        self.loop.set_exception_handler(lambda _, details: self.errors.append(details))
        self.handler = handler or EchoHandler()
        self.context = ConnectionContext(self.loop, self.handler, None, limits or Limits())
        self.context.now = 1000.0
        self.transport = MemoryTransport()
        self.connection = Http1Connection(self.context)
        self.connection.connection_made(self.transport)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.connection.connection_lost(None)
        self.loop.close()

    def receive(self, data):
        """Deliver bytes as a loop does: in as many reads as it takes."""
        view = memoryview(data)
        while view:
            buffer = self.connection.get_buffer(-1)
            nbytes = min(len(buffer), len(view))
            buffer[:nbytes] = view[:nbytes]
            self.connection.buffer_updated(nbytes)
            view = view[nbytes:]

    def sweep(self, now):
        self.context.now = now
        self.connection.sweep(now)

    def requests(self):
        """The requests so far, as (method, target, body)."""
        found = []
        while not self.handler.events.empty():
            kind, exchange = self.handler.events.get()
            if kind == "request":
                found.append((exchange.head.method, exchange.head.target, bytes(exchange.body)))
        return found
