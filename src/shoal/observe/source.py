"""What the metrics page is made from: the server hands it out at scrape time, and nothing is kept between scrapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from shoal.caching.contract import LocalCacheStatistics, RemoteCacheStatistics
from shoal.config.spec import ModelSpec
from shoal.observe.statistics import ModelStatistics
from shoal.scheduling.contract import QueueStatistics


@dataclass(frozen=True, slots=True)
class ModelSample:
    """One model version being served.

    Attributes:
        spec: the model.
        statistics: what it has done so far.
        queue: its queue at this moment.
        load_seconds: how long it took to load.
        instances: how many of its instances can take batches at this moment.
        worker_restarts: how often a worker of it was replaced.
    """

    spec: ModelSpec
    statistics: ModelStatistics
    queue: QueueStatistics
    load_seconds: float
    instances: int
    worker_restarts: int


class Role(Enum):
    """What a process of the server does."""

    SERVER = "server"
    FORK_SERVER = "fork_server"
    WORKER = "worker"


@dataclass(frozen=True, slots=True)
class ProcessSample:
    """One process of the server; ``model`` is set for a worker that serves a single model."""

    pid: int
    role: Role
    model: str = ""


class MetricsSource(Protocol):
    """Who knows what the metrics page shows: the server."""

    def models(self) -> Iterable[ModelSample]:
        """Every model version that is loaded."""

    def processes(self) -> Iterable[ProcessSample]:
        """The server's own process and those that it started."""

    def connections(self) -> Mapping[str, int]:
        """Open connections by service, such as ``http``, ``grpc`` and ``metrics``."""

    def cache(self) -> LocalCacheStatistics | RemoteCacheStatistics | None:
        """What the response cache counts; None without one."""
