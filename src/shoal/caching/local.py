"""The cache in this process's memory: when it is full, what was not used for longest goes first."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable

from shoal.caching.contract import LocalCacheStatistics
from shoal.caching.rare_warning import RareWarning
from shoal.caching.settings import LocalSettings
from shoal.requests import InferResponse

ENTRY_NBYTES = 512
"""What an entry takes besides its tensors' bytes: its key, its objects and its place in the table."""

TENSOR_NBYTES = 64
"""What a tensor takes besides its bytes."""

log = logging.getLogger("shoal.cache")


class _Entry:
    __slots__ = ("expires_ns", "nbytes", "response")

    def __init__(self, response: InferResponse, nbytes: int, expires_ns: int) -> None:
        self.response = response
        self.nbytes = nbytes
        self.expires_ns = expires_ns


class LocalCache:
    """Keeps responses up to a number of bytes (a ``contract.ImmediateCache``).

    Every operation takes constant time, evictions aside, of which there are never more than insertions. A response that
    is too old goes when it is asked for, or when it is the least recently used.

    Args:
        settings: its size, and how long it keeps a response.
        now_ns: the clock.

    Attributes:
        used_nbytes: what its responses take; never more than its size.
    """

    def __init__(self, settings: LocalSettings, now_ns: Callable[[], int]) -> None:
        self.used_nbytes = 0
        self._size_nbytes = settings.size_nbytes
        self._ttl_ns = int(settings.ttl_s * 1e9)
        self._now_ns = now_ns
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._hits = self._misses = self._evictions = 0
        self._lookup_ns = self._insertion_ns = 0
        self._too_large = RareWarning(log)

    def lookup(self, key: bytes) -> InferResponse | None:
        """The response under this key; None for a miss."""
        started_ns = self._now_ns()
        entry = self._entries.get(key)
        if entry is not None and self._ttl_ns and entry.expires_ns <= started_ns:
            self._remove(key)
            entry = None
        if entry is None:
            self._misses += 1
        else:
            self._hits += 1
            self._entries.move_to_end(key)
        self._lookup_ns += self._now_ns() - started_ns
        return None if entry is None else entry.response

    def insert(self, key: bytes, response: InferResponse) -> None:
        """Keep a copy of a response; one that is larger than the whole cache is not kept."""
        started_ns = self._now_ns()
        nbytes = entry_nbytes(response)
        if nbytes > self._size_nbytes:
            self._too_large(
                "a response of model '%s' takes %d bytes and does not fit into the response cache of %d bytes",
                response.layout.model_name,
                nbytes,
                self._size_nbytes,
            )
        else:
            if key in self._entries:
                self._remove(key)
            self._make_room(nbytes)
            self._entries[key] = _Entry(_own(response), nbytes, started_ns + self._ttl_ns)
            self.used_nbytes += nbytes
        self._insertion_ns += self._now_ns() - started_ns

    def statistics(self) -> LocalCacheStatistics:
        """What it holds and did."""
        return LocalCacheStatistics(
            utilization=self.used_nbytes / self._size_nbytes,
            entries=len(self._entries),
            lookups=self._hits + self._misses,
            hits=self._hits,
            misses=self._misses,
            evictions=self._evictions,
            lookup_ns=self._lookup_ns,
            insertion_ns=self._insertion_ns,
        )

    def _make_room(self, nbytes: int) -> None:
        while self.used_nbytes + nbytes > self._size_nbytes:
            _, entry = self._entries.popitem(last=False)
            self.used_nbytes -= entry.nbytes
            self._evictions += 1

    def _remove(self, key: bytes) -> None:
        self.used_nbytes -= self._entries.pop(key).nbytes


def entry_nbytes(response: InferResponse) -> int:
    """What keeping a response takes."""
    nbytes = ENTRY_NBYTES
    for data in response.data:
        nbytes += memoryview(data).nbytes + TENSOR_NBYTES
    for name, value in (response.parameters or {}).items():
        nbytes += len(name) + TENSOR_NBYTES + (len(value) if isinstance(value, str) else 0) + TENSOR_NBYTES
    return nbytes


def _own(response: InferResponse) -> InferResponse:
    """The same response with data of its own: a view would hold the model's shared memory for as long as it is kept."""
    data = [part if type(part) is bytes else bytes(part) for part in response.data]
    return InferResponse(response.layout, data, dict(response.parameters) if response.parameters else None)
