"""The response cache of a server: made from its settings, put before the models that want it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from shoal.caching.content import ModelContent, identity_of
from shoal.caching.contract import (
    CacheRecorder,
    DeferredCache,
    ImmediateCache,
    LocalCacheStatistics,
    RemoteCacheStatistics,
)
from shoal.caching.local import LocalCache
from shoal.caching.settings import CacheSettings, LocalSettings
from shoal.caching.sink import CachedModel, DeferredCachingSink, ImmediateCachingSink
from shoal.clock import Clock
from shoal.config.spec import ModelSpec
from shoal.requests import Sink

Members = Callable[[], Sequence[ModelContent]]
"""The models that an ensemble is made of, as they are loaded now."""

log = logging.getLogger("shoal.cache")


def no_members() -> Sequence[ModelContent]:
    """The members of a model that is no ensemble."""
    return ()


class ResponseCaching:
    """A server's response cache. Made on the running event loop.

    Args:
        settings: which cache, and how it is set.
        clock: the clock.

    Raises:
        UnavailableError: it needs a package that is not installed.
    """

    def __init__(self, settings: CacheSettings, clock: Clock) -> None:
        self._now_ns = clock.now_ns
        self._local: ImmediateCache | None = None
        self._remote: DeferredCache | None = None
        if isinstance(settings, LocalSettings):
            self._local = LocalCache(settings, clock.now_ns)
        else:
            from shoal.caching.redis import RedisCache  # noqa: PLC0415 - only where there is one

            self._remote = RedisCache(settings)

    async def start(self) -> None:
        """Connect where there is something to connect to."""
        if self._remote is not None:
            await self._remote.start()

    async def drained(self) -> None:
        """Wait until no request waits for the cache; from now on none will."""
        if self._remote is not None:
            await self._remote.drained()

    async def stop(self) -> None:
        """End."""
        if self._remote is not None:
            await self._remote.stop()

    def statistics(self) -> LocalCacheStatistics | RemoteCacheStatistics:
        """What the cache counts."""
        if self._local is not None:
            return self._local.statistics()
        assert self._remote is not None
        return self._remote.statistics()

    async def before(
        self, spec: ModelSpec, sink: Sink, recorder: CacheRecorder, content: ModelContent, *, members: Members
    ) -> Sink:
        """What takes a model's requests in place of the sink that runs them."""
        model = CachedModel(spec, sink, recorder, identity_of(content, members), self._now_ns)
        if self._local is not None:
            return ImmediateCachingSink(model, self._local)
        assert self._remote is not None
        for part in (content, *members()):
            await asyncio.to_thread(part.fingerprint)
        return DeferredCachingSink(model, self._remote)


async def caching_sink(
    caching: ResponseCaching | None,
    spec: ModelSpec,
    sink: Sink,
    recorder: CacheRecorder,
    content: ModelContent,
    *,
    members: Members = no_members,
) -> Sink:
    """What takes a loaded model's requests: the response cache if it wants one and there is one, else what runs them.

    Args:
        caching: the server's cache, None when it has none.
        spec: the model.
        sink: what runs its requests.
        recorder: counts its hits and misses.
        content: what it was made from.
        members: for an ensemble, the models that it is made of.
    """
    if not spec.cached:
        return sink
    if caching is None:
        log.warning(
            "model '%s' has response_cache enabled, but the server has no cache: give --cache-config local,size=BYTES",
            spec.name,
        )
        return sink
    return await caching.before(spec, sink, recorder, content, members=members)
