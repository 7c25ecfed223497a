"""Implicit state: tensors of a sequence that the server keeps between its requests (Triton's ``sequence_state.cc``).

A state is made of its initial value with the first request of a sequence, goes to the model as an input that no client
sends, and is replaced by the output that the model gives with it. A request that fails leaves it as it was. In a batch
the states of all sequences are gathered row by row, so there they must have the same shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from shoal.config.spec import ModelSpec, StateSpec
from shoal.datatypes import element_count
from shoal.errors import InvalidArgumentError, ModelError, ShoalError
from shoal.execution.blocks import LARGE_NBYTES, InstanceBlocks
from shoal.execution.messages import BatchDone, Place
from shoal.requests import Buffer, Shape
from shoal.scheduling.contract import Batch, MadeInput, SequenceTurn

SHARE_OF_BLOCK = 2
"""A state stays where the model wrote it if it is at least this part (one half) of all that the batch gave."""


class KeptState(NamedTuple):
    """A state tensor of one sequence: its wire bytes, and its shape without the batch dimension."""

    data: Buffer
    dims: Shape


class SequenceStates:
    """The states of a model's live sequences.

    Args:
        spec: the model, which has ``sequence`` with states.
    """

    def __init__(self, spec: ModelSpec) -> None:
        assert spec.sequence is not None
        self._model = spec.name
        self._batched = spec.max_batch_size > 0
        self._inputs = [len(spec.inputs) + state.input for state in spec.sequence.states]
        self._names = [spec.all_inputs[index].name for index in self._inputs]
        self._specs = spec.sequence.states
        self._outputs = {state.output: slot for slot, state in enumerate(self._specs)}
        self._output_names = {state.output: spec.all_outputs[state.output].name for state in self._specs}
        self._initial = tuple([KeptState(state.initial, state.initial_dims) for state in self._specs])
        self._kept: dict[int | str, tuple[KeptState, ...]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def forget(self, correlation_id: int | str) -> None:
        """The sequence is over."""
        self._kept.pop(correlation_id, None)

    # --- in ---------------------------------------------------------------------------------------------------------

    def __call__(self, batch: Batch) -> list[MadeInput]:
        """The state inputs of a batch (a ``gather.MakeInputs``).

        Raises:
            InvalidArgumentError: the states of its sequences differ in shape.
        """
        assert batch.turns is not None
        states = [self._of(turn) for turn in batch.turns]
        return [self._made(slot, states) for slot in range(len(self._specs))]

    def _of(self, turn: SequenceTurn) -> tuple[KeptState, ...] | None:
        """The states of a turn's sequence; None for an empty slot."""
        if not turn.ready:
            return None
        if turn.start:
            self.forget(turn.correlation_id)
        return self._kept.get(turn.correlation_id, self._initial)

    def _made(self, slot: int, states: Sequence[tuple[KeptState, ...] | None]) -> MadeInput:
        column = [None if each is None else each[slot] for each in states]
        dims = self._common_dims(slot, column)
        zeros = b""
        if None in column:  # a null request has zeros in the shape of the others, as in Triton
            zeros = bytes(element_count(dims) * (self._specs[slot].datatype.itemsize or 4))
        data = [zeros if each is None else each.data for each in column]
        shape = (len(column), *dims) if self._batched else dims
        return MadeInput(self._inputs[slot], b"", shape, data)

    def _common_dims(self, slot: int, column: Sequence[KeptState | None]) -> Shape:
        found = dict.fromkeys([each.dims for each in column if each is not None])
        if len(found) > 1:
            first, second = list(found)[:2]
            raise InvalidArgumentError(
                f"model '{self._model}': the sequences of one batch have states of different shapes in input "
                f"'{self._names[slot]}', {list(first)} and {list(second)}; they cannot run together: set "
                "max_batch_size to 1, or give the state the same shape in all sequences"
            )
        return next(iter(found))

    # --- out --------------------------------------------------------------------------------------------------------

    def keep(self, batch: Batch, done: BatchDone, blocks: InstanceBlocks) -> dict[int, ShoalError]:
        """Take the new states out of what the model gave, before its memory is used again.

        Returns:
            Why a state could not be taken, by the request's place in the batch.
        """
        failures: dict[int, ShoalError] = {}
        if done.status or batch.turns is None:
            return failures
        rows = self._cut(done, len(batch.turns), blocks) if done.outcomes is None else None
        for place, turn in enumerate(batch.turns):
            if not turn.ready:
                continue
            try:
                if rows is not None:
                    new = rows[place]
                else:
                    assert done.outcomes is not None
                    outcome = done.outcomes[place]
                    new = {} if outcome.status else self._whole(outcome.outputs, blocks)
                self._replace(turn.correlation_id, new)
            except ShoalError as error:
                failures[place] = error
        return failures

    def _replace(self, correlation_id: int | str, new: dict[int, KeptState]) -> None:
        """Take over a sequence's new states; those that the model did not give stay."""
        for slot, state in new.items():
            _check_dims(self._model, self._specs[slot], self._output_names, state.dims)
        old = self._kept.get(correlation_id, self._initial)
        if new:
            self._kept[correlation_id] = tuple([new.get(slot, state) for slot, state in enumerate(old)])

    def _cut(self, done: BatchDone, count: int, blocks: InstanceBlocks) -> list[dict[int, KeptState]]:
        """The states of each row of a gathered batch."""
        rows: list[dict[int, KeptState]] = [{} for _ in range(count)]
        total_nbytes = sum([place[2] for place in done.gathered])
        for index, offset, nbytes, shape in done.gathered:
            slot = self._outputs.get(index)
            if slot is None:
                continue
            dims = self._dims(index, shape, count)
            split = (done.splits or {}).get(index)
            start = offset
            for row, size in zip(rows, [nbytes // count] * count if split is None else split, strict=True):
                row[slot] = KeptState(_take(start, size, total_nbytes, blocks), dims)
                start += size
        return rows

    def _whole(self, places: Sequence[Place], blocks: InstanceBlocks) -> dict[int, KeptState]:
        """The states among one request's own outputs."""
        found: dict[int, KeptState] = {}
        total_nbytes = sum([place[2] for place in places])
        for index, offset, nbytes, shape in places:
            slot = self._outputs.get(index)
            if slot is not None:
                dims = self._dims(index, shape, 1)
                found[slot] = KeptState(_take(offset, nbytes, total_nbytes, blocks), dims)
        return found

    def _dims(self, index: int, shape: Shape, rows: int) -> Shape:
        """The shape of a state output without its batch dimension."""
        if not self._batched:
            return shape
        if shape[:1] != (rows,):
            raise ModelError(
                f"model '{self._model}' gave state output '{self._output_names[index]}' the shape {list(shape)} for "
                f"{rows} row{'s' if rows > 1 else ''}; the first dimension must be the batch"
            )
        return shape[1:]


def _take(offset: int, nbytes: int, total_nbytes: int, blocks: InstanceBlocks) -> Buffer:
    """A state's bytes: left where they are when that does not hold much else in memory, else a copy."""
    if nbytes >= LARGE_NBYTES and nbytes * SHARE_OF_BLOCK >= total_nbytes:
        return blocks.view(offset, nbytes)
    return blocks.read(offset, nbytes)


def _check_dims(model: str, state: StateSpec, names: dict[int, str], dims: Shape) -> None:
    """Refuse a state that the model could not be given again."""
    agree = len(dims) == len(state.dims) and all(
        wanted in (-1, found) for wanted, found in zip(state.dims, dims, strict=True)
    )
    if not agree:
        raise ModelError(
            f"model '{model}' gave state output '{names[state.output]}' the shape {list(dims)} (without the batch "
            f"dimension), but its configuration says {list(state.dims)}"
        )
