"""What a response cache is.

There are two kinds. One that lies in this process answers at once, so a request that hits costs neither a task nor a
future. One that lies elsewhere answers later, through a call; a request may be cancelled meanwhile. Whatever goes wrong
in a cache is a miss: it never fails a request, and never holds one up for long.

A kept response is an ``InferResponse`` whose data nobody else owns. It is handed out many times and never changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from shoal.errors import FailureReason
from shoal.requests import InferRequest, InferResponse

Told = Callable[[InferResponse | None], None]
"""What a cache calls with what it found; None for a miss."""


@dataclass(frozen=True, slots=True)
class LocalCacheStatistics:
    """What the local cache holds and did so far (Triton's ``nv_cache_*`` gauges).

    Attributes:
        utilization: the part of its size that is used, 0 to 1.
        entries: responses that it holds.
        lookups: keys that it was asked for: hits and misses.
        hits: those that it had.
        misses: those that it had not.
        evictions: responses that went to make room.
        lookup_ns: the time that lookups took, added up.
        insertion_ns: the time that insertions took.
    """

    utilization: float
    entries: int
    lookups: int
    hits: int
    misses: int
    evictions: int
    lookup_ns: int
    insertion_ns: int


@dataclass(frozen=True, slots=True)
class RemoteCacheStatistics:
    """How a cache elsewhere is doing.

    Attributes:
        available: whether it is asked; not while it is down.
        failures: lookups and insertions that failed because of it.
    """

    available: bool
    failures: int


class ImmediateCache(Protocol):
    """A cache that answers at once."""

    def lookup(self, key: bytes) -> InferResponse | None:
        """The response under this key; None for a miss."""

    def insert(self, key: bytes, response: InferResponse) -> None:
        """Keep a response; its data may be views that will be gone, so it is copied."""

    def statistics(self) -> LocalCacheStatistics:
        """What it holds and did."""


class DeferredCache(Protocol):
    """A cache that answers later, on the event loop. Other servers, and this one after a restart, see what it holds."""

    def ask(self, key: bytes, told: Told) -> bool:
        """Look a key up and call ``told``, exactly once and not before this returns.

        Returns:
            Whether it will; False when the cache cannot be asked now, which is a miss.
        """

    def insert(self, key: bytes, response: InferResponse) -> None:
        """Keep a response, in a while; its data may be views that will be gone, so it is copied."""

    def statistics(self) -> RemoteCacheStatistics:
        """How it is doing."""

    async def start(self) -> None:
        """Connect; that it cannot be reached is logged, and is no error."""

    async def drained(self) -> None:
        """Take no more lookups, and wait until those taken are answered."""

    async def stop(self) -> None:
        """End: lookups that wait are answered as misses."""


class CacheRecorder(Protocol):
    """Counts what the cache does for one model version."""

    def cache_hit(self, request: InferRequest, lookup_ns: int, now_ns: int) -> None:
        """A request was answered from the cache.

        Args:
            request: the request.
            lookup_ns: how long the lookup took.
            now_ns: the time.
        """

    def cache_miss(self, took_ns: int) -> None:
        """A request that was looked up in vain was answered; ``took_ns`` is its lookup's and its insertion's time."""

    def request_failed(self, request: InferRequest, reason: FailureReason, now_ns: int) -> None:
        """A request was answered with an error while its lookup was under way."""
