"""An open-loop HTTP client: it sends when it is time to, whatever the server does, and counts from that moment."""

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast

MOST_CONNECTIONS = 512


@dataclass
class Outcome:
    """What came of a load: latencies in seconds of the answered requests, and how many were refused."""

    latencies_s: list[float] = field(default_factory=list)
    refused: int = 0
    duration_s: float = 0.0

    @property
    def answered_per_second(self) -> float:
        """Answers in a second."""
        return len(self.latencies_s) / self.duration_s

    @property
    def mean_ms(self) -> float:
        """The mean latency."""
        return sum(self.latencies_s) / len(self.latencies_s) * 1e3

    def percentile_ms(self, percent: float) -> float:
        """The latency that this part of the answers did not pass."""
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] * 1e3

    def in_time(self, target_s: float) -> float:
        """Which part of all requests was answered within this time."""
        return sum(latency_s <= target_s for latency_s in self.latencies_s) / (len(self.latencies_s) + self.refused)


class Connection(asyncio.Protocol):
    """One connection, with one request in flight at most."""

    def __init__(self, player: "Player") -> None:
        self.player = player
        self.transport: asyncio.Transport
        self.due_s = 0.0
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its base class

    def send(self, request: bytes, due_s: float) -> None:
        """Send a request that was to be sent at this moment."""
        self.due_s = due_s
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        """A part of the answer."""
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        if len(body) >= int(length.split(b":")[1]):
            self._received = b""
            self.player.answered(self, ok=head.startswith(b"HTTP/1.1 200"))


class Player:
    """Plays a load to a server."""

    def __init__(self, host: str, port: int, request: bytes) -> None:
        self._address = (host, port)
        self._request = request
        self._idle: deque[Connection] = deque()
        self._waiting: deque[float] = deque()
        self._open = 0
        self._in_flight = 0
        self._counted_from_s = 0.0
        self._finished = asyncio.Event()
        self.outcome = Outcome()

    async def play(self, moments_s: Iterable[float], warm_up_s: float) -> Outcome:
        """Send a request at each moment, counted from now; those of the warm-up are not reported."""
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(self._connect() for _ in range(64)))
        start_s = loop.time() + 0.05
        self._counted_from_s = start_s + warm_up_s
        for moment_s in moments_s:
            due_s = start_s + moment_s
            if due_s > loop.time():
                await asyncio.sleep(due_s - loop.time())
            self._send(due_s)
        while self._in_flight or self._waiting:
            self._finished.clear()
            await self._finished.wait()
        self.outcome.duration_s = loop.time() - self._counted_from_s
        for connection in self._idle:
            connection.transport.close()
        return self.outcome

    async def _connect(self) -> None:
        self._open += 1
        _, connection = await asyncio.get_running_loop().create_connection(lambda: Connection(self), *self._address)
        self._idle.append(connection)
        if self._waiting:
            self._start(self._waiting.popleft())

    def _send(self, due_s: float) -> None:
        if self._idle:
            self._start(due_s)
            return
        self._waiting.append(due_s)
        if self._open < MOST_CONNECTIONS:
            asyncio.get_running_loop().create_task(self._connect())

    def _start(self, due_s: float) -> None:
        self._in_flight += 1
        self._idle.pop().send(self._request, due_s)

    def answered(self, connection: Connection, *, ok: bool) -> None:
        """A connection has its answer."""
        self._in_flight -= 1
        if connection.due_s >= self._counted_from_s:
            if ok:
                self.outcome.latencies_s.append(asyncio.get_running_loop().time() - connection.due_s)
            else:
                self.outcome.refused += 1
        self._idle.append(connection)
        if self._waiting:
            self._start(self._waiting.popleft())
        elif not self._in_flight:
            self._finished.set()
