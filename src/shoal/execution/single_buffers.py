"""States with one buffer for input and output: what a model writes into the input is the sequence's next state.

Triton's ``use_same_buffer_for_input_output``. A model may still return the output, which is the next state then.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shoal.backends.contract import Array, BatchResult, ModelBatch
from shoal.config.spec import ModelSpec


def single_buffers(spec: ModelSpec) -> list[tuple[str, str]]:
    """The input and output names of a model's states with a single buffer."""
    if spec.sequence is None:
        return []
    return [
        (spec.made_inputs[state.input].name, spec.all_outputs[state.output].name)
        for state in spec.sequence.states
        if state.single_buffer
    ]


def add_single_buffers(result: BatchResult, batch: ModelBatch, names: Sequence[tuple[str, str]]) -> None:
    """Give the states that the model changed in place as outputs, in place of those that it did not return."""
    if result.gathered is not None:
        for source, target in names:
            if target not in result.gathered:
                result.gathered[target] = _all_rows(batch, source)
        return
    assert result.per_request is not None
    end = 0
    for place, (rows, one) in enumerate(zip(batch.rows, result.per_request, strict=True)):
        start, end = end, end + rows
        if one.error is not None:
            continue
        for source, target in names:
            if batch.pieces is not None:
                one.outputs.setdefault(target, batch.pieces[place][source])
            else:
                one.outputs.setdefault(
                    target, batch.inputs[source][start:end] if batch.batched else batch.inputs[source]
                )


def _all_rows(batch: ModelBatch, source: str) -> Array:
    """A state of all requests of a batch."""
    if batch.pieces is None:
        return batch.inputs[source]
    arrays = [piece[source] for piece in batch.pieces]
    return np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
