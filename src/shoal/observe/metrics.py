"""The metrics page: what a Prometheus server reads from ``/metrics``.

Everything is read at scrape time from a ``MetricsSource``; between scrapes nothing runs. The text format, its escaping
included, is ``prometheus_client``'s.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.observe.cache_metrics import CacheSample, cache_families
from shoal.observe.machine import CpuMeter, memory_use, process_use
from shoal.observe.model_metrics import model_families
from shoal.observe.source import MetricsSource, ModelSample, ProcessSample

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The page's content type."""

_TRITON_COUNTER = re.compile(rb"^((?:# (?:HELP|TYPE) )?nv_\w+)_total(?=[ {])", re.MULTILINE)
"""A Triton counter as the library writes it; Triton's names came before the rule that counters end in ``_total``."""


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """What the metrics page shows besides the models.

    Attributes:
        cpu: the machine's processors and memory (``nv_cpu_*``).
        interval_ms: the shortest time over which utilization is measured.
    """

    cpu: bool = True
    interval_ms: int = 2000


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a ``MetricsSource`` said at one moment."""

    models: tuple[ModelSample, ...]
    processes: tuple[ProcessSample, ...]
    connections: Mapping[str, int]
    cache: CacheSample | None = None


class Metrics:
    """Collects the metrics of a server; also a ``prometheus_client`` collector, for use in a registry of one's own."""

    def __init__(
        self,
        source: MetricsSource,
        settings: MetricsSettings | None = None,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        settings = settings or MetricsSettings()
        self._source = source
        self._cpu = CpuMeter(settings.interval_ms, now_ns) if settings.cpu else None

    def snapshot(self) -> Snapshot:
        """Ask the source, on the thread that the source belongs to: the event loop's."""
        source = self._source
        models, processes = tuple(source.models()), tuple(source.processes())
        for model in models:
            model.statistics.log.settle()
        return Snapshot(models, processes, dict(source.connections()), source.cache())

    def render(self, snapshot: Snapshot | None = None) -> bytes:
        """The whole page.

        The first call imports the library, about 60 ms, and a page takes 40 ms when there are a hundred models.
        So take the snapshot on the event loop and render it on another thread::

            page = await loop.run_in_executor(None, metrics.render, metrics.snapshot())

        Args:
            snapshot: what to show; None to take one now, on this thread.
        """
        from prometheus_client.exposition import generate_latest  # noqa: PLC0415 - see above

        # Older releases of the library are typed for registries alone; all they do with one is to collect.
        text: bytes = generate_latest(_Families(self, snapshot))  # type: ignore[arg-type,unused-ignore]
        return _TRITON_COUNTER.sub(rb"\1", text)

    def collect(self, snapshot: Snapshot | None = None) -> Iterator[Metric]:
        """Every family, as ``prometheus_client`` has them."""
        snapshot = snapshot or self.snapshot()
        yield from model_families(snapshot.models)
        yield from cache_families(snapshot.cache)
        if self._cpu is not None:
            yield from _machine_families(self._cpu)
        yield _connections(snapshot.connections)
        yield from _processes(snapshot.processes)


@dataclass(frozen=True, slots=True)
class _Families:
    """The families of one snapshot, in the form that the library's writer asks for."""

    metrics: Metrics
    snapshot: Snapshot | None

    def collect(self) -> Iterator[Metric]:
        return self.metrics.collect(self.snapshot)


def _connections(connections: Mapping[str, int]) -> Metric:
    metric = _metric("shoal_open_connections", "Open connections by service.", "gauge")
    for service, count in connections.items():
        metric.add_sample(metric.name, {"service": service}, count)
    return metric


def _processes(processes: Iterable[ProcessSample]) -> Iterator[Metric]:
    cpu = _metric("shoal_process_cpu_seconds", "Processor time that the process has used.", "counter")
    memory = _metric("shoal_process_resident_memory_bytes", "Resident memory, shared pages included.", "gauge")
    for process in processes:
        use = process_use(process.pid)
        if use is not None:
            labels = {"process": process.role.value, "model": process.model, "pid": str(process.pid)}
            cpu.add_sample(f"{cpu.name}_total", labels, use.cpu_seconds)
            memory.add_sample(memory.name, labels, use.resident_nbytes)
    yield from (cpu, memory)


def _machine_families(cpu: CpuMeter) -> Iterator[Metric]:
    utilization, memory = cpu.utilization(), memory_use()
    if utilization is not None:
        yield _gauge("nv_cpu_utilization", "CPU utilization rate [0.0 - 1.0]", utilization)
    if memory is not None:
        yield _gauge("nv_cpu_memory_total_bytes", "CPU total memory (RAM), in bytes", memory.total_nbytes)
        yield _gauge("nv_cpu_memory_used_bytes", "CPU used memory (RAM), in bytes", memory.used_nbytes)


def _gauge(name: str, help_text: str, value: float) -> Metric:
    metric = _metric(name, help_text, "gauge")
    metric.add_sample(name, {}, value)
    return metric


def _metric(name: str, help_text: str, kind: str) -> Metric:
    from prometheus_client.metrics_core import Metric  # noqa: PLC0415 - see render

    return Metric(name, help_text, kind)
