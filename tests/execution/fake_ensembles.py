"""Random ensembles of models that compute in the test itself, and answer when the test says so."""

from __future__ import annotations

import struct
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from shoal.config.spec import EnsembleSpec, ModelSpec, StepSpec, TensorSpec
from shoal.datatypes import DataType
from shoal.errors import CancelledError, NotFoundError, ShoalError
from shoal.execution.ensemble import EnsembleRuntime
from shoal.requests import (
    LATEST,
    InferHead,
    InferRequest,
    InferResponse,
    InputHead,
    OutputHead,
    RequestState,
    ResponseLayout,
    TensorHead,
)
from shoal.scheduling.admission import plan_request
from shoal.testing.clock import ManualClock

MODULUS = 1_000_003
ENSEMBLE = "pipeline"


class Bytes(bytearray):
    """A tensor's bytes, of which a test can see when nobody holds them any more."""


def number_of(data: Any) -> int:
    """The number that a tensor holds."""
    return int(struct.unpack("<q", bytes(data))[0])


@dataclass(frozen=True)
class Step:
    """A step of a random ensemble: the tensors it reads and writes; ``responses`` for a decoupled model."""

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    responses: int | None = None

    def compute(self, values: Mapping[str, int], turn: int = 0) -> dict[str, int]:
        """The numbers it writes."""
        total = (
            sum((place + 2) * values[tensor] for place, tensor in enumerate(self.reads)) + turn * 17 + len(self.name)
        )
        return {
            tensor: (total * 31 + place * 7 + int(self.name[1:])) % MODULUS for place, tensor in enumerate(self.writes)
        }


@dataclass(frozen=True)
class Graph:
    """A random ensemble: its inputs, its steps in some order, and its outputs."""

    inputs: tuple[str, ...]
    steps: tuple[Step, ...]
    outputs: tuple[str, ...]
    limit: int = 0

    def spec(self) -> ModelSpec:
        """The ensemble's spec."""
        steps = tuple(
            StepSpec(
                step.name,
                LATEST,
                {f"I{place}": tensor for place, tensor in enumerate(step.reads)},
                {f"O{place}": tensor for place, tensor in enumerate(step.writes)},
            )
            for step in self.steps
        )
        return _spec(
            ENSEMBLE,
            self.inputs,
            self.outputs,
            ensemble=EnsembleSpec(steps, self.limit),
            decoupled=any(step.responses is not None for step in self.steps),
        )

    def needed(self, outputs: tuple[str, ...]) -> set[str]:
        """The names of the steps that these outputs depend on."""
        writers = {tensor: step for step in self.steps for tensor in step.writes}
        found: set[str] = set()
        open_tensors = [tensor for tensor in outputs if tensor in writers]
        while open_tensors:
            step = writers[open_tensors.pop()]
            if step.name not in found:
                found.add(step.name)
                open_tensors += [tensor for tensor in step.reads if tensor in writers]
        return found


def _spec(name: str, inputs: tuple[str, ...], outputs: tuple[str, ...], **more: Any) -> ModelSpec:
    def tensors(names: tuple[str, ...]) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(each, DataType.INT64, (1,)) for each in names)

    return ModelSpec(name, 1, "fake", "fake", 0, tensors(inputs), tensors(outputs), (), **more)


class FakeModel:
    """A model (a ``repository`` member and its sink) whose requests wait until the test answers them."""

    def __init__(self, world: World, step: Step) -> None:
        self.spec = _spec(
            step.name,
            tuple(f"I{place}" for place in range(len(step.reads))),
            tuple(f"O{place}" for place in range(len(step.writes))),
            decoupled=step.responses is not None,
        )
        self.sink = self
        self.step = step
        self.ready = True
        self.receive_arena = None
        self._world = world

    @property
    def runtime(self) -> FakeModel:
        return self

    def submit(self, request: InferRequest) -> None:
        self._world.submitted(self, request)

    def cancel(self, request: InferRequest) -> None:
        self._world.cancelled(self, request)

    def hold(self, request: InferRequest, *, held: bool) -> None:
        self._world.held[id(request)] = held

    def abandon(self, correlation_id: int | str, begun_ns: int) -> None:
        raise AssertionError("a step's sequence is not its ensemble's to end")


class Recorder:
    """Counts the ends of requests."""

    def __init__(self) -> None:
        self.done = self.failed = 0

    def batch_done(self, batch: Any, times: Any, answered: Any) -> None:
        assert times.taken_ns <= times.input_ns <= times.infer_ns <= times.output_ns
        self.done += len(answered)

    def request_failed(self, request: Any, reason: Any, now_ns: int) -> None:
        self.failed += 1


class Asker:
    """A client: keeps what it is told, and that it is told of one end only."""

    def __init__(self) -> None:
        self.answers: list[dict[str, int]] = []
        self.errors: list[ShoalError] = []
        self.ends = 0

    def completed(self, request: InferRequest, response: InferResponse) -> None:
        assert request.state is RequestState.DONE
        self._keep(response)
        self.ends += 1

    def failed(self, request: InferRequest, error: ShoalError) -> None:
        assert request.state is RequestState.DONE
        self.errors.append(error)
        self.ends += 1

    def responded(self, request: InferRequest, answer: Any, *, final: bool) -> None:
        assert not self.ends
        if answer is not None:
            self._keep(answer)
        self.ends += final

    def _keep(self, response: InferResponse) -> None:
        names = [head.name for head in response.layout.outputs]
        self.answers.append(dict(zip(names, map(number_of, response.data), strict=True)))


@dataclass
class Pending:
    """A request that a model has."""

    model: FakeModel
    request: InferRequest
    answered: int = 0
    values: dict[str, int] = field(default_factory=dict)


class World:
    """An ensemble with its models, all in the test's hands.

    Attributes:
        pending: requests that the models have, in the order in which they came.
        started: how often each model was asked.
        at_once: models that answer, or refuse, while they are asked.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.pending: list[Pending] = []
        self.started: dict[str, int] = {}
        self.at_once: dict[str, ShoalError | None] = {}
        self.held: dict[int, bool] = {}
        self.models = {step.name: FakeModel(self, step) for step in graph.steps}
        self.recorder = Recorder()
        self.runtime = EnsembleRuntime(graph.spec(), self._find, self.recorder, ManualClock())
        self.alive: weakref.WeakSet[Any] = weakref.WeakSet()

    def _find(self, name: str, version: int) -> FakeModel:
        assert version == LATEST
        if name not in self.models:
            raise NotFoundError(f"Request for unknown model: '{name}' is not found")
        return self.models[name]

    def bytes_of(self, number: int) -> Bytes:
        made = Bytes(struct.pack("<q", number))
        self.alive.add(_Watched.on(made))
        return made

    def ask(
        self, values: Mapping[str, int], outputs: tuple[str, ...] = (), *, request_id: str = "", **more: Any
    ) -> tuple[InferRequest, Asker]:
        """Ask the ensemble."""
        inputs = tuple(InputHead(name, DataType.INT64, (1,), 8) for name in values)
        head = InferHead(ENSEMBLE, LATEST, request_id, inputs, tuple(OutputHead(name) for name in outputs), more)
        asker = Asker()
        payload = [self.bytes_of(number) for number in values.values()]
        request = InferRequest(plan_request(head, self.runtime.spec, self.runtime), payload, asker, None, 0)
        self.runtime.submit(request)
        return request, asker

    # --- the models' side -------------------------------------------------------------------------------------------

    def submitted(self, model: FakeModel, request: InferRequest) -> None:
        name = model.step.name
        self.started[name] = self.started.get(name, 0) + 1
        names = [head.name for head in request.plan.head.inputs]
        given = dict(zip(names, map(number_of, request.payload), strict=True))
        values = {tensor: given[f"I{place}"] for place, tensor in enumerate(model.step.reads)}
        pending = Pending(model, request, 0, values)
        if name in self.at_once:
            error = self.at_once[name]
            self._end(pending, error)
        else:
            self.pending.append(pending)

    def cancelled(self, model: FakeModel, request: InferRequest) -> None:
        """Every second model has it in a queue and gives it up; the others run it to its end."""
        request.cancelled = True
        if int(model.step.name[1:]) % 2:
            for pending in [each for each in self.pending if each.request is request]:
                self.pending.remove(pending)
                self._end(pending, CancelledError("gone"))

    def answer(self, place: int, error: ShoalError | None = None) -> None:
        """Answer one of the pending requests; a decoupled model gives its next response."""
        pending = self.pending[place]
        responses = pending.model.step.responses
        if error is None and responses is not None and pending.answered < responses:
            pending.answered += 1
            response = self._response(pending, pending.answered - 1)
            pending.request.responder.responded(pending.request, response, final=False)
            return
        self.pending.remove(pending)
        self._end(pending, error)

    def _end(self, pending: Pending, error: ShoalError | None) -> None:
        request = pending.request
        request.state = RequestState.DONE
        if error is not None:
            request.responder.failed(request, error)
        elif pending.model.step.responses is None:
            request.responder.completed(request, self._response(pending, 0))
        else:
            while pending.answered < pending.model.step.responses:
                pending.answered += 1
                request.responder.responded(request, self._response(pending, pending.answered - 1), final=False)
            request.responder.responded(request, None, final=True)

    def _response(self, pending: Pending, turn: int) -> InferResponse:
        step = pending.model.step
        numbers = list(step.compute(pending.values, turn).values())
        wanted = pending.request.plan.outputs
        heads = tuple(TensorHead(f"O{index}", DataType.INT64, (1,)) for index in wanted)
        layout = ResponseLayout(step.name, 1, heads)
        return InferResponse(layout, [self.bytes_of(numbers[index]) for index in wanted])


class _Watched:
    """Stands for a buffer in a set of weak references, which wants what can be hashed."""

    @staticmethod
    def on(made: Bytes) -> Any:
        watched = _Watched()
        made.watched = watched  # type: ignore[attr-defined] # dies with the buffer
        return watched


@st.composite
def graphs(draw: st.DrawFn, *, most_steps: int = 6) -> Graph:
    """Ensembles of any shape: every input is read, every tensor is read or an output, steps stand in any order."""
    inputs = tuple(f"x{number}" for number in range(draw(st.integers(1, 3))))
    tensors = list(inputs)
    steps: list[Step] = []
    for number in range(draw(st.integers(1, most_steps))):
        reads = tuple(draw(st.lists(st.sampled_from(tensors), min_size=1, max_size=3)))
        writes = tuple(f"t{number}_{place}" for place in range(draw(st.integers(1, 2))))
        steps.append(Step(f"s{number}", reads, writes))
        tensors += writes
    read = {tensor for step in steps for tensor in step.reads}
    written = [tensor for step in steps for tensor in step.writes]
    ends = [tensor for tensor in written if tensor not in read]
    extra = [tensor for tensor in written if tensor in read and draw(st.booleans())]
    used = tuple(tensor for tensor in inputs if tensor in read)
    shuffled = tuple(draw(st.permutations(steps)))
    return Graph(used, shuffled, tuple(draw(st.permutations(ends + extra))))


def composition(graph: Graph, values: Mapping[str, int]) -> dict[str, int]:
    """What the ensemble comes to: its steps one after the other."""
    known = dict(values)
    waiting = list(graph.steps)
    while waiting:
        step = next(each for each in waiting if set(each.reads) <= known.keys())
        waiting.remove(step)
        known |= step.compute(known)
    return known
