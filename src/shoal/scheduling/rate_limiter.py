"""The rate limiter: which free instance runs next when instances of all models share limited resources.

An instance takes a resource's units when it begins a batch and gives them back at its end. Of the instances that ask to
run, the one with the lowest executions x priority goes first (Triton ``rate_limiter.cc``). One that has to wait for a
resource keeps those behind it from taking it away: a later instance goes ahead only with what no earlier one needs.
So the order in which instances get a resource is Triton's, and nobody starves. Triton lets nobody at all pass an
instance that waits, not even those that need other resources or none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from shoal.config.spec import InstanceSpec
from shoal.errors import InvalidArgumentError

GLOBAL = -1
"""Stands for the device of a resource that all devices share."""

STARTING_EXECUTIONS = 2
"""Triton counts the initialization of an instance and its warm-up as executions, which shows in the order later."""


class ResourceLimit(NamedTuple):
    """How much there is of a resource (``--rate-limit-resource``).

    Attributes:
        name: the resource.
        units: how much there is of it.
        device: the device that has them; None for each device. It makes no difference for a global resource.
    """

    name: str
    units: int
    device: int | None = None


Resource = tuple[int, str]
"""A resource of one device, or of ``GLOBAL``."""


class SlotState(Enum):
    """What an instance is doing, as far as the limiter knows."""

    RESTING = "resting"
    ASKING = "asking"
    RUNNING = "running"


class Slot:
    """One instance's account.

    Attributes:
        needs: what it takes while it runs.
        priority: its weight: with 2 it runs half as often as with 1.
        executions: how many batches it ran, and ``STARTING_EXECUTIONS``.
        state: whether it asks, runs, or neither.
        asked: its place among those that asked.
    """

    __slots__ = ("asked", "executions", "needs", "priority", "state")

    def __init__(self, spec: InstanceSpec) -> None:
        self.needs = _needs(spec)
        self.priority = max(1, spec.priority)
        self.executions = STARTING_EXECUTIONS
        self.state = SlotState.RESTING
        self.asked = 0

    def rank(self) -> tuple[int, int]:
        """Its turn: the lowest goes first; among equals, who asked first."""
        return self.executions * self.priority, self.asked


class RateLimiter:
    """Shares resources between the instances of all models of a server.

    Without limits, there is as much of a resource as the most that any instance needs at once.

    Args:
        limits: how much there is of each resource; with any, what is not named has no units. The first of two for the
            same resource and device counts.
    """

    def __init__(self, limits: Sequence[ResourceLimit] = ()) -> None:
        self._limits: dict[tuple[int | None, str], int] = {}
        for limit in limits:
            self._limits.setdefault((limit.device, limit.name), limit.units)
        self._slots: set[Slot] = set()
        self._asking: set[Slot] = set()
        self._pool: dict[Resource, int] = {}
        self._used: dict[Resource, int] = {}
        self._asked = 0

    def add(self, instances: Iterable[InstanceSpec]) -> list[Slot]:
        """Take a model's instances in, one slot for each, in their order.

        Raises:
            InvalidArgumentError: one needs more than there is, or a resource is both global and of a device; none of
                them was taken in.
        """
        added = [Slot(spec) for spec in instances]
        self._pool = self._make_pool([*self._slots, *added])
        self._slots.update(added)
        return added

    def remove(self, slots: Iterable[Slot]) -> None:
        """Let a model's instances go; what they hold is free."""
        for slot in slots:
            self.withdraw(slot)
            if slot.state is SlotState.RUNNING:
                self.release(slot, executed=False)
            self._slots.discard(slot)
        self._pool = self._make_pool(self._slots)

    def ask(self, slot: Slot) -> None:
        """A free instance has something to run; asking again changes nothing."""
        if slot.state is SlotState.RESTING:
            slot.state = SlotState.ASKING
            self._asked += 1
            slot.asked = self._asked
            self._asking.add(slot)

    def withdraw(self, slot: Slot) -> None:
        """An instance that asked has nothing to run any more, or cannot."""
        if slot.state is SlotState.ASKING:
            slot.state = SlotState.RESTING
            self._asking.discard(slot)

    def grant(self) -> list[Slot]:
        """The instances that run now, in their order, with their resources taken; each is to be released."""
        if not self._asking:
            return []
        granted: list[Slot] = []
        left = self.free()
        for slot in sorted(self._asking, key=Slot.rank):
            if all(left[resource] >= count for resource, count in slot.needs.items()):
                granted.append(slot)
            for resource, count in slot.needs.items():
                left[resource] -= count
        for slot in granted:
            self._asking.discard(slot)
            slot.state = SlotState.RUNNING
            for resource, count in slot.needs.items():
                self._used[resource] = self._used.get(resource, 0) + count
        return granted

    def release(self, slot: Slot, *, executed: bool) -> None:
        """An instance gives its resources back.

        Args:
            slot: an instance that was granted its turn.
            executed: whether it ran a batch; otherwise its turn does not count.
        """
        slot.state = SlotState.RESTING
        slot.executions += executed
        for resource, count in slot.needs.items():
            self._used[resource] -= count

    def free(self) -> dict[Resource, int]:
        """What nobody holds of each resource."""
        return {resource: count - self._used.get(resource, 0) for resource, count in self._pool.items()}

    def _make_pool(self, slots: Iterable[Slot]) -> dict[Resource, int]:
        needed: dict[Resource, int] = {}
        for slot in slots:
            for resource, count in slot.needs.items():
                needed[resource] = max(count, needed.get(resource, 0))
        _check_places(needed)
        return self._limited(needed) if self._limits else needed

    def _limited(self, needed: Mapping[Resource, int]) -> dict[Resource, int]:
        """What the limits give of each resource that is needed.

        Raises:
            InvalidArgumentError: it is less than an instance needs.
        """
        pool = {resource: self._given(*resource) for resource in needed}
        for (device, name), count in pool.items():
            least = needed[device, name]
            if count < least:
                raise InvalidArgumentError(
                    f'Resource count for "{name}" is limited to {count} which will prevent scheduling of one or more '
                    f"model instances, the minimum required count is {least}"
                )
        return pool

    def _given(self, device: int, name: str) -> int:
        """The units that the limits name: of a global resource the most of any device."""
        given = [
            count
            for (place, named), count in self._limits.items()
            if named == name and (device == GLOBAL or place is None or place == device)
        ]
        return max(given, default=0)


def _needs(spec: InstanceSpec) -> dict[Resource, int]:
    needs: dict[Resource, int] = {}
    for one in spec.resources:
        if not one.count:
            continue
        resource = (GLOBAL if one.is_global else spec.device_id, one.name)
        needs[resource] = max(one.count, needs.get(resource, 0))
    return needs


def _check_places(needed: Mapping[Resource, int]) -> None:
    shared = {name for device, name in needed if device == GLOBAL}
    for device, name in needed:
        if device != GLOBAL and name in shared:
            raise InvalidArgumentError(
                f'Resource "{name}" is present as both global and device-specific resource in the model configuration.'
            )
