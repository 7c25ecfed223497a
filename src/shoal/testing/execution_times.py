"""How long a simulated batch runs, by its rows."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from random import Random

ExecutionTime = Callable[[int], int]
"""The nanoseconds that a batch of so many rows runs; asked once per batch."""


def affine(fixed_us: float, row_us: float) -> ExecutionTime:
    """A fixed cost for each batch and a cost for each row."""
    fixed_ns, row_ns = fixed_us * 1_000, row_us * 1_000
    return lambda rows: round(fixed_ns + row_ns * rows)


def table(times_us: Mapping[int, float]) -> ExecutionTime:
    """Times that were measured for some numbers of rows; straight lines between them and beyond the last two.

    Raises:
        ValueError: the table is empty.
    """
    if not times_us:
        raise ValueError("the execution times of a simulation need at least one number of rows")
    sizes = sorted(times_us)

    def execution_ns(rows: int) -> int:
        place = bisect_left(sizes, rows)
        if (place < len(sizes) and sizes[place] == rows) or len(sizes) == 1:
            return round(times_us[sizes[min(place, len(sizes) - 1)]] * 1_000)
        place = min(max(place, 1), len(sizes) - 1)
        before, after = sizes[place - 1], sizes[place]
        slope_us = (times_us[after] - times_us[before]) / (after - before)
        return max(0, round((times_us[before] + slope_us * (rows - before)) * 1_000))

    return execution_ns


def noisy(execution_ns: ExecutionTime, seed: int, spread: float = 0.1, slow_share: float = 0.0) -> ExecutionTime:
    """The same times, scattered.

    Args:
        execution_ns: the times to scatter.
        seed: draws the noise.
        spread: the standard deviation of the factor, whose mean is 1 (a gamma distribution, so never below 0).
        slow_share: which share of the batches takes ten times as long, as when a collector or another process cuts in.
    """
    random = Random(seed)  # noqa: S311 - nothing here is a secret
    shape = 1 / spread**2 if spread else 0.0

    def scattered_ns(rows: int) -> int:
        factor = random.gammavariate(shape, 1 / shape) if shape else 1.0
        if slow_share and random.random() < slow_share:
            factor *= 10
        return round(execution_ns(rows) * factor)

    return scattered_ns
