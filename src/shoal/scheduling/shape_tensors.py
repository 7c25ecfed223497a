"""Equal contents of shape tensors within a batch (Triton ``scheduler_utils.cc:104-163``).

The values of a shape tensor are in the payload, which differs from request to request, so they are no part of a plan's
batch key: the batcher compares them for the requests that it joins.
"""

from __future__ import annotations

from collections.abc import Iterable

from shoal.requests import Buffer, InferRequest
from shoal.scheduling.contract import CloseReason


class SameShapeTensors:
    """Compares the contents of two requests' shape tensors; their shapes are equal by the batch key.

    Args:
        indices: which of the model's inputs are shape tensors.
    """

    __slots__ = ("_indices",)

    reason = CloseReason.SHAPE

    def __init__(self, indices: Iterable[int]) -> None:
        self._indices = frozenset(indices)

    def __call__(self, first: InferRequest, other: InferRequest) -> bool:
        """Whether the two may share a batch."""
        return first is other or self._contents(first) == self._contents(other)

    def closed(self, count: int) -> None:
        """Nothing: each batch is judged by its first request."""

    def _contents(self, request: InferRequest) -> list[Buffer]:
        planned = (tensor for tensor in request.plan.inputs if tensor.index in self._indices)
        return [request.payload[tensor.position] if tensor.data is None else tensor.data for tensor in planned]
