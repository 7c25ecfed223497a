"""The data flow of an ensemble, compiled to integers: which step reads which tensors, and what a request needs of it.

Tensors are numbered, the ensemble's inputs first and in the order of its configuration; steps are numbered as they
stand there. A ``Flow`` is the part of the graph that a set of requested outputs needs: a step that none of them depends
on is left out, as is an output of a step that nothing reads (Triton prunes the same way).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shoal.config.spec import ModelSpec, StepSpec

FROM_CLIENT = -1
"""What stands for the writer of an input of the ensemble."""


@dataclass(frozen=True, slots=True)
class GraphStep:
    """One step.

    Attributes:
        inputs: of each mapped input of its model the name, and the tensor that it reads.
        outputs: of each mapped output of its model the name, and the tensor that it writes.
        reads: the tensors that it reads, each once.
    """

    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]
    reads: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Flow:
    """What some of the outputs need.

    Attributes:
        outputs: the tensors to answer with, in the order of the ensemble's configuration.
        answers: for each tensor whether it is one of those.
        readers: for each tensor the steps that read it.
        waits: for each step how many tensors it waits for; 0 for one that is not needed.
        uses: for each tensor how often it is read, being answered with included.
        asks: for each step the outputs of its model that are needed.
    """

    outputs: tuple[int, ...]
    answers: tuple[bool, ...]
    readers: tuple[tuple[int, ...], ...]
    waits: tuple[int, ...]
    uses: tuple[int, ...]
    asks: tuple[tuple[str, ...], ...]


class EnsembleGraph:
    """The graph of one ensemble.

    Args:
        spec: the ensemble.

    Attributes:
        names: the name of each tensor.
        steps: the steps.
        writers: for each tensor the step that writes it, or ``FROM_CLIENT``.
    """

    def __init__(self, spec: ModelSpec) -> None:
        assert spec.ensemble is not None
        self._outputs = tuple(tensor.name for tensor in spec.outputs)
        numbers = {tensor.name: number for number, tensor in enumerate(spec.inputs)}
        for step in spec.ensemble.steps:
            for name in (*step.inputs.values(), *step.outputs.values()):
                numbers.setdefault(name, len(numbers))
        self._numbers = numbers
        self.names = tuple(numbers)
        self.steps = tuple(_graph_step(step, numbers) for step in spec.ensemble.steps)
        writers = [FROM_CLIENT] * len(numbers)
        for index, made in enumerate(self.steps):
            for _, tensor in made.outputs:
                writers[tensor] = index
        self.writers = tuple(writers)

    def flow(self, outputs: Sequence[int]) -> Flow:
        """What these outputs need.

        Args:
            outputs: indices of the ensemble's outputs.
        """
        wanted = tuple(self._numbers[self._outputs[index]] for index in sorted(outputs))
        needed = self._needed_steps(wanted)
        readers: list[list[int]] = [[] for _ in self.names]
        for index in needed:
            for tensor in self.steps[index].reads:
                readers[tensor].append(index)
        answers = tuple(tensor in wanted for tensor in range(len(self.names)))
        uses = tuple(len(steps) + answers[tensor] for tensor, steps in enumerate(readers))
        return Flow(
            outputs=wanted,
            answers=answers,
            readers=tuple(map(tuple, readers)),
            waits=tuple(len(step.reads) if index in needed else 0 for index, step in enumerate(self.steps)),
            uses=uses,
            asks=tuple(tuple(name for name, tensor in step.outputs if uses[tensor]) for step in self.steps),
        )

    def _needed_steps(self, wanted: Sequence[int]) -> list[int]:
        """The steps that these tensors depend on, in rising order."""
        needed: set[int] = set()
        open_tensors = list(wanted)
        while open_tensors:
            writer = self.writers[open_tensors.pop()]
            if writer != FROM_CLIENT and writer not in needed:
                needed.add(writer)
                open_tensors += self.steps[writer].reads
        return sorted(needed)


def _graph_step(step: StepSpec, numbers: dict[str, int]) -> GraphStep:
    inputs = tuple((name, numbers[tensor]) for name, tensor in step.inputs.items())
    outputs = tuple((name, numbers[tensor]) for name, tensor in step.outputs.items())
    return GraphStep(inputs, outputs, tuple(dict.fromkeys(tensor for _, tensor in inputs)))
