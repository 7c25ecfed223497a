"""The metric families of models: Triton's by Triton's names, and Shoal's own histograms."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from shoal.errors import FailureReason
from shoal.observe.batch_metrics import batch_families
from shoal.observe.buckets import DURATION_BOUNDS_S, ROWS_BOUNDS
from shoal.observe.cache_metrics import model_cache_families
from shoal.observe.source import ModelSample

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

Labels = dict[str, str]


@dataclass(frozen=True, slots=True)
class _Family:
    """A family with one value per model version."""

    name: str
    help: str
    value: Callable[[ModelSample], float]
    kind: str = "counter"


_FAMILIES = (
    _Family(
        "nv_inference_request_success",
        "Number of successful inference requests, all batch sizes",
        lambda model: model.statistics.success_count,
    ),
    _Family(
        "nv_inference_count",
        "Number of inferences performed (does not include cached requests)",
        lambda model: model.statistics.inference_count,
    ),
    _Family(
        "nv_inference_exec_count",
        "Number of model executions performed (does not include cached requests)",
        lambda model: model.statistics.log.batches,
    ),
    _Family(
        "nv_inference_request_duration_us",
        "Cumulative inference request duration in microseconds (includes cached requests)",
        lambda model: model.statistics.request_ns // 1000,
    ),
    _Family(
        "nv_inference_queue_duration_us",
        "Cumulative inference queuing duration in microseconds (includes cached requests)",
        lambda model: model.statistics.queue_ns // 1000,
    ),
    _Family(
        "nv_inference_compute_input_duration_us",
        "Cumulative compute input duration in microseconds (does not include cached requests)",
        lambda model: model.statistics.compute_input_ns // 1000,
    ),
    _Family(
        "nv_inference_compute_infer_duration_us",
        "Cumulative compute inference duration in microseconds (does not include cached requests)",
        lambda model: model.statistics.compute_infer_ns // 1000,
    ),
    _Family(
        "nv_inference_compute_output_duration_us",
        "Cumulative inference compute output duration in microseconds (does not include cached requests)",
        lambda model: model.statistics.compute_output_ns // 1000,
    ),
    _Family(
        "nv_inference_pending_request_count",
        "Instantaneous number of pending requests awaiting execution per-model.",
        lambda model: model.queue.requests,
        "gauge",
    ),
    _Family("nv_model_load_duration_secs", "Model load time in seconds", lambda model: model.load_seconds, "gauge"),
    _Family(
        "shoal_inference_pending_rows",
        "Rows of the requests that wait in the model's queue.",
        lambda model: model.queue.rows,
        "gauge",
    ),
    _Family(
        "shoal_model_instances",
        "Instances of the model that can take batches.",
        lambda model: model.instances,
        "gauge",
    ),
    _Family(
        "shoal_worker_restarts",
        "How often a worker process of the model was replaced because it died or hung.",
        lambda model: model.worker_restarts,
    ),
)


@dataclass(frozen=True, slots=True)
class _DurationFamily:
    """A histogram of durations per model version."""

    name: str
    help: str
    buckets: Callable[[ModelSample], Sequence[int]]
    sum_ns: Callable[[ModelSample], int]


_DURATIONS = (
    _DurationFamily(
        "shoal_inference_request_duration_seconds",
        "Time from a request's arrival to its answer, for requests that succeeded.",
        lambda model: model.statistics.request_buckets,
        lambda model: model.statistics.request_ns,
    ),
    _DurationFamily(
        "shoal_inference_queue_duration_seconds",
        "Time that a request waited in the queue, for requests that succeeded.",
        lambda model: model.statistics.queue_buckets,
        lambda model: model.statistics.queue_ns,
    ),
    _DurationFamily(
        "shoal_inference_compute_infer_duration_seconds",
        "Time that the model took for a batch, each batch once.",
        lambda model: model.statistics.log.infer_buckets,
        lambda model: model.statistics.log.total.compute_infer_ns,
    ),
)


def labels_of(model: ModelSample) -> Labels:
    """A model version's labels: Triton's two, and its ``metric_tags`` with an underscore before their names."""
    labels = {"_" + re.sub(r"\W", "_", tag, flags=re.ASCII): value for tag, value in model.spec.metric_tags.items()}
    labels["model"] = model.spec.name
    labels["version"] = str(model.spec.version)
    return labels


def model_families(models: Iterable[ModelSample]) -> Iterator[Metric]:
    """Every family that has a series per model version."""
    from prometheus_client.metrics_core import Metric  # noqa: PLC0415 - a slow import that start-up does not need

    labelled = [(model, labels_of(model)) for model in models]
    for family in _FAMILIES:
        metric = Metric(family.name, family.help, family.kind)
        suffix = "_total" if family.kind == "counter" else ""
        for model, labels in labelled:
            metric.add_sample(family.name + suffix, labels, family.value(model))
        yield metric
    yield from model_cache_families(labelled)
    yield _failures(Metric("nv_inference_request_failure", _FAILURE_HELP, "counter"), labelled)
    for durations in _DURATIONS:
        metric = Metric(durations.name, durations.help, "histogram")
        for model, labels in labelled:
            add_histogram(metric, labels, DURATION_BOUNDS_S, durations.buckets(model), durations.sum_ns(model) / 1e9)
        yield metric
    yield _rows(Metric("shoal_inference_batch_rows", _ROWS_HELP, "histogram"), labelled)
    yield from batch_families(labelled)


_FAILURE_HELP = "Number of failed inference requests, all batch sizes"
_ROWS_HELP = "Rows of the batches that ran, by the reason for which the batch was closed."


def _failures(metric: Metric, labelled: list[tuple[ModelSample, Labels]]) -> Metric:
    for model, labels in labelled:
        for reason in FailureReason:
            count = model.statistics.failures[reason]
            metric.add_sample(f"{metric.name}_total", {**labels, "reason": reason.value}, count)
    return metric


def _rows(metric: Metric, labelled: list[tuple[ModelSample, Labels]]) -> Metric:
    for model, labels in labelled:
        for reason, histogram in model.statistics.log.rows_by_reason.items():
            add_histogram(
                metric, {**labels, "reason": reason.value}, ROWS_BOUNDS, histogram.counts, float(histogram.rows)
            )
    return metric


def add_histogram(metric: Metric, labels: Labels, bounds: Sequence[float], counts: Sequence[int], total: float) -> None:
    """Add one series of a histogram.

    Args:
        metric: the family.
        labels: the series' labels.
        bounds: the buckets' upper bounds.
        counts: how much fell into each bucket, and last what lies above all bounds.
        total: the observed values added up.
    """
    cumulated = list(accumulate(counts))
    for bound, count in zip((*map(repr, map(float, bounds)), "+Inf"), cumulated, strict=True):
        metric.add_sample(f"{metric.name}_bucket", {**labels, "le": bound}, count)
    metric.add_sample(f"{metric.name}_count", labels, cumulated[-1])
    metric.add_sample(f"{metric.name}_sum", labels, total)
