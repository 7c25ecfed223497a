"""What serves a model version, as the floors above see it: a model with workers, or an ensemble of other models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from shoal.config.spec import ModelSpec
from shoal.execution.arena import Arena
from shoal.execution.worker_group import WorkerGroup
from shoal.requests import Sink
from shoal.scheduling.contract import QueueStatistics


class Runtime(Sink, Protocol):
    """Serves one model version. All of it is used on the event loop's thread.

    Attributes:
        spec: the model.
        groups: its workers; none for an ensemble.
    """

    spec: ModelSpec
    groups: Sequence[WorkerGroup]

    @property
    def ready(self) -> bool:
        """Whether it takes requests."""

    @property
    def in_flight(self) -> int:
        """Requests that wait or run."""

    @property
    def receive_arena(self) -> Arena | None:
        """The shared memory in which a large request is best received; None for no preference."""

    def queue_statistics(self) -> QueueStatistics:
        """What waits."""

    def beliefs(self) -> object | None:
        """What the scheduler has measured and decided, as a dataclass, where it decides by measurement."""

    def close(self, reason: str) -> None:
        """Take no more requests: they are answered with UNAVAILABLE and this reason. Those taken are answered yet."""

    async def drained(self) -> None:
        """Wait until no request waits or runs."""

    async def stop(self, timeout_s: float) -> None:
        """End; requests that still wait are answered with UNAVAILABLE."""


def ensembles_first(runtimes: Iterable[Runtime]) -> tuple[list[Runtime], list[Runtime]]:
    """The ensembles and the other models, in the order in which they end: ensembles use the others until then."""
    ensembles: list[Runtime] = []
    others: list[Runtime] = []
    for runtime in runtimes:
        (others if runtime.spec.ensemble is None else ensembles).append(runtime)
    return ensembles, others
