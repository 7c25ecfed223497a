"""EnsembleRuntime: an ensemble being served. It has no workers: its requests become requests of other models.

::

    submit -> EnsembleRun -> a request to the model of each step whose inputs exist
    responder <- all requested outputs are there <- EnsembleRun <- answers of the steps, as they come

A tensor goes from step to step in the buffer that its model's answer came in, which for a large one is the shared
memory that the worker wrote; it is copied once, when the next model's batch is gathered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress

from shoal.clock import Clock
from shoal.config.spec import ModelSpec
from shoal.datatypes import element_count
from shoal.errors import CancelledError, ShoalError, StepError, UnavailableError
from shoal.execution.arena import Arena
from shoal.execution.ensemble_plans import KEPT, EnsemblePlan, FlowPlans
from shoal.execution.ensemble_run import EnsembleRun
from shoal.execution.ensemble_shape import EnsembleShape, FindMember
from shoal.execution.ensemble_waves import DecoupledRun
from shoal.execution.recorder import BatchTimes, Recorder
from shoal.execution.worker_group import WorkerGroup
from shoal.requests import InferRequest, InferResponse, InnerRequest, RequestPlan, RequestState
from shoal.scheduling.admission import check_payload
from shoal.scheduling.contract import Batch, CloseReason, QueueStatistics
from shoal.scheduling.overload import ServerQueue

log = logging.getLogger("shoal.model")


class EnsembleRuntime:
    """Serves one version of an ensemble (an ``execution.contract.Runtime``), on the event loop's thread.

    Args:
        spec: the ensemble.
        find: finds the models of its steps.
        recorder: counts its requests.
        clock: the clock.
        queued: what waits in all models together; where that is too much, no further request is taken.

    Attributes:
        spec: the ensemble.
        groups: none.
    """

    def __init__(
        self, spec: ModelSpec, find: FindMember, recorder: Recorder, clock: Clock, queued: ServerQueue | None = None
    ) -> None:
        self.spec = spec
        self.groups: Sequence[WorkerGroup] = ()
        self.now_ns = clock.now_ns
        self._queued = queued or ServerQueue()
        self._shape = EnsembleShape(spec, find)
        self._recorder = recorder
        self._flows: dict[tuple[int, ...], FlowPlans] = {}
        self._runs: dict[InferRequest, EnsembleRun] = {}
        self._prefix = f"in ensemble '{spec.name}', "
        self._closed = ""
        self._stopped = False
        self._emptied = asyncio.Event()

    # --- life -------------------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether it and all models of its steps take requests."""
        try:
            return not self._closed and all(member.runtime.ready for member in self._shape.members())
        except ShoalError:
            return False

    @property
    def in_flight(self) -> int:
        """Requests that are on their way through the steps."""
        return len(self._runs)

    @property
    def receive_arena(self) -> Arena | None:
        """The shared memory of the model that reads the largest input, which can then read it where it is."""
        try:
            return self._shape.member(self._largest_reader()).runtime.receive_arena
        except ShoalError:
            return None

    def _largest_reader(self) -> int:
        """The first step that reads the largest input; one with a variable dimension counts as large."""
        sizes = [_row_nbytes(tensor.dims, tensor.datatype.itemsize) for tensor in self.spec.inputs]
        largest = sizes.index(max(sizes))
        return next(index for index, step in enumerate(self._shape.graph.steps) if largest in step.reads)

    def queue_statistics(self) -> QueueStatistics:
        """Nothing waits here, but in the queues of the models."""
        return QueueStatistics(0, 0, None)

    def beliefs(self) -> object | None:
        """Nothing: it decides nothing by measurement."""
        return None

    def close(self, reason: str) -> None:
        """Take no more requests: they are answered with UNAVAILABLE and this reason. Those taken are answered yet."""
        self._closed = reason

    async def drained(self) -> None:
        """Wait until no request is on its way."""
        while self._runs:
            self._emptied.clear()
            await self._emptied.wait()

    async def stop(self, timeout_s: float) -> None:
        """End; requests that are on their way are answered with UNAVAILABLE."""
        del timeout_s
        self.close(self._closed or f"model '{self.spec.name}' is stopping")
        self._stopped = True
        for run in tuple(self._runs.values()):
            run.fail(UnavailableError(self._closed))

    # --- requests ---------------------------------------------------------------------------------------------------

    def submit(self, request: InferRequest) -> None:
        """Start the request's first steps; it is answered through its responder, also when it cannot be taken."""
        now_ns = self.now_ns()
        request.queued_ns = now_ns
        try:
            if self._closed and (self._stopped or not isinstance(request, InnerRequest)):
                raise UnavailableError(self._closed)
            if not (self._queued.has_room(request.plan.nbytes) or isinstance(request, InnerRequest)):
                raise self._queued.refusal(request)
            if request.plan.bytes_inputs:
                check_payload(request)
        except ShoalError as error:
            self._fail(request, error)
            return
        plan = request.plan.prepared
        if type(plan) is not EnsemblePlan:
            plan = request.plan.prepared = EnsemblePlan(self._flow_plans(request.plan), request.plan, self.spec.inputs)
        request.state = RequestState.RUNNING
        run = EnsembleRun(self, request, plan, now_ns) if not self.spec.decoupled else self._decoupled(request, plan)
        self._runs[request] = run
        run.begin()

    def _flow_plans(self, plan: RequestPlan) -> FlowPlans:
        """What is kept for requests for the same outputs; an ensemble has few, so that few choices of them are kept."""
        found = self._flows.get(plan.outputs)
        if found is None:
            if len(self._flows) >= KEPT:
                self._flows.clear()
            found = self._flows[plan.outputs] = FlowPlans(self._shape, self._shape.graph.flow(plan.outputs))
        return found

    def _decoupled(self, request: InferRequest, plan: EnsemblePlan) -> DecoupledRun:
        assert self.spec.ensemble is not None
        return DecoupledRun(self, request, plan, request.queued_ns, self.spec.ensemble.max_inflight_requests)

    def cancel(self, request: InferRequest) -> None:
        """The client is gone or cancelled: the request is answered with CANCELLED, and its steps are cancelled."""
        run = self._runs.get(request)
        if run is not None:
            request.cancelled = True
            run.fail(CancelledError("request was cancelled while its steps waited or ran"))

    def abandon(self, correlation_id: int | str, begun_ns: int) -> None:
        """The client of a sequence is gone: so it is for the models of the steps that keep sequences."""
        for step in range(len(self._shape.graph.steps)):
            with suppress(ShoalError):  # a model that is not there has no sequences
                self._shape.member(step).sink.abandon(correlation_id, begun_ns)

    def hold(self, request: InferRequest, *, held: bool) -> None:
        """The client does not keep up, or does again: so do the decoupled models of the steps that run."""
        run = self._runs.get(request)
        if run is not None:
            run.hold(held=held)

    # --- what runs tell ---------------------------------------------------------------------------------------------

    def step_error(self, step: int, error: ShoalError) -> StepError:
        """The error of a step as clients see it: Triton's text with the step's name in it."""
        return StepError(f"{self._prefix}{self._shape.step_name(step)}: {error.message}", error)

    def run_answered(self, run: EnsembleRun, response: InferResponse) -> None:
        """Answer a request."""
        request, done_ns = run.request, self.now_ns()
        self._forget(run)
        try:
            request.responder.completed(request, response)
        except Exception:  # whatever it is, the models behind the last step must go on
            log.exception("an answer of model '%s' could not be delivered", self.spec.name)
        self._count(run, done_ns)

    def run_responded(self, run: EnsembleRun, response: InferResponse | None, *, final: bool) -> None:
        """Give one of the answers of an ensemble with a decoupled model."""
        done_ns = self.now_ns()
        if final:
            self._forget(run)
        try:
            run.request.responder.responded(run.request, response, final=final)
        except Exception:  # as for answers
            log.exception("an answer of model '%s' could not be delivered", self.spec.name)
        if final:
            self._count(run, done_ns)

    def run_failed(self, run: EnsembleRun, error: ShoalError) -> None:
        """Answer a request with an error."""
        self._forget(run)
        self._fail(run.request, error)

    def _forget(self, run: EnsembleRun) -> None:
        request = run.request
        del self._runs[request]
        if isinstance(request, InnerRequest):
            request.compute_ns = (run.compute_ns[0], run.compute_ns[1], run.compute_ns[2])
        request.state = RequestState.DONE
        if self._closed and not self._runs:
            self._emptied.set()

    def _count(self, run: EnsembleRun, done_ns: int) -> None:
        """Count a request as Triton does: as one execution, whose times are those of its steps added up."""
        request, (input_ns, infer_ns, output_ns) = run.request, run.compute_ns
        start_ns = run.started_ns
        before_ns = start_ns + input_ns
        times = BatchTimes(start_ns, before_ns, before_ns + infer_ns, before_ns + infer_ns + output_ns, done_ns)
        self._recorder.batch_done(Batch([request], request.plan.rows, CloseReason.IDLE), times, [request])

    def _fail(self, request: InferRequest, error: ShoalError) -> None:
        request.state = RequestState.DONE
        self._recorder.request_failed(request, error.reason, self.now_ns())
        try:
            request.responder.failed(request, error)
        except Exception:  # as for answers
            log.exception("an error of model '%s' could not be delivered", self.spec.name)


def _row_nbytes(dims: tuple[int, ...], itemsize: int) -> float:
    return float("inf") if -1 in dims or not itemsize else element_count(dims) * itemsize
