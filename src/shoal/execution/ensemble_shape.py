"""An ensemble with the models of its steps: how a tensor that flows into a step looks to its model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from shoal.config.spec import ModelSpec
from shoal.execution.contract import Runtime
from shoal.execution.scatter import client_shape
from shoal.requests import (
    Buffer,
    InferHead,
    InputHead,
    OutputHead,
    RequestPlan,
    ResponseLayout,
    Sink,
    TensorHead,
)
from shoal.scheduling.admission import plan_request
from shoal.scheduling.ensemble_graph import FROM_CLIENT, EnsembleGraph, Flow
from shoal.scheduling.ensemble_shapes import step_shape


class Member(Protocol):
    """The model of a step: what the catalog has of it."""

    @property
    def spec(self) -> ModelSpec:
        """Its configuration."""

    @property
    def sink(self) -> Sink:
        """What takes its requests."""

    @property
    def runtime(self) -> Runtime:
        """What runs them."""


FindMember = Callable[[str, int], Member]
"""Finds the model of a step by name and version; raises ``NotFoundError`` or ``UnavailableError``."""


class EnsembleShape:
    """An ensemble's graph with its models.

    Args:
        spec: the ensemble.
        find: finds the models of its steps.

    Attributes:
        spec: the ensemble.
        graph: its graph.
    """

    def __init__(self, spec: ModelSpec, find: FindMember) -> None:
        assert spec.ensemble is not None
        self.spec = spec
        self.graph = EnsembleGraph(spec)
        self._steps = spec.ensemble.steps
        self._find = find
        self._outputs = {tensor.name: tensor for tensor in spec.outputs}

    def member(self, step: int) -> Member:
        """The model of a step.

        Raises:
            NotFoundError: there is no such model or version.
            UnavailableError: it is not ready.
        """
        return self._find(self._steps[step].model_name, self._steps[step].model_version)

    def members(self) -> list[Member]:
        """The models of all steps, as ``member`` gives them."""
        return [self.member(step) for step in range(len(self._steps))]

    def step_name(self, step: int) -> str:
        """How messages name a step."""
        return f"step[{step}] '{self._steps[step].model_name}'"

    def plan_step(
        self,
        asked: InferHead,
        flow: Flow,
        step: int,
        heads: Sequence[TensorHead | None],
        data: Sequence[Buffer | None],
    ) -> RequestPlan:
        """Check what flows into a step against its model, and plan its run."""
        member = self.member(step)
        spec = member.spec
        dims = {tensor.name: tensor.dims for tensor in spec.inputs}
        inputs = []
        for name, tensor in self.graph.steps[step].inputs:
            head = heads[tensor]
            if head is not None:
                shape = step_shape(
                    head.shape,
                    dims.get(name, ()),
                    from_batched=self._is_batched(tensor),
                    to_batched=spec.max_batch_size > 0,
                )
                inputs.append(InputHead(name, head.datatype, shape, len(data[tensor] or b"")))
        outputs = tuple(OutputHead(name) for name in flow.asks[step])
        own = InferHead(spec.name, spec.version, asked.request_id, tuple(inputs), outputs, asked.parameters)
        made = plan_request(own, spec, member.sink)
        made.bytes_inputs = ()  # checked when the request came, or written by a worker
        return made

    def layout(self, outputs: Sequence[tuple[int, TensorHead | None]]) -> ResponseLayout:
        """The layout of an answer with these tensors; those that are absent are left out."""
        heads = []
        batched = self.spec.max_batch_size > 0
        for tensor, head in outputs:
            if head is None:
                continue
            known = self._outputs[self.graph.names[tensor]]
            backend_dims = known.dims if known.reshape is None else known.reshape
            shape = step_shape(head.shape, backend_dims, from_batched=self._is_batched(tensor), to_batched=batched)
            heads.append(TensorHead(known.name, head.datatype, client_shape(known, shape, batched)))
        return ResponseLayout(self.spec.name, self.spec.version, tuple(heads))

    def _is_batched(self, tensor: int) -> bool:
        """Whether the first dimension of a tensor is the batch of who wrote it."""
        writer = self.graph.writers[tensor]
        spec = self.spec if writer == FROM_CLIENT else self.member(writer).spec
        return spec.max_batch_size > 0
