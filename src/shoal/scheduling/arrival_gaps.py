"""When requests come: what the gaps between them say of the next one.

What matters to a batcher that thinks of waiting is not the rate but how likely the next request is to come within the
next moment, given what happened last. For requests that know nothing of each other that is the same at any time; for
requests that come in bunches it is high right after a request and low once the bunch is over; and clients that wait
for their answers send again when a batch has ended. So a gap is counted from the last request or the last end of a
batch, whichever is later, and what is kept of it is a life table (Cutler and Ederer, 1958): of the gaps that lasted so
long, how many were ended by a request before they were twice as long.
"""

from __future__ import annotations

_SHORTEST_BITS = 15
"""Gaps of less than 2**15 ns (33 us) are one bucket: such requests come together, and no timer is worth setting."""
_BUCKETS = 26
"""One per power of two; the last holds all gaps from 9 minutes on."""
_FADES_AFTER = 256
_FEWEST_GAPS = 8.0
"""With less than so many gaps remembered nothing is said."""


class ArrivalGaps:
    """A life table of the gaps before requests that fades with time and with every new gap.

    Args:
        half_life_ns: after this time what was seen before counts half.
    """

    __slots__ = ("_arrivals", "_ends", "_fresh", "_half_life_ns", "_last_ns", "_odds", "_seen", "_span_ns", "_total")

    def __init__(self, half_life_ns: int) -> None:
        self._half_life_ns = half_life_ns
        self._arrivals = [0.0] * _BUCKETS
        self._ends = [0.0] * _BUCKETS
        self._odds = [0.0] * _BUCKETS
        self._total = 0.0
        self._span_ns = 0.0
        self._last_ns = -1
        self._seen = 0
        self._fresh = False

    @property
    def per_second(self) -> float:
        """The rate at which requests came lately; 0 while too few came to tell."""
        return self._total * 1e9 / self._span_ns if self._span_ns and self._total >= 1 else 0.0

    def arrived(self, now_ns: int) -> None:
        """A request came."""
        if self._last_ns >= 0:
            self._arrivals[self._bucket(now_ns)] += 1.0
            self._total += 1.0
        self._last_ns = now_ns

    def ended(self, now_ns: int) -> None:
        """A batch ended: the gap that was open is cut short, and another begins."""
        if self._last_ns >= 0:
            self._ends[self._bucket(now_ns)] += 1.0
            self._last_ns = now_ns

    def _bucket(self, now_ns: int) -> int:
        """Where the gap that ends now belongs; what was seen before fades."""
        gap_ns = now_ns - self._last_ns
        self._fresh = False
        self._seen += 1
        if gap_ns > self._half_life_ns >> 3:
            self._fade(0.5 ** min(64.0, gap_ns / self._half_life_ns))
        elif self._seen >= _FADES_AFTER:
            self._fade(0.5)
        self._span_ns += gap_ns
        bucket = (gap_ns >> _SHORTEST_BITS).bit_length()
        return bucket if bucket < _BUCKETS else _BUCKETS - 1

    def _fade(self, factor: float) -> None:
        self._seen = 0
        self._arrivals = [count * factor for count in self._arrivals]
        self._ends = [count * factor for count in self._ends]
        self._total *= factor
        self._span_ns *= factor

    def worth_waiting_ns(self, now_ns: int, gain_ns: float, waiting: int) -> int:
        """For how long from now it pays to wait for one more request; 0 when it does not.

        Waiting costs its time for each of those who wait, and gains something if the next request comes within it: the
        wait is the one with the largest expected difference.

        Args:
            now_ns: the time.
            gain_ns: the time that the next request saves if it comes while they wait.
            waiting: how many requests wait.
        """
        if self._total < _FEWEST_GAPS:
            return 0
        if not self._fresh:
            self._find_odds()
        since_ns = start_ns = now_ns - self._last_ns
        bucket = (since_ns >> _SHORTEST_BITS).bit_length()
        alive, spent_ns, best, best_ns = 1.0, 0.0, 0.0, since_ns
        while bucket < _BUCKETS - 1 and waiting * spent_ns < gain_ns and alive > 0.01:
            end_ns = 1 << (bucket + _SHORTEST_BITS)
            width_ns = end_ns - (end_ns >> 1 if bucket else 0)
            ended = alive * self._odds[bucket] * (end_ns - start_ns) / width_ns
            spent_ns += (alive - ended / 2) * (end_ns - start_ns)
            alive -= ended
            value = (1 - alive) * gain_ns - waiting * spent_ns
            if value > best:
                best, best_ns = value, end_ns
            start_ns = end_ns
            bucket += 1
        return best_ns - since_ns

    def _find_odds(self) -> None:
        """For each bucket: of the gaps that reached it, which share was ended in it by a request."""
        self._fresh = True
        longer = 0.0
        for bucket in range(_BUCKETS - 1, -1, -1):
            arrivals, ends = self._arrivals[bucket], self._ends[bucket]
            at_risk = longer + arrivals + ends / 2
            self._odds[bucket] = arrivals / at_risk if arrivals else 0.0
            longer += arrivals + ends
