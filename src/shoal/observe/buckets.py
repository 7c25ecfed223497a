"""The buckets of the histograms, and how statistics write a duration."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

DURATION_BOUNDS_S = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025),
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""Upper bounds of the duration histograms' buckets, in seconds; one more bucket holds what is longer."""

DURATION_BOUNDS_NS = tuple(round(bound * 1e9) for bound in DURATION_BOUNDS_S)
"""The same in nanoseconds."""

ROWS_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Upper bounds of the buckets of the rows-per-batch histogram."""

Json = dict[str, Any]
"""A JSON object, ready for an encoder."""


def duration(count: int, nanoseconds: int) -> Json:
    """A number of durations and their sum, as the statistics extension has them."""
    return {"count": count, "ns": nanoseconds}


class RowsHistogram:
    """How many rows batches had: counts per bucket of ``ROWS_BOUNDS`` and the rows added up."""

    __slots__ = ("counts", "rows")

    def __init__(self) -> None:
        self.counts = [0] * (len(ROWS_BOUNDS) + 1)
        self.rows = 0

    def add(self, rows: int, batches: int) -> None:
        """Count batches of so many rows."""
        self.counts[bisect_left(ROWS_BOUNDS, rows)] += batches
        self.rows += rows * batches
