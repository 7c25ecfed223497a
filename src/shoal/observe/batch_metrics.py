"""The metric families that the batch log gives: per instance, per priority level, and what padding costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from shoal.observe.batch_log import Totals
from shoal.observe.source import ModelSample

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

Labels = dict[str, str]
Labelled = Iterable[tuple[ModelSample, Labels]]


class _Family(NamedTuple):
    """A counter with one value per instance or per priority level."""

    name: str
    help: str
    value: Callable[[Totals], float]


_BY_INSTANCE = (
    _Family("shoal_instance_batches", "Batches that an instance ran.", lambda totals: totals.batches),
    _Family("shoal_instance_rows", "Rows of the batches that an instance ran.", lambda totals: totals.rows),
    _Family(
        "shoal_instance_busy_seconds",
        "Time from taking a batch from the queue to its answers, added up by instance.",
        lambda totals: totals.busy_ns / 1e9,
    ),
)
_BY_PRIORITY = (
    _Family("shoal_priority_requests", "Requests that ran, by priority level.", lambda totals: totals.requests),
    _Family(
        "shoal_priority_queue_seconds",
        "Time that requests waited in the queue, added up by priority level.",
        lambda totals: totals.waited_ns / 1e9,
    ),
)
_PADDING = ("shoal_padding_elements", "Elements of padded inputs: those that clients sent, and those that fill up.")


def batch_families(labelled: Labelled) -> Iterator[Metric]:
    """Every family, with a series for each instance, priority level and kind of element that there is."""
    from prometheus_client.metrics_core import Metric  # noqa: PLC0415 - a slow import that start-up does not need

    labelled = list(labelled)
    for family in _BY_INSTANCE:
        metric = Metric(family.name, family.help, "counter")
        for model, labels in labelled:
            if not model.spec.instances:  # an ensemble
                continue
            for number, totals in model.statistics.log.by_instance.items():
                name = model.spec.instances[number].name
                metric.add_sample(f"{family.name}_total", {**labels, "instance": name}, family.value(totals))
        yield metric
    for family in _BY_PRIORITY:
        metric = Metric(family.name, family.help, "counter")
        for model, labels in labelled:
            for level, totals in model.statistics.log.by_priority.copy().items():
                metric.add_sample(f"{family.name}_total", {**labels, "priority": str(level)}, family.value(totals))
        yield metric
    padding = Metric(*_PADDING, "counter")
    for model, labels in labelled:
        log = model.statistics.log
        if log.padded_elements:
            filled = log.padded_elements - log.elements
            padding.add_sample(f"{padding.name}_total", {**labels, "kind": "sent"}, log.elements)
            padding.add_sample(f"{padding.name}_total", {**labels, "kind": "padding"}, filled)
    yield padding
