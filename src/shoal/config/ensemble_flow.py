"""How tensors flow through the steps of an ensemble, by their names: what can run, and what runs how often.

A step of a decoupled model gives any number of responses, and all that is computed from them runs once for each. The
tensors that are made equally often form a *region*: the ensemble's inputs are region 0, and step ``i`` of a decoupled
model begins region ``i + 1``. A step can only read tensors of one region, for otherwise it could not be told which of
them belong together (Triton: "receives inputs originated from different decoupled models").
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

INPUTS = 0
"""The region of the ensemble's inputs."""


class FlowStep(NamedTuple):
    """The tensors that a step reads and writes, and whether its model is decoupled."""

    reads: frozenset[str]
    writes: frozenset[str]
    decoupled: bool = False


class Flow(NamedTuple):
    """What the steps come to.

    Attributes:
        regions: the region of every tensor that can be computed from the inputs.
        mixed: the steps that read tensors of several regions.
    """

    regions: dict[str, int]
    mixed: list[int]


def follow(inputs: Iterable[str], steps: Sequence[FlowStep]) -> Flow:
    """Follow the tensors from the inputs through every step that can run."""
    regions = dict.fromkeys(inputs, INPUTS)
    mixed: list[int] = []
    waiting = list(range(len(steps)))
    while ready := [index for index in waiting if steps[index].reads <= regions.keys()]:
        for index in ready:
            waiting.remove(index)
            read = {regions[tensor] for tensor in steps[index].reads}
            if len(read) > 1:
                mixed.append(index)
            region = index + 1 if steps[index].decoupled else min(read, default=INPUTS)
            for tensor in steps[index].writes:
                regions.setdefault(tensor, region)
    return Flow(regions, mixed)
