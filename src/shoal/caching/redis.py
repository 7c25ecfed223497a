"""The cache in Redis, shared by servers, and what guards a server from it.

Requests do not talk to Redis one by one. Their keys wait in a queue; a few pumps, one per connection, each take what
waits and ask for it with one MGET, so that under load a round trip serves many requests. Values to be kept wait in a
second queue, bounded in bytes, from which the pumps write when they have asked.

Redis may be down, slow, full or hold something else: all of that is a miss. A failure of a connection opens a circuit
(see ``Circuit``): from then on requests are told at once that there is nothing, and a probe in the background finds out
when Redis is back. So an outage costs the requests that wait at its beginning one timeout, and the others nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, NamedTuple

from shoal.caching.circuit import Circuit
from shoal.caching.codec import BrokenValueError, ResponseCodec
from shoal.caching.contract import RemoteCacheStatistics, Told
from shoal.caching.rare_warning import RareWarning
from shoal.caching.redis_client import check_installed, make_client
from shoal.caching.settings import RedisSettings
from shoal.requests import InferResponse

if TYPE_CHECKING:
    from redis.asyncio import Redis

PREFIX = b"shoal:response:"
"""What the names of our keys in Redis begin with."""

MOST_KEYS = 32
"""Keys that one MGET asks for."""

MOST_WRITES = 16
"""Values that are written in one go."""

MOST_WAITING_NBYTES = 64 << 20
"""What values that wait to be written may take; what comes on top is not kept."""

log = logging.getLogger("shoal.cache")


class _Lookup(NamedTuple):
    key: bytes
    told: Told
    asked_s: float


class RedisCache:
    """Keeps responses in Redis (a ``contract.DeferredCache``).

    Args:
        settings: where Redis is, and how long to wait for it.

    Raises:
        UnavailableError: the ``redis`` package is not installed.
    """

    def __init__(self, settings: RedisSettings) -> None:
        check_installed()
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._client: Redis = make_client(settings)
        self._circuit = Circuit(self._loop.time)
        self._codec = ResponseCodec()
        self._lookups: deque[_Lookup] = deque()
        self._asked = 0
        self._writes: deque[tuple[bytes, bytes]] = deque()
        self._writes_nbytes = 0
        self._pumps = 0
        self._pump_starts = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._probing = False
        self._waking: asyncio.TimerHandle | None = None
        self._closed = False
        self._settled = asyncio.Event()
        self._failures = 0
        self._down, self._broken = RareWarning(log), RareWarning(log)
        self._not_kept = RareWarning(log)

    # --- DeferredCache ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect; that Redis cannot be reached is logged, and is no error."""
        await self._probe()

    def ask(self, key: bytes, told: Told) -> bool:
        """Look a key up and call ``told``, exactly once and not before this returns; False when Redis is not asked."""
        if not self._circuit.closed or self._closed:
            if self._circuit.probe_is_due() and not self._closed:
                self._start_probe()
            return False
        self._asked += 1
        self._lookups.append(_Lookup(key, told, self._loop.time()))
        self._want_pump()
        if self._waking is None:
            self._wake_in(self._settings.wait_timeout_s)
        return True

    def insert(self, key: bytes, response: InferResponse) -> None:
        """Keep a response, in a while."""
        if not self._circuit.closed or self._closed:
            return
        value = self._codec.dump(key, response)
        if self._writes_nbytes + len(value) > MOST_WAITING_NBYTES:
            self._failures += 1
            self._not_kept(
                "responses come faster than Redis takes them: not all of them are kept in the response cache"
            )
            return
        self._writes.append((key, value))
        self._writes_nbytes += len(value)
        self._want_pump()

    def statistics(self) -> RemoteCacheStatistics:
        """How it is doing."""
        return RemoteCacheStatistics(self._circuit.closed, self._failures)

    async def drained(self) -> None:
        """Take no more lookups, and wait until those taken are answered."""
        self._closed = True
        while self._asked:
            self._settled.clear()
            await self._settled.wait()

    async def stop(self) -> None:
        """End: lookups that wait are answered as misses."""
        self._closed = True
        if self._waking is not None:
            self._waking.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._miss_all()
        await asyncio.gather(*self._closing, self._close(self._client))

    # --- pumps ------------------------------------------------------------------------------------------------------

    def _want_pump(self) -> None:
        """See that what waits is taken: a pump that starts takes all that came in this turn of the event loop."""
        if not self._pump_starts and self._pumps < self._settings.pool_size:
            self._pumps += 1
            self._pump_starts = True
            self._start(self._pump(), self._tasks)

    def _start(self, work: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]) -> None:
        task = self._loop.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _pump(self) -> None:
        """Ask for what waits, then write what waits, until nothing does."""
        self._pump_starts = False
        try:
            while self._circuit.closed and (self._lookups or self._writes):
                if self._lookups:
                    await self._look_up()
                if self._writes and self._circuit.closed:
                    await self._write()
        finally:
            self._pumps -= 1

    async def _look_up(self) -> None:
        lookups = [self._lookups.popleft() for _ in range(min(MOST_KEYS, len(self._lookups)))]
        if self._lookups:
            self._want_pump()
        client = self._client
        values: list[Any] = []
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s + self._settings.socket_timeout_s):
                values = await client.mget([_name(lookup.key) for lookup in lookups])
            self._circuit.worked()
        except Exception as error:  # whatever it is, it is a miss
            self._failed(client, error)
        finally:  # also when the pump is cancelled
            for place, lookup in enumerate(lookups):
                self._tell(lookup, values[place] if place < len(values) else None)

    def _tell(self, lookup: _Lookup, value: object) -> None:
        response = None
        if isinstance(value, bytes):
            try:
                response = self._codec.load(lookup.key, value)
            except BrokenValueError as error:
                self._failures += 1
                self._broken("Redis has a value that is no response of ours, and it is passed over: %s", error)
        self._asked -= 1
        try:
            lookup.told(response)
        except Exception:  # the others must be told
            log.exception("what the response cache found could not be delivered")
        if self._closed and not self._asked:
            self._settled.set()

    async def _write(self) -> None:
        client, ttl_ms = self._client, round(self._settings.ttl_s * 1000) or None
        commands = client.pipeline(transaction=False)
        for _ in range(min(MOST_WRITES, len(self._writes))):
            key, value = self._writes.popleft()
            self._writes_nbytes -= len(value)
            commands.set(_name(key), value, px=ttl_ms)
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s + self._settings.socket_timeout_s):
                results = await commands.execute(raise_on_error=False)
        except Exception as error:  # whatever it is, nothing was kept
            self._failed(client, error)
            return
        for result in results:
            if isinstance(result, Exception):
                self._failures += 1
                self._not_kept("Redis did not keep a response: %s", result)

    # --- waiting ----------------------------------------------------------------------------------------------------

    def _wake_in(self, delay_s: float) -> None:
        self._waking = self._loop.call_later(delay_s, self._expire)

    def _expire(self) -> None:
        """Lookups that no connection was free for in time are misses."""
        self._waking = None
        now_s = self._loop.time()
        while self._lookups:
            left_s = self._lookups[0].asked_s + self._settings.wait_timeout_s - now_s
            if left_s > 0:
                self._wake_in(left_s)
                return
            self._tell(self._lookups.popleft(), None)

    def _miss_all(self) -> None:
        while self._lookups:
            self._tell(self._lookups.popleft(), None)
        self._writes.clear()
        self._writes_nbytes = 0

    # --- down and up again ------------------------------------------------------------------------------------------

    def _failed(self, client: Redis, error: Exception) -> None:
        """A command failed: its connections are not used again, and nothing is asked for a while."""
        self._failures += 1
        if client is not self._client:  # another command of the same outage told it already
            return
        self._circuit.open()
        self._down(
            "the response cache in Redis at %s:%d does not work, requests run without it: %s",
            self._settings.host,
            self._settings.port,
            str(error) or type(error).__name__,
        )
        self._client = make_client(self._settings)
        self._start(self._close(client), self._closing)
        self._miss_all()

    def _start_probe(self) -> None:
        if not self._probing:
            self._probing = True
            self._start(self._probe(), self._tasks)

    async def _probe(self) -> None:
        """See whether Redis is there."""
        self._probing = True
        client = self._client
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s + self._settings.socket_timeout_s):
                await client.ping()  # type: ignore[misc,unused-ignore] # typed for both kinds of client at once
        except Exception as error:  # it is not there yet
            self._failed(client, error)
        else:
            self._circuit.close()
            log.info("the response cache in Redis at %s:%d works", self._settings.host, self._settings.port)
        finally:
            self._probing = False

    @staticmethod
    async def _close(client: Redis) -> None:
        try:
            await client.aclose(close_connection_pool=True)
        except Exception as error:  # nothing depends on it
            log.debug("a connection to Redis could not be closed: %r", error)


def _name(key: bytes) -> bytes:
    """What a key is called in Redis; readable, for whoever looks there."""
    return PREFIX + key.hex().encode()
