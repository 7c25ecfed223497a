"""What two requests must have in common to share a batch (Triton ``backend_model.cc:829-848``)."""

from __future__ import annotations

from collections.abc import Sequence

from shoal.config.spec import ModelSpec
from shoal.requests import PlannedInput


def batch_key(inputs: Sequence[PlannedInput], spec: ModelSpec) -> tuple[object, ...]:
    """Requests of one model may share a batch only if their keys are equal.

    The key has the dims (without the batch) of each input with a variable dimension that does not allow ragged batches,
    the shape of each shape tensor, and, for a model with optional inputs, which inputs are there (rule 32). It is empty
    for a model where nothing can differ, and for one without batching. What a shape tensor holds is not part of the
    head: ``shape_tensors.SameShapeTensors`` compares that for the requests that the batcher joins.
    """
    if not spec.max_batch_size:
        return ()
    key: list[object] = []
    if any(tensor.optional for tensor in spec.inputs):
        key.append(tuple(planned.index for planned in inputs))
    for planned in inputs:
        tensor = spec.inputs[planned.index]
        if tensor.is_shape_tensor:
            key.append(planned.shape)
        elif -1 in tensor.dims and not tensor.allow_ragged_batch:
            key.append(planned.shape[1:])
    return tuple(key)
