"""Null requests: rows of zeros that keep the rows of a direct sequence batch in their slots (CopyAsNull in Triton)."""

from __future__ import annotations

from collections.abc import Sequence

from shoal.config.spec import ModelSpec
from shoal.datatypes import element_count
from shoal.requests import NOBODY, Buffer, InferHead, InferRequest, PlannedInput, RequestPlan, RequestState, Shape

_STRING_NBYTES = 4
"""An empty string on the wire: its length."""


class Filler:
    """Makes null requests in the shape of real ones; nobody is told what a model answers to them."""

    __slots__ = ("_payload", "_plan", "_shapes", "_spec")

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._shapes: Sequence[tuple[int, Shape]] | None = None
        self._plan: RequestPlan
        self._payload: Sequence[Buffer] = ()

    def like(self, request: InferRequest, now_ns: int) -> InferRequest:
        """A null request with the inputs of this one, marked running."""
        shapes = [(planned.index, planned.shape) for planned in request.plan.inputs]
        if shapes != self._shapes:
            self._shapes = shapes
            self._payload = tuple(bytes(self._nbytes(*shape)) for shape in shapes)
            self._plan = self._make_plan(request.plan)
        null = InferRequest(self._plan, self._payload, NOBODY, None, now_ns)
        null.queued_ns = now_ns
        null.state = RequestState.RUNNING
        return null

    def _make_plan(self, plan: RequestPlan) -> RequestPlan:
        return RequestPlan(
            head=InferHead(plan.head.model_name, plan.head.model_version, "", ()),
            sink=plan.sink,
            rows=1,
            inputs=tuple(PlannedInput(each.index, each.shape, place) for place, each in enumerate(plan.inputs)),
            outputs=tuple(range(len(self._spec.outputs))),
            batch_key=plan.batch_key,
            payload_nbytes=tuple(map(len, self._payload)),
            batched=plan.batched,
        )

    def _nbytes(self, index: int, shape: Shape) -> int:
        return element_count(shape) * (self._spec.inputs[index].datatype.itemsize or _STRING_NBYTES)
