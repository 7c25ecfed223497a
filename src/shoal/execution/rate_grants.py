"""Where the rate limiter meets the models: instances ask for a turn, and take their batches when they get it.

Turns are given out at the end of the event loop's turn, so that all that was asked or given back in it counts, and a
batch holds all that arrived until its instance got its turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from shoal.config.spec import InstanceSpec
from shoal.execution.instance import InstanceChannel
from shoal.scheduling.rate_limiter import RateLimiter, Slot

Begin = Callable[[InstanceChannel], bool]
"""Begins a batch on an instance; False when there was none to begin after all."""


class RateGate:
    """The one gate of a server, through which every batch of every model goes.

    Args:
        limiter: decides.
    """

    def __init__(self, limiter: RateLimiter) -> None:
        self.limiter = limiter
        self._scheduled = False
        self._begins: dict[Slot, Callable[[], bool]] = {}

    def join(self, instances: Sequence[InstanceSpec], begin: Begin) -> RateGrants:
        """Let a model's instances in.

        Raises:
            InvalidArgumentError: the resources do not suffice for them.
        """
        return RateGrants(self, self.limiter.add(instances), begin)

    def ask(self, slot: Slot, begin: Callable[[], bool]) -> None:
        """An instance asks for a turn; ``begin`` is called when it has it."""
        self._begins[slot] = begin
        self.limiter.ask(slot)
        self.look()

    def look(self) -> None:
        """Give out turns soon."""
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._give_out)

    def _give_out(self) -> None:
        self._scheduled = False
        while granted := self.limiter.grant():
            for slot in granted:
                if not self._begins.pop(slot)():
                    self.limiter.release(slot, executed=False)


class RateGrants:
    """One model's instances at the gate.

    Args:
        gate: the gate.
        slots: the instances' accounts, by their number.
        begin: begins a batch on an instance.
    """

    def __init__(self, gate: RateGate, slots: Sequence[Slot], begin: Begin) -> None:
        self._gate = gate
        self._slots = slots
        self._begin = begin

    def ask(self, instance: InstanceChannel) -> None:
        """A free instance may have something to run."""
        self._gate.ask(self._slots[instance.number], lambda: self._begin(instance))

    def withdraw(self, instance: InstanceChannel) -> None:
        """An instance is gone that may have asked."""
        self._gate.limiter.withdraw(self._slots[instance.number])

    def done(self, instance: InstanceChannel) -> None:
        """An instance's batch has ended, however it did."""
        self._gate.limiter.release(self._slots[instance.number], executed=True)
        self._gate.look()

    def leave(self) -> None:
        """The model is gone."""
        self._gate.limiter.remove(self._slots)
        self._gate.look()
