"""What two requests must have in common to share a batch (Triton ``backend_model.cc:829-848``)."""

from __future__ import annotations

from collections.abc import Sequence

from shoal.config.padding import PaddingSpec
from shoal.config.spec import ModelSpec
from shoal.requests import InferRequest, PlannedInput


def batch_key(inputs: Sequence[PlannedInput], spec: ModelSpec) -> tuple[object, ...]:
    """Requests of one model may share a batch only if their keys are equal.

    The key has the dims (without the batch) of each input with a variable dimension that does not allow ragged batches,
    the shape of each shape tensor, and, for a model with optional inputs, which inputs are there (rule 32). A dimension
    that is padded is left out of it; the buckets of the padded lengths, where there are any, stand at its end. It is
    empty for a model where nothing can differ, and for one without batching.

    What a shape tensor holds is not part of the head: ``shape_tensors.SameShapeTensors`` compares that for the requests
    that the batcher joins.
    """
    if not spec.max_batch_size:
        return ()
    key: list[object] = []
    padded = () if spec.padding is None else spec.padding.inputs
    if any(tensor.optional for tensor in spec.inputs):
        key.append(tuple(planned.index for planned in inputs))
    for planned in inputs:
        tensor = spec.inputs[planned.index]
        if tensor.is_shape_tensor:
            key.append(planned.shape)
        elif -1 in tensor.dims and not tensor.allow_ragged_batch and planned.index not in padded:
            key.append(planned.shape[1:])
    if spec.padding is not None:
        return _with_padding(key, inputs, spec.padding)
    return tuple(key)


def bucket_of(request: InferRequest) -> object:
    """The bucket of a request to a model whose padding policy has buckets: requests of one bucket share a batch."""
    return request.plan.batch_key[-1]


def _with_padding(key: list[object], inputs: Sequence[PlannedInput], padding: PaddingSpec) -> tuple[object, ...]:
    """The key of a model that pads: any lengths may meet, but only within a bucket."""
    shapes = {planned.index: planned.shape for planned in inputs}
    for length in padding.lengths:
        for member in length.inputs:
            shape = shapes.get(member.input)
            if shape is not None:
                key.append((*shape[1 : member.axis], *shape[member.axis + 1 :]))
    if padding.bucketed:
        leaders = [(length, length.inputs[0]) for length in padding.lengths]
        key.append(tuple([length.bucket(shapes[leader.input][leader.axis]) for length, leader in leaders]))
    return tuple(key)
