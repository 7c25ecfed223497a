"""Models that contend for the rate limiter's resources: in which order they run, and how many of them at once."""

from __future__ import annotations

from dataclasses import dataclass, replace

from admission_cases import FP32, model, tensor

from shoal.config.spec import InstanceKind, InstanceSpec, ModelSpec, ResourceSpec

HOLD_MS = 400
EXECUTION_MS = 30
HOLD = "hold"


@dataclass(frozen=True)
class Contender:
    """A model, and how many requests wait for it when the resources become free.

    Attributes:
        name: its name.
        requests: requests that wait.
        needs: its resources, one set for every instance.
        priorities: the priority of each instance.
    """

    name: str
    requests: int
    needs: tuple[ResourceSpec, ...] = ()
    priorities: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class RateCase:
    """Contenders that all wait for one that holds everything.

    Attributes:
        name: of the case.
        contenders: the models, in the order in which their requests are sent.
        limits: the values of ``--rate-limit-resource``.
        ordered: whether the order of the executions is compared, which takes that one runs at a time.
        held: how many units of each resource are held while the requests come; 0 for as many as any of them needs.
    """

    name: str
    contenders: tuple[Contender, ...]
    limits: tuple[str, ...] = ()
    ordered: bool = True
    held: int = 0

    @property
    def all(self) -> tuple[Contender, ...]:
        """The contenders, and the one that holds the resources while they come."""
        held: dict[tuple[str, bool], int] = {}
        for need in [need for each in self.contenders for need in each.needs]:
            key = need.name, need.is_global
            held[key] = self.held or max(held.get(key, 0), need.count)
        needs = tuple(ResourceSpec(name, count, is_global) for (name, is_global), count in held.items())
        return (Contender(HOLD, 1, needs), *self.contenders)


ONE, TWO, THREE = (ResourceSpec("R", count) for count in (1, 2, 3))
OTHER = ResourceSpec("S", 1)
SHARED = ResourceSpec("R", 1, is_global=True)


def pair(first: int, second: int) -> tuple[Contender, ...]:
    """Two models with the same needs and these priorities."""
    return Contender("a", 8, (ONE,), (first,)), Contender("b", 8, (ONE,), (second,))


CASES = (
    RateCase("priorities 1 and 1", pair(1, 1)),
    RateCase("no priority and 1", pair(0, 1)),
    RateCase("priorities 1 and 2", pair(1, 2)),
    RateCase("priorities 1 and 3", pair(1, 3)),
    RateCase("priorities 2 and 3", pair(2, 3)),
    RateCase("priorities 3 and 1", pair(3, 1)),
    RateCase("priorities 1 and 5", pair(1, 5)),
    RateCase("a global resource", (Contender("a", 6, (SHARED,), (1,)), Contender("b", 6, (SHARED,), (3,)))),
    RateCase(
        "a resource twice, the larger counts",
        (Contender("a", 3, (ONE, THREE)), Contender("b", 3, (TWO,), (3,))),
    ),
    RateCase("one that needs all next to one that needs half", (Contender("a", 5, (TWO,)), Contender("b", 5, (ONE,)))),
    RateCase("two instances share one unit", (Contender("a", 6, (ONE,), (1, 1)),), ordered=False),
    RateCase("three instances, two units", (Contender("a", 9, (ONE,), (1, 1, 1)),), ("R:2",), ordered=False, held=2),
    RateCase("units of the device", (Contender("a", 6, (ONE,), (1, 1, 1)),), ("R:2:0",), ordered=False, held=2),
    RateCase(
        "units everywhere and of the device",
        (Contender("a", 6, (ONE,), (1, 1, 1)),),
        ("R:1", "R:2:0"),
        ordered=False,
        held=2,
    ),
    RateCase(
        "fewer units of the device", (Contender("a", 6, (ONE,), (1, 1, 1)),), ("R:2", "R:1:0"), ordered=False, held=2
    ),
    RateCase(
        "a global resource of any device", (Contender("a", 6, (SHARED,), (1, 1, 1)),), ("R:2:5",), ordered=False, held=2
    ),
    RateCase("no units of the device", (Contender("a", 1, (TWO,)),), ("R:2:1",)),
    RateCase("too few units", (Contender("a", 1, (THREE,)),), ("R:2",)),
    RateCase("units of something else", (Contender("a", 1, (ONE,)),), ("S:2",)),
    RateCase("the first of two counts", (Contender("a", 1, (TWO,)),), ("R:1", "R:2")),
    RateCase("names differ in case", (Contender("a", 1, (ONE,)),), ("r:1",)),
    RateCase("global and of a device", (Contender("a", 1, (ONE,)), Contender("b", 1, (SHARED,)))),
    RateCase("global and of a device in one instance", (Contender("a", 1, (ONE, SHARED)),)),
)


def spec_of(contender: Contender) -> ModelSpec:
    """The contender's model."""
    instances = tuple(
        InstanceSpec(f"{contender.name}_{number}", InstanceKind.CPU, 0, contender.needs, priority or 1)
        for number, priority in enumerate(contender.priorities)
    )
    return replace(model(contender.name, 0, [tensor("A", FP32, 1)]), instances=instances)
