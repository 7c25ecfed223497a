"""One request on its way through an ensemble: starts each step as soon as its inputs exist, and ends exactly once."""

from __future__ import annotations

import logging
from collections import deque
from typing import Protocol

from shoal.errors import InternalError, ShoalError, StepError
from shoal.execution.ensemble_plans import EnsemblePlan
from shoal.requests import (
    Buffer,
    HoldingSink,
    InferRequest,
    InferResponse,
    InnerRequest,
    RequestPlan,
    Responder,
    TensorHead,
    client_ns,
)
from shoal.scheduling.ensemble_graph import Flow

DEADLOCK = "unexpected deadlock, at least one output is not set while no more ensemble steps can be made"
"""Triton's words for what the checks at load leave no way to."""

log = logging.getLogger("shoal.model")


class Wave:
    """One pass through the graph: the tensors that are there, and what each step still waits for.

    Attributes:
        heads: what is known of each tensor; None for one that is absent or did not come yet.
        data: the bytes of each tensor, until their last reader has them.
        waits: for each step how many of its tensors have not come.
        uses: for each tensor how many of its readers have not taken it.
        wanted: how many of the requested outputs have not come.
        steps: steps that were started, or are about to be, and are not done.
        answer: the answer, once all requested outputs have come.
    """

    __slots__ = ("answer", "data", "heads", "steps", "uses", "waits", "wanted")

    def __init__(self, flow: Flow) -> None:
        count = len(flow.uses)
        self.heads: list[TensorHead | None] = [None] * count
        self.data: list[Buffer | None] = [None] * count
        self.waits = list(flow.waits)
        self.uses = list(flow.uses)
        self.wanted = len(flow.outputs)
        self.steps = 0
        self.answer: InferResponse | None = None


class StepRequest(InnerRequest):
    """The request of one step: its run is the responder.

    Attributes:
        wave: the pass through the graph that it belongs to.
        step: which step it is.
    """

    __slots__ = ("step", "wave")

    def __init__(
        self, plan: RequestPlan, payload: list[Buffer], responder: Responder, now_ns: int, turn: tuple[Wave, int]
    ) -> None:
        InnerRequest.__init__(self, plan, payload, responder, None, now_ns)
        self.wave, self.step = turn


class RunOwner(Protocol):
    """The ensemble, as its runs see it."""

    def now_ns(self) -> int:
        """The time."""

    def step_error(self, step: int, error: ShoalError) -> StepError:
        """The error of a step as clients see it."""

    def run_answered(self, run: EnsembleRun, response: InferResponse) -> None:
        """Every requested output is there."""

    def run_responded(self, run: EnsembleRun, response: InferResponse | None, *, final: bool) -> None:
        """One of the answers of an ensemble with a decoupled model; None with ``final``: nothing more comes."""

    def run_failed(self, run: EnsembleRun, error: ShoalError) -> None:
        """It cannot be answered."""


class EnsembleRun:
    """A request of an ensemble (the ``requests.Responder`` of its steps).

    Callbacks of a step may come while another step is being started, for a model may refuse a request at once, and the
    response cache answer it at once: they only note what became possible, and the outermost call carries it out.

    Attributes:
        request: the ensemble's request.
        started_ns: when it began.
        compute_ns: the times of its steps' batches, added up: input, inference and output.
    """

    __slots__ = (
        "_advancing",
        "_ended",
        "_owner",
        "_plan",
        "_plans",
        "_ready",
        "_root",
        "_running",
        "compute_ns",
        "request",
        "started_ns",
    )

    def __init__(self, owner: RunOwner, request: InferRequest, plan: EnsemblePlan, now_ns: int) -> None:
        self.request = request
        self.started_ns = now_ns
        self.compute_ns = [0, 0, 0]
        self._owner = owner
        self._plan = plan
        self._plans = plan.plans
        self._root = self._wave()
        self._ready: deque[tuple[Wave, int]] = deque()
        self._running: dict[StepRequest, None] = {}
        self._advancing = False
        self._ended = False

    def _wave(self) -> Wave:
        return Wave(self._plans.flow)

    def begin(self) -> None:
        """Start the steps that need nothing but the request."""
        plan, root, payload = self._plan, self._root, self.request.payload
        for tensor, head, position, data in plan.given:
            self._put(root, tensor, head, payload[position] if data is None else data)
        for tensor in plan.absent:
            self._put(root, tensor, None, None)
        self._advance()

    # --- the answers of steps ---------------------------------------------------------------------------------------

    def completed(self, request: InferRequest, response: InferResponse) -> None:
        """Take what a step gave."""
        if self._ended:
            return
        assert isinstance(request, StepRequest)
        try:
            self._put_response(request.wave, request.step, response)
            self._step_done(request)
        except Exception as error:  # whatever it is, the request must have an end
            self._fail_unexpectedly(error)
        self._advance()

    def failed(self, request: InferRequest, error: ShoalError) -> None:
        """A step failed, and the request with it."""
        if self._ended:
            return
        assert isinstance(request, StepRequest)
        self._running.pop(request, None)
        self.fail(self._owner.step_error(request.step, error))

    def responded(self, request: InferRequest, answer: InferResponse | ShoalError | None, *, final: bool) -> None:
        """Refuse the answers of a decoupled model: an ensemble of such is run by another class."""
        del answer, final
        self.failed(request, InternalError("the model is decoupled, and was not when the ensemble was loaded"))

    def _step_done(self, request: StepRequest) -> None:
        self._running.pop(request, None)
        request.wave.steps -= 1
        total, added = self.compute_ns, request.compute_ns
        total[0] += added[0]
        total[1] += added[1]
        total[2] += added[2]

    # --- ends -------------------------------------------------------------------------------------------------------

    def fail(self, error: ShoalError) -> None:
        """End with an error, unless it has ended."""
        if not self._ended:
            self._end()
            self._owner.run_failed(self, error)

    def hold(self, *, held: bool) -> None:
        """Nothing: the one answer of this ensemble waits for its client by itself."""

    def _fail_unexpectedly(self, error: Exception) -> None:
        log.error("unexpected error in an ensemble", exc_info=error)
        self.fail(InternalError(f"unexpected {type(error).__name__}: {error}"))

    def _end(self) -> None:
        """From now on answers of steps are dropped; steps that wait in a queue are taken out of it."""
        self._ended = True
        if self._running:
            self._ready.clear()
            self._root = self._wave()  # the steps that run hold this run, and must not hold the tensors
            running, self._running = self._running, {}
            for request in running:
                request.plan.sink.cancel(request)

    # --- the graph --------------------------------------------------------------------------------------------------

    def _put_response(self, wave: Wave, step: int, response: InferResponse) -> None:
        places, heads, data = self._plans.places(step, response.layout), response.layout.outputs, response.data
        for position, tensor in places.present:
            self._put(wave, tensor, heads[position], data[position])
        for tensor in places.absent:
            self._put(wave, tensor, None, None)

    def _put(self, wave: Wave, tensor: int, head: TensorHead | None, data: Buffer | None) -> None:
        """A tensor is there, or known to be absent: note the steps that this makes ready."""
        flow = self._plans.flow
        if not flow.uses[tensor]:
            return
        wave.heads[tensor] = head
        wave.data[tensor] = data
        waits = wave.waits
        for step in flow.readers[tensor]:
            waits[step] -= 1
            if not waits[step]:
                self._make_ready(wave, step)
        if flow.answers[tensor]:
            wave.wanted -= 1
            if not wave.wanted:
                wave.answer = self._plans.response(wave.heads, wave.data)

    def _make_ready(self, wave: Wave, step: int) -> None:
        wave.steps += 1
        self._ready.append((wave, step))

    def _advance(self) -> None:
        """Start what is ready, also what becomes ready meanwhile; then see what there is to deliver."""
        if self._advancing or self._ended:
            return
        self._advancing = True
        ready = self._ready
        try:
            while ready and not self._ended:
                self._start(ready.popleft())
        except Exception as error:  # as in ``completed``
            self._fail_unexpectedly(error)
        self._advancing = False
        if not self._ended:
            self._deliver()

    def _start(self, turn: tuple[Wave, int]) -> None:
        wave, step = turn
        try:
            plan = self._plan.step_plan(step, wave.heads, wave.data)
        except ShoalError as error:
            self.fail(self._owner.step_error(step, error))
            return
        request = StepRequest(plan, self._payload(wave, step), self, self._owner.now_ns(), turn)
        request.client_ns = client_ns(self.request)
        self._running[request] = None
        plan.sink.submit(request)

    def _payload(self, wave: Wave, step: int) -> list[Buffer]:
        """The bytes of a step's inputs; what no other step needs is let go, to be free when this one is done."""
        data, uses = wave.data, wave.uses
        graph_step = self._plans.steps[step]
        payload = [part for _, tensor in graph_step.inputs if (part := data[tensor]) is not None]
        for tensor in graph_step.reads:
            uses[tensor] -= 1
            if not uses[tensor]:
                data[tensor] = None
        return payload

    def _deliver(self) -> None:
        """Answer when all is there. Nothing left to run without an answer cannot be, and is told rather than kept."""
        answer = self._root.answer
        if answer is not None:
            self._end()
            self._owner.run_answered(self, answer)
        elif not self._running:
            self.fail(InternalError(DEADLOCK))


def hold(request: StepRequest, *, held: bool) -> None:
    """Have the model of a step wait with its next response, where it can, or go on."""
    sink = request.plan.sink
    if isinstance(sink, HoldingSink):
        sink.hold(request, held=held)
