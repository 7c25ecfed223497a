"""``pb_utils.MetricFamily`` and ``Metric``: a model's own metrics.

The values live in the model's process; ``collect`` reads them all.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import accumulate, pairwise

from shoal.backends.triton_python.errors import TritonModelException


class MetricKind(IntEnum):
    """The kinds of metrics."""

    COUNTER = 0
    GAUGE = 1
    HISTOGRAM = 2


@dataclass(frozen=True, slots=True)
class Sample:
    """One metric's state.

    Attributes:
        family: the family's name.
        description: the family's description.
        kind: the family's kind.
        labels: the metric's labels.
        value: its value; for a histogram the sum of what was observed.
        buckets: for a histogram each bound and how many observations were not above it; the last bound is infinite.
    """

    family: str
    description: str
    kind: MetricKind
    labels: Mapping[str, str]
    value: float
    buckets: tuple[tuple[float, int], ...] = ()


class Metric:
    """One metric of a family; made by ``MetricFamily.Metric``."""

    __slots__ = ("_bounds", "_counts", "_family", "_labels", "_value")

    def __init__(self, family: MetricFamily, labels: Mapping[str, str], bounds: Sequence[float]) -> None:
        self._family = family
        self._labels = labels
        self._bounds = tuple(float(bound) for bound in bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._value = 0.0

    def increment(self, value: float) -> None:
        """Add to a counter or a gauge.

        Raises:
            TritonModelException: a counter cannot be decremented, a histogram not be incremented.
        """
        kind = self._family.kind
        if kind is MetricKind.HISTOGRAM:
            raise _unsupported("increment", kind, "Increment")
        if kind is MetricKind.COUNTER and value < 0:
            raise TritonModelException(
                "Failed to increment metric value: TRITONSERVER_METRIC_KIND_COUNTER can only be incremented "
                f"monotonically by non-negative values, not by {value}."
            )
        self._value += value

    def set(self, value: float) -> None:
        """Set a gauge.

        Raises:
            TritonModelException: it is not a gauge.
        """
        if self._family.kind is not MetricKind.GAUGE:
            raise _unsupported("set", self._family.kind, "Set")
        self._value = float(value)

    def observe(self, value: float) -> None:
        """Add an observation to a histogram.

        Raises:
            TritonModelException: it is not a histogram.
        """
        if self._family.kind is not MetricKind.HISTOGRAM:
            raise _unsupported("observe", self._family.kind, "Observe")
        self._counts[bisect_left(self._bounds, value)] += 1
        self._value += value

    def value(self) -> float:
        """The value of a counter or a gauge.

        Raises:
            TritonModelException: it is a histogram, which has no single value.
        """
        if self._family.kind is MetricKind.HISTOGRAM:
            raise _unsupported("get", self._family.kind, "Value")
        return self._value

    def sample(self) -> Sample:
        """Its state now."""
        family = self._family
        buckets: tuple[tuple[float, int], ...] = ()
        if family.kind is MetricKind.HISTOGRAM:
            buckets = tuple(zip((*self._bounds, float("inf")), accumulate(self._counts), strict=True))
        return Sample(family.name, family.description, family.kind, self._labels, self._value, buckets)


class MetricFamily:
    """Metrics of one name and kind; asking for a name again gives the same metrics.

    Args:
        name: the metric's name.
        description: what it counts.
        kind: COUNTER, GAUGE or HISTOGRAM.
    """

    COUNTER = MetricKind.COUNTER
    GAUGE = MetricKind.GAUGE
    HISTOGRAM = MetricKind.HISTOGRAM

    __slots__ = ("_metrics", "description", "kind", "name")

    def __init__(self, name: str, description: str, kind: MetricKind) -> None:
        existing = _families.get(name)
        if existing is not None and existing.kind is not kind:
            raise TritonModelException(
                f"Error when creating MetricFamily '{name}': Family name already exists with different type: "
                f"{existing.kind.name}, not {kind.name}"
            )
        self.name: str = name
        self.description: str = description if existing is None else existing.description
        self.kind: MetricKind = MetricKind(kind)
        self._metrics: dict[tuple[tuple[str, str], ...], Metric] = {} if existing is None else existing._metrics  # noqa: SLF001
        _families.setdefault(name, self)

    def Metric(  # noqa: N802 - Triton's name
        self, labels: Mapping[str, str] | None = None, buckets: Sequence[float] | None = None
    ) -> Metric:
        """The metric of these labels, made when it is new.

        Args:
            labels: label names and values.
            buckets: for a histogram the upper bounds of its buckets, ascending; None for the others.

        Raises:
            TritonModelException: the buckets are missing, unexpected or not ascending.
        """
        self._check(buckets)
        texts = {str(name): str(value) for name, value in (labels or {}).items()}
        return self._metrics.setdefault(tuple(sorted(texts.items())), Metric(self, texts, buckets or ()))

    def samples(self) -> list[Sample]:
        """The state of each of its metrics."""
        return [metric.sample() for metric in list(self._metrics.values())]

    def _check(self, buckets: Sequence[float] | None) -> None:
        if self.kind is MetricKind.HISTOGRAM:
            if buckets is None:
                raise TritonModelException("Failed to create metric. Missing required buckets.")
            if any(low >= high for low, high in pairwise(buckets)):
                raise TritonModelException("Error when creating Metric: Bucket Boundaries must be strictly sorted")
        elif buckets is not None:
            raise TritonModelException("Failed to create metric. Unexpected buckets found.")


_families: dict[str, MetricFamily] = {}


def collect() -> list[Sample]:
    """The state of every metric of this process."""
    return [sample for family in list(_families.values()) for sample in family.samples()]


def _unsupported(verb: str, kind: MetricKind, operation: str) -> TritonModelException:
    return TritonModelException(
        f"Failed to {verb} metric value: TRITONSERVER_METRIC_KIND_{kind.name} does not support {operation}"
    )
