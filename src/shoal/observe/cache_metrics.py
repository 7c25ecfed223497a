"""The metric families of the response cache: Triton's by Triton's names, and how a cache elsewhere is doing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from shoal.caching.contract import LocalCacheStatistics, RemoteCacheStatistics
from shoal.observe.source import ModelSample
from shoal.observe.statistics import ModelStatistics

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

CacheSample = LocalCacheStatistics | RemoteCacheStatistics


class _PerModel(NamedTuple):
    """A counter with one series per model that asks for the cache."""

    name: str
    help: str
    value: Callable[[ModelStatistics], int]


class _Gauge(NamedTuple):
    """A gauge of the local cache; gauges they all are in Triton."""

    name: str
    help: str
    value: Callable[[LocalCacheStatistics], float]


_PER_MODEL = (
    _PerModel("nv_cache_num_hits_per_model", "Number of cache hits per model", lambda of: of.cache_hit_count),
    _PerModel(
        "nv_cache_hit_duration_per_model",
        "Total cache hit duration per model, in microseconds",
        lambda of: of.cache_hit_ns // 1000,
    ),
    _PerModel("nv_cache_num_misses_per_model", "Number of cache misses per model", lambda of: of.cache_miss_count),
    _PerModel(
        "nv_cache_miss_duration_per_model",
        "Total cache miss (insert+lookup) duration per model, in microseconds",
        lambda of: of.cache_miss_ns // 1000,
    ),
)

_LOCAL = (
    _Gauge("nv_cache_util", "Cache utilization [0.0 - 1.0]", lambda of: of.utilization),
    _Gauge("nv_cache_num_entries", "Number of responses stored in response cache", lambda of: of.entries),
    _Gauge("nv_cache_num_hits", "Number of cache hits in response cache", lambda of: of.hits),
    _Gauge("nv_cache_num_misses", "Number of cache misses in response cache", lambda of: of.misses),
    _Gauge("nv_cache_num_lookups", "Number of cache lookups in response cache", lambda of: of.lookups),
    _Gauge("nv_cache_num_evictions", "Number of cache evictions in response cache", lambda of: of.evictions),
    _Gauge(
        "nv_cache_lookup_duration",
        "Total cache lookup duration (hit and miss), in microseconds",
        lambda of: of.lookup_ns // 1000,
    ),
    _Gauge(
        "nv_cache_insertion_duration",
        "Total cache insertion duration, in microseconds",
        lambda of: of.insertion_ns // 1000,
    ),
)


def model_cache_families(labelled: Sequence[tuple[ModelSample, dict[str, str]]]) -> Iterator[Metric]:
    """The families of models with ``response_cache.enable``, whether or not the server has a cache; as in Triton.

    Args:
        labelled: every model, with its labels.
    """
    from prometheus_client.metrics_core import Metric  # noqa: PLC0415 - a slow import that start-up does not need

    cached = [(model.statistics, labels) for model, labels in labelled if model.spec.cached]
    if not cached:
        return
    for family in _PER_MODEL:
        metric = Metric(family.name, family.help, "counter")
        for statistics, labels in cached:
            metric.add_sample(f"{family.name}_total", labels, family.value(statistics))
        yield metric


def cache_families(cache: CacheSample | None) -> Iterator[Metric]:
    """The families of the cache itself; none without one."""
    from prometheus_client.metrics_core import Metric  # noqa: PLC0415 - see above

    if isinstance(cache, LocalCacheStatistics):
        for gauge in _LOCAL:
            metric = Metric(gauge.name, gauge.help, "gauge")
            metric.add_sample(gauge.name, {}, gauge.value(cache))
            yield metric
    elif isinstance(cache, RemoteCacheStatistics):
        metric = Metric("shoal_cache_available", "Whether the response cache is asked: 0 while it is down.", "gauge")
        metric.add_sample(metric.name, {}, int(cache.available))
        yield metric
        metric = Metric("shoal_cache_failures", "What the response cache was asked for and could not do.", "counter")
        metric.add_sample(f"{metric.name}_total", {}, cache.failures)
        yield metric
