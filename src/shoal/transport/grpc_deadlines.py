"""Time limits of gRPC calls: a coarse wheel with one timer for all calls of a connection."""

from __future__ import annotations

import asyncio
from heapq import heappop, heappush
from typing import Protocol

_TICK_S = 0.02


class Expiring(Protocol):
    """A call with a time limit."""

    def expired(self) -> None:
        """The time is up."""


class Deadlines:
    """Calls by the tick in which they expire, at most 20 ms late.

    A call that ends is taken out of its tick's set, so that a long limit keeps nothing alive.
    """

    __slots__ = ("_loop", "_ticks", "_timer", "_timer_tick", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[int, set[Expiring]] = {}
        self._ticks: list[int] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_tick = 0

    def add(self, call: Expiring, timeout_s: float) -> set[Expiring]:
        """Start a call's time; the caller discards the call from the returned set when it ends."""
        tick = int((self._loop.time() + timeout_s) / _TICK_S) + 1
        calls = self._waiting.get(tick)
        if calls is None:
            calls = self._waiting[tick] = set()
            heappush(self._ticks, tick)
            if self._timer is None or tick < self._timer_tick:
                self._arm()
        calls.add(call)
        return calls

    def close(self) -> None:
        """Forget all calls."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waiting.clear()
        self._ticks.clear()

    def _arm(self) -> None:
        """Set the timer to the earliest tick."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer_tick = self._ticks[0]
        self._timer = self._loop.call_at(self._timer_tick * _TICK_S, self._fire)

    def _fire(self) -> None:
        self._timer = None
        now_tick = self._loop.time() / _TICK_S
        while self._ticks and self._ticks[0] <= now_tick + 0.1:
            calls = self._waiting.pop(heappop(self._ticks))
            while calls:
                calls.pop().expired()
        if self._ticks and self._timer is None:
            self._arm()
