"""How long each request of a batch is, and how long the batch is padded: asked on the way in and on the way out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.config.padding import PaddedLength
from shoal.requests import InferRequest, RequestPlan


class BatchLength:
    """One length of a batch's requests.

    Attributes:
        spec: the length's settings.
        each: how long each request is.
        rows: the rows of each request.
        padded: how long all of them are after padding.
    """

    def __init__(self, spec: PaddedLength, requests: Sequence[InferRequest]) -> None:
        self.spec = spec
        leader = spec.inputs[0]
        self._slot, self._axis = slot_of(requests[0].plan, leader.input), leader.axis
        self.each = [self.of_request(request) for request in requests]
        self.rows = [request.plan.rows for request in requests]
        self.padded = spec.padded(max(self.each))

    def of_request(self, request: InferRequest) -> int:
        """How long one of the batch's requests is."""
        return request.plan.inputs[self._slot].shape[self._axis]

    @property
    def unequal(self) -> bool:
        """Whether anything is padded."""
        return min(self.each) < self.padded

    @cached_property
    def of_rows(self) -> NDArray[np.int64]:
        """How long each row is."""
        return np.repeat(np.array(self.each, np.int64), self.rows)

    @cached_property
    def real(self) -> NDArray[np.bool_]:
        """For each row, which of its elements are real."""
        found: NDArray[Any] = np.arange(self.padded) < self.of_rows[:, None]
        return found


def slot_of(plan: RequestPlan, index: int) -> int:
    """Where in a plan's inputs the input with this index stands; the same for all requests of a batch."""
    for slot, planned in enumerate(plan.inputs):
        if planned.index == index:
            return slot
    raise LookupError(index)
