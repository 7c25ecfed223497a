"""A tensor on its way between models with and without a batch dimension (Triton's ``ReshapeTensorDims``)."""

from __future__ import annotations

from shoal.requests import Shape

_VARIABLE = -1


def step_shape(shape: Shape, dims: Shape, *, from_batched: bool, to_batched: bool) -> Shape:
    """The shape that the reader of a tensor gets.

    Where only the reader has a batch dimension, a tensor that fits without one becomes a batch of one row; any other is
    taken for a batch already. Where only the writer has one, a batch of one row that does not fit loses it.

    Args:
        shape: as it was written.
        dims: the reader's dims, without a batch dimension.
        from_batched: whether the first dimension was the writer's batch.
        to_batched: whether the reader expects one.
    """
    if from_batched == to_batched:
        return shape
    fits = _fits(shape, dims)
    if to_batched:
        return (1, *shape) if fits else shape
    return shape[1:] if not fits and shape[:1] == (1,) else shape


def _fits(shape: Shape, dims: Shape) -> bool:
    return len(shape) == len(dims) and all(want in (_VARIABLE, got) for want, got in zip(dims, shape, strict=True))
