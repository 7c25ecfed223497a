"""States with one buffer for input and output: what a model writes into the input is the sequence's next state.

Triton's ``use_same_buffer_for_input_output``. A model may still return the output, which is the next state then.
"""

from __future__ import annotations

from collections.abc import Sequence

from shoal.backends.contract import BatchResult, ModelBatch, RequestResult
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
            result.gathered.setdefault(target, batch.inputs[source])
        return
    assert result.per_request is not None
    end = 0
    for rows, one in zip(batch.rows, result.per_request, strict=True):
        start, end = end, end + rows
        if one.error is None:
            _add(one, batch, names, slice(start, end) if batch.batched else slice(None))


def _add(one: RequestResult, batch: ModelBatch, names: Sequence[tuple[str, str]], rows: slice) -> None:
    for source, target in names:
        one.outputs.setdefault(target, batch.inputs[source][rows])
