"""What an ensemble works out of a request's plan, and keeps in it: a repeated request costs a lookup per step.

Everything here depends on the request's head, the models and the shapes that flow between them, never on the data. A
plan is dropped when models change (``Server.on_models_changed``), and this with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

from shoal.config.spec import TensorSpec
from shoal.datatypes import DataType
from shoal.execution.ensemble_shape import EnsembleShape
from shoal.requests import (
    Buffer,
    InferHead,
    InferResponse,
    RequestPlan,
    ResponseLayout,
    Shape,
    TensorHead,
)
from shoal.scheduling.ensemble_graph import Flow

Key = TypeVar("Key")
Value = TypeVar("Value")
Heads = Sequence[TensorHead | None]

KEPT = 256
"""Plans, places and layouts of each kind that are kept; more distinct shapes than that start anew."""


class Given(NamedTuple):
    """One input of the ensemble that a request has: the tensor, and where its bytes are."""

    tensor: int
    head: TensorHead
    position: int
    data: bytes | None


class Places(NamedTuple):
    """Where a response's tensors go: pairs of a position in it and a tensor, and the tensors that it lacks."""

    present: tuple[tuple[int, int], ...]
    absent: tuple[int, ...]


class FlowPlans:
    """What is the same for all requests that ask for the same outputs.

    Args:
        ensemble: the ensemble.
        flow: the part of its graph that those outputs need.

    Attributes:
        flow: the same.
        steps: the steps of the graph.
    """

    __slots__ = ("_ensemble", "_layouts", "_places", "_templates", "flow", "steps")

    def __init__(self, ensemble: EnsembleShape, flow: Flow) -> None:
        self.flow = flow
        self.steps = ensemble.graph.steps
        self._ensemble = ensemble
        self._places: list[dict[ResponseLayout, Places]] = [{} for _ in self.steps]
        self._layouts: dict[tuple[Shape | None, ...], ResponseLayout] = {}
        self._templates: list[dict[tuple[object, ...], RequestPlan]] = [{} for _ in self.steps]

    def plan(self, asked: InferHead, step: int, heads: Heads, data: Sequence[Buffer | None]) -> RequestPlan:
        """The plan of a step's request, made from that of one with the same shapes and parameters where there is one.

        Args:
            asked: the head of the ensemble's request.
            step: which step.
            heads: what is known of every tensor; None for one that is absent.
            data: the bytes of every tensor.
        """
        parameters = tuple([(name, type(value), value) for name, value in asked.parameters.items()])
        shapes = [None if (head := heads[tensor]) is None else head.shape for _, tensor in self.steps[step].inputs]
        templates, key = self._templates[step], (*shapes, parameters)
        known = templates.get(key)
        if known is not None and known.sink is self._ensemble.member(step).sink:
            sizes = [len(part) for _, tensor in self.steps[step].inputs if (part := data[tensor]) is not None]
            return _like(known, asked, sizes)
        made = self._ensemble.plan_step(asked, self.flow, step, heads, data)
        _keep(templates, key, made)
        return made

    def places(self, step: int, layout: ResponseLayout) -> Places:
        """Where the tensors of a step's response go."""
        found = self._places[step].get(layout)
        if found is None:
            found = self._find_places(step, layout)
            _keep(self._places[step], layout, found)
        return found

    def _find_places(self, step: int, layout: ResponseLayout) -> Places:
        """Tensors that the model did not give are absent, which an optional input of another model may be."""
        positions = {output.name: position for position, output in enumerate(layout.outputs)}
        written = [(name, tensor) for name, tensor in self.steps[step].outputs if self.flow.uses[tensor]]
        present = tuple((positions[name], tensor) for name, tensor in written if name in positions)
        return Places(present, tuple(tensor for name, tensor in written if name not in positions))

    def response(self, heads: Heads, data: Sequence[Buffer | None]) -> InferResponse:
        """The answer: the requested outputs, in the order of the ensemble's configuration."""
        outputs = self.flow.outputs
        found = [(tensor, heads[tensor]) for tensor in outputs]
        key = tuple([None if head is None else head.shape for _, head in found])
        layout = self._layouts.get(key)
        if layout is None:
            layout = self._ensemble.layout(found)
            _keep(self._layouts, key, layout)
        return InferResponse(layout, [part for tensor in outputs if (part := data[tensor]) is not None])


def _keep(kept: dict[Key, Value], key: Key, value: Value) -> None:
    if len(kept) >= KEPT:
        kept.clear()
    kept[key] = value


def _like(known: RequestPlan, asked: InferHead, sizes: Sequence[int]) -> RequestPlan:
    """The same plan for a request with another id, and with tensors of these lengths."""
    head, payload_nbytes = known.head, tuple(sizes)
    inputs = head.inputs
    if payload_nbytes != known.payload_nbytes:
        inputs = tuple(replace(one, nbytes=nbytes) for one, nbytes in zip(inputs, sizes, strict=True))
    elif asked.request_id == head.request_id:
        return known
    made = InferHead(head.model_name, head.model_version, asked.request_id, inputs, head.outputs, asked.parameters)
    return replace(known, head=made, payload_nbytes=payload_nbytes, prepared=None, cache_key=None)


class EnsemblePlan:
    """What is the same for all requests with the same head.

    Args:
        plans: what is the same for all that ask for the same outputs.
        plan: the plan of the ensemble's request.
        inputs: the ensemble's inputs.

    Attributes:
        plans: the same.
        given: the inputs that the request has.
        absent: the optional inputs that it leaves out.
    """

    __slots__ = ("_head", "_plans", "absent", "given", "plans")

    def __init__(self, plans: FlowPlans, plan: RequestPlan, inputs: Sequence[TensorSpec]) -> None:
        self.plans = plans
        self._head = plan.head
        self.given = tuple(
            Given(planned.index, TensorHead(known.name, known.datatype, planned.shape), planned.position, planned.data)
            for planned in plan.inputs
            if (known := inputs[planned.index])
        )
        present = {given.tensor for given in self.given}
        self.absent = tuple(index for index in range(len(inputs)) if index not in present)
        self._plans: list[dict[tuple[object, ...], RequestPlan]] = [{} for _ in plans.steps]

    def step_plan(self, step: int, heads: Heads, data: Sequence[Buffer | None]) -> RequestPlan:
        """The plan of a step's request.

        Args:
            step: which step.
            heads: what is known of every tensor; None for one that is absent.
            data: the bytes of every tensor.

        Raises:
            ShoalError: the model is not there, or the tensors do not fit it.
        """
        key: list[object] = []
        for _, tensor in self.plans.steps[step].inputs:
            head = heads[tensor]
            if head is None:
                key.append(None)
                continue
            key.append(head.shape)
            if head.datatype is DataType.BYTES:
                key.append(len(data[tensor] or b""))
        plans = self._plans[step]
        found = plans.get(tuple(key))
        if found is None:
            found = self.plans.plan(self._head, step, heads, data)
            _keep(plans, tuple(key), found)
        return found
