"""How long batches run by their rows, learned from those that ran."""

from __future__ import annotations

from bisect import bisect_right, insort
from dataclasses import dataclass
from math import sqrt

_WEIGHT = 1 / 8
"""What one batch counts against all before it of the same size."""
_LARGEST_JUMP = 2.0
"""A batch that ran longer than so many times what was expected counts as that much: one slow batch says little."""
_FADING = 0.99
"""What the line remembers of its past at each batch."""
_CERTAIN = 6
"""Batches of a size before its efficiency is believed."""
_CLEARLY_BETTER = 1.05
_FRONTIER_EVERY = 16
_TRIED_AGAIN = 8
_DOUBT = 3.0
_MEMORY = 2 / _WEIGHT - 1
"""So many batches tell as much as all that the weights let count."""


@dataclass(frozen=True, slots=True)
class MeasuredTime:
    """What is known of one batch size.

    Attributes:
        rows: the size.
        expected_us: how long such a batch is expected to run.
        spread_us: how far they are from that on average.
        batches: how many there were.
    """

    rows: int
    expected_us: float
    spread_us: float
    batches: int


class _Size:
    __slots__ = ("batches", "expected_ns", "spread_ns")

    def __init__(self) -> None:
        self.batches = 0
        self.expected_ns = self.spread_ns = 0.0

    def learn(self, took_ns: float) -> float:
        """Take one batch in; gives what it counted as."""
        self.batches += 1
        if self.batches == 1:
            self.expected_ns = took_ns
            return took_ns
        weight = max(_WEIGHT, 1 / self.batches)
        surprise_ns = min(2 * self.spread_ns, self.expected_ns / 2)
        if took_ns < self.expected_ns - surprise_ns:  # nothing runs faster than it can: something slow is over
            weight = max(weight, 1 / 3)
        took_ns = min(took_ns, self.expected_ns * _LARGEST_JUMP)
        self.spread_ns += weight * (abs(took_ns - self.expected_ns) - self.spread_ns)
        self.expected_ns += weight * (took_ns - self.expected_ns)
        return took_ns

    def bound_ns(self, sign: int) -> float:
        """What the expected time is at least (-1) or at most (1), as far as that can be known from so many batches."""
        return self.expected_ns + sign * _DOUBT * self.spread_ns / sqrt(min(self.batches, _MEMORY))


class ExecutionTimes:
    """A table of execution times by rows, with a line through it for the sizes that never ran.

    Learning and asking take constant time but for the logarithm of the number of sizes, of which there are at most
    ``max_batch_size``.

    Attributes:
        fixed_ns: what a batch costs whatever its rows; 0 until batches of different sizes ran.
        row_ns: what each row costs.
    """

    __slots__ = (
        "_frontier",
        "_learned",
        "_sizes",
        "_sum_ns",
        "_sum_rows",
        "_sum_rows2",
        "_sum_rows_ns",
        "_table",
        "_weight",
        "fixed_ns",
        "row_ns",
    )  # fmt: skip

    def __init__(self) -> None:
        self._table: dict[int, _Size] = {}
        self._sizes: list[int] = []
        self._frontier: list[int] = []
        self._learned = 0
        self._weight = self._sum_rows = self._sum_rows2 = self._sum_ns = self._sum_rows_ns = 0.0
        self.fixed_ns = self.row_ns = 0.0

    def learn(self, rows: int, took_ns: int) -> None:
        """A batch of so many rows ran so long."""
        size = self._table.get(rows)
        if size is None:
            size = self._table[rows] = _Size()
            insort(self._sizes, rows)
        self._fit(rows, size.learn(took_ns))
        self._learned += 1
        if self._learned % _FRONTIER_EVERY == 0:
            self._find_frontier()

    def _fit(self, rows: int, took_ns: float) -> None:
        """Least squares with forgetting."""
        self._weight = _FADING * self._weight + 1
        self._sum_rows = _FADING * self._sum_rows + rows
        self._sum_rows2 = _FADING * self._sum_rows2 + rows * rows
        self._sum_ns = _FADING * self._sum_ns + took_ns
        self._sum_rows_ns = _FADING * self._sum_rows_ns + rows * took_ns
        mean_rows, mean_ns = self._sum_rows / self._weight, self._sum_ns / self._weight
        variance = self._sum_rows2 / self._weight - mean_rows * mean_rows
        if variance < 1 / 16:  # (nearly) all of one size: nothing tells the fixed part from the rest
            slope = mean_ns / mean_rows
        else:
            slope = (self._sum_rows_ns / self._weight - mean_rows * mean_ns) / variance
        self.row_ns = min(max(slope, 0.0), mean_ns / mean_rows)
        self.fixed_ns = mean_ns - self.row_ns * mean_rows

    def expected_ns(self, rows: int) -> float:
        """How long a batch of so many rows is expected to run; 0 when none ran yet."""
        size = self._table.get(rows)
        if size is not None:
            return size.expected_ns
        sizes = self._sizes
        if not sizes:
            return 0.0
        place = bisect_right(sizes, rows)
        if place == 0:
            return min(self._table[sizes[0]].expected_ns, self.fixed_ns + self.row_ns * rows)
        before = sizes[place - 1]
        below_ns = self._table[before].expected_ns
        if place == len(sizes):
            return below_ns + self.row_ns * (rows - before)
        after = sizes[place]
        above_ns = self._table[after].expected_ns
        return below_ns + (above_ns - below_ns) * (rows - before) / (after - before)

    def safe_ns(self, rows: int) -> float:
        """How long such a batch may well run: what is expected, and three times the usual distance from it."""
        size = self._table.get(rows) or (self._table[self._near(rows)] if self._sizes else None)
        return self.expected_ns(rows) + (3 * size.spread_ns if size is not None else 0.0)

    def _near(self, rows: int) -> int:
        return self._sizes[max(0, bisect_right(self._sizes, rows) - 1)]

    def most_rows(self, limit_ns: float, largest: int) -> int:
        """The largest batch, up to ``largest`` rows, that may well be done within this time; 0 for none."""
        low, high = 0, largest
        while low < high:
            middle = (low + high + 1) // 2
            if self.safe_ns(middle) <= limit_ns:
                low = middle
            else:
                high = middle - 1
        return low

    def efficient_rows(self, rows: int) -> int:
        """A smaller batch that surely does more rows per second than one of ``rows``; ``rows`` where there is none.

        Surely: although both times are known only so well. A size that hardly ever ran is given the benefit of the
        doubt, and now and then one that is thought bad is tried again, for it may not be so any more.
        """
        place = bisect_right(self._frontier, rows) - 1
        if place < 0 or self._frontier[place] == rows:
            return rows
        smaller, size = self._frontier[place], self._table.get(rows)
        if size is None or size.batches < _CERTAIN or self._learned % _TRIED_AGAIN == 0:
            return rows
        known = self._table[smaller]
        better = smaller * size.bound_ns(-1) > _CLEARLY_BETTER * rows * known.bound_ns(1)
        return smaller if better else rows

    def _find_frontier(self) -> None:
        """The sizes that do more rows per second than every smaller one."""
        self._frontier = []
        best = 0.0
        for rows in self._sizes:
            size = self._table[rows]
            if size.batches >= _CERTAIN and rows > best * size.expected_ns:
                best = rows / size.expected_ns if size.expected_ns else 0.0
                self._frontier.append(rows)

    def table(self) -> tuple[MeasuredTime, ...]:
        """What is known, in the order of the sizes."""
        return tuple(
            MeasuredTime(rows, size.expected_ns / 1_000, size.spread_ns / 1_000, size.batches)
            for rows, size in sorted(self._table.items())
        )
