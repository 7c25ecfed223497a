"""Arrival processes for simulations: when requests come, and what they are.

Every process is deterministic: one that is random takes a seed. Times are counted from the start of the simulation.

::

    poisson(per_second=800, seconds=10, seed=1)
    bursts(per_second=4_000, on_s=0.05, off_s=0.2, seconds=10, seed=1, kinds=[RequestKind(rows=1), RequestKind(rows=4)])
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import accumulate
from random import Random
from typing import NamedTuple

from shoal.requests import LATEST, InferHead, InferRequest, RequestPlan, SequencePart

_NS = 1_000_000_000


class _NoSink:
    """The sink of simulated requests: they are given to a scheduler directly."""

    def submit(self, request: InferRequest) -> None:
        """Refused: there is no runtime."""
        del request
        raise TypeError("a simulated request has no model to submit it to; give it to a scheduler")

    def cancel(self, request: InferRequest) -> None:
        """Refused: there is no runtime."""
        del request
        raise TypeError("a simulated request has no model to cancel it at; use the scheduler's cancel")

    def abandon(self, correlation_id: int | str, begun_ns: int) -> None:
        """Refused: there is no runtime."""
        del correlation_id, begun_ns
        raise TypeError("a simulated sequence has no model; use the scheduler's abandon")


_NO_SINK = _NoSink()


@dataclass(frozen=True, slots=True)
class RequestKind:
    """Requests that a scheduler cannot tell apart.

    Attributes:
        rows: their batch size.
        priority: their priority level; 0 for a model without levels.
        timeout_us: the queue timeout that they ask for; 0 for none.
        key: their batch key: requests of different keys never share a batch.
        sequence: their place in a sequence, for a sequence scheduler.
        share: how often they come, against the shares of the other kinds.
        plan: what a scheduler sees of them.
    """

    rows: int = 1
    priority: int = 0
    timeout_us: int = 0
    key: tuple[object, ...] = ()
    sequence: SequencePart | None = None
    share: float = 1.0
    plan: RequestPlan = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        plan = RequestPlan(
            head=InferHead("simulated", LATEST, "", ()),
            sink=_NO_SINK,
            rows=self.rows,
            inputs=(),
            outputs=(),
            batch_key=self.key,
            payload_nbytes=(),
            priority=self.priority,
            timeout_us=self.timeout_us,
            sequence=self.sequence,
        )
        object.__setattr__(self, "plan", plan)


class Arrival(NamedTuple):
    """One request of a simulation: when it comes and what it is."""

    at_ns: int
    kind: RequestKind


_ONE_ROW = (RequestKind(),)


def _random(seed: int) -> Random:
    return Random(seed)  # noqa: S311 - nothing here is a secret


class _Kinds:
    """Draws kinds by their shares."""

    def __init__(self, kinds: Sequence[RequestKind], random: Random) -> None:
        self._kinds = kinds
        self._limits = list(accumulate(kind.share for kind in kinds))
        self._random = random

    def at(self, at_s: float) -> Arrival:
        """An arrival at this moment."""
        if len(self._kinds) == 1:
            return Arrival(round(at_s * _NS), self._kinds[0])
        return Arrival(round(at_s * _NS), self._random.choices(self._kinds, cum_weights=self._limits)[0])


def steady(
    per_second: float, seconds: float, *, seed: int = 0, kinds: Sequence[RequestKind] = _ONE_ROW
) -> Iterator[Arrival]:
    """One request after the other, always the same time apart.

    Args:
        per_second: how many there are in a second.
        seconds: how long they come.
        seed: draws the kinds, where there are several.
        kinds: what the requests are.
    """
    drawn = _Kinds(kinds, _random(seed))
    for number in range(int(per_second * seconds)):
        yield drawn.at(number / per_second)


def poisson(
    per_second: float, seconds: float, *, seed: int, kinds: Sequence[RequestKind] = _ONE_ROW
) -> Iterator[Arrival]:
    """Requests that know nothing of each other: the gaps between them are exponentially distributed.

    Args:
        per_second: how many there are in a second on average.
        seconds: how long they come.
        seed: draws the gaps and the kinds.
        kinds: what the requests are.
    """
    random = _random(seed)
    drawn = _Kinds(kinds, random)
    at_s = random.expovariate(per_second)
    while at_s < seconds:
        yield drawn.at(at_s)
        at_s += random.expovariate(per_second)


def bursts(
    per_second: float,
    on_s: float,
    off_s: float,
    seconds: float,
    *,
    seed: int,
    kinds: Sequence[RequestKind] = _ONE_ROW,
) -> Iterator[Arrival]:
    """Poisson arrivals that are on for a while, off for a while, and so on.

    Args:
        per_second: how many there are in a second that is on.
        on_s: how long a burst is.
        off_s: how long nothing comes after it.
        seconds: how long the whole lasts.
        seed: draws the gaps and the kinds.
        kinds: what the requests are.
    """
    for at_ns, kind in poisson(per_second, seconds * on_s / (on_s + off_s), seed=seed, kinds=kinds):
        burst = at_ns // round(on_s * _NS)
        yield Arrival(at_ns + burst * round(off_s * _NS), kind)


def rising(
    first_per_second: float,
    last_per_second: float,
    seconds: float,
    *,
    seed: int,
    kinds: Sequence[RequestKind] = _ONE_ROW,
) -> Iterator[Arrival]:
    """Poisson arrivals whose rate goes evenly from one value to another, which may be lower too.

    Args:
        first_per_second: the rate at the beginning.
        last_per_second: the rate at the end.
        seconds: how long they come.
        seed: draws the gaps and the kinds.
        kinds: what the requests are.
    """
    random = _random(seed)
    drawn = _Kinds(kinds, random)
    most = max(first_per_second, last_per_second)
    at_s = random.expovariate(most)
    while at_s < seconds:
        rate = first_per_second + (last_per_second - first_per_second) * at_s / seconds
        if random.random() * most < rate:
            yield drawn.at(at_s)
        at_s += random.expovariate(most)


def recorded(moments: Iterable[tuple[float, int]]) -> Iterator[Arrival]:
    """Arrivals as they were once recorded.

    Args:
        moments: for each request the seconds since the first one, in rising order, and its rows.

    Raises:
        ValueError: a request comes before the one that stands in front of it.
    """
    kinds: dict[int, RequestKind] = {}
    last_s = 0.0
    for at_s, rows in moments:
        if at_s < last_s:
            raise ValueError(f"a trace is in the order of time, but {at_s:g} s stands after {last_s:g} s")
        last_s = at_s
        if rows not in kinds:
            kinds[rows] = RequestKind(rows)
        yield Arrival(round(at_s * _NS), kinds[rows])


class Clients:
    """Clients that send a request, wait for its answer, think, and send the next.

    That is what a load generator with a fixed number of requests in flight does.

    Args:
        count: how many clients there are.
        seconds: after this time none of them sends again.
        think_us: between an answer and the next request.
        spread_us: up to so much more, drawn anew each time: answers of one batch do not come back as one.
        seed: draws that.
        kind: what they send.
    """

    def __init__(
        self,
        count: int,
        seconds: float,
        *,
        think_us: float = 0.0,
        spread_us: float = 0.0,
        seed: int = 0,
        kind: RequestKind | None = None,
    ) -> None:
        self._random = _random(seed)
        self._end_ns = round(seconds * _NS)
        self._think_ns, self._spread_ns = think_us * 1_000, spread_us * 1_000
        self._kind = kind or RequestKind()
        self._moments_ns = [self._after_ns(0) for _ in range(count)]
        heapify(self._moments_ns)

    def _after_ns(self, now_ns: int) -> int:
        return now_ns + round(self._think_ns + self._random.random() * self._spread_ns)

    def next_ns(self) -> int | None:
        """When the next request comes, as far as is known now; None while all clients wait."""
        return self._moments_ns[0] if self._moments_ns else None

    def take(self) -> Arrival:
        """The next request."""
        return Arrival(heappop(self._moments_ns), self._kind)

    def ended(self, count: int, now_ns: int) -> None:
        """So many requests were answered or refused at this moment."""
        for _ in range(count):
            then_ns = self._after_ns(now_ns)
            if then_ns < self._end_ns:
                heappush(self._moments_ns, then_ns)


class Schedule:
    """Arrivals that do not depend on the answers.

    Args:
        arrivals: in the order of time.
    """

    def __init__(self, arrivals: Iterable[Arrival]) -> None:
        self._coming = iter(arrivals)
        self._next = next(self._coming, None)

    def next_ns(self) -> int | None:
        """When the next request comes; None after the last."""
        return None if self._next is None else self._next[0]

    def take(self) -> Arrival:
        """The next request."""
        taken = self._next
        assert taken is not None
        self._next = next(self._coming, None)
        return taken

    def ended(self, count: int, now_ns: int) -> None:
        """Nothing: nobody waits for answers."""
