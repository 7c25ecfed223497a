"""A request of an ensemble with decoupled models: what follows such a model runs once for each of its responses."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from shoal.errors import ShoalError
from shoal.execution.ensemble_plans import EnsemblePlan
from shoal.execution.ensemble_run import EnsembleRun, RunOwner, StepRequest, Wave, hold
from shoal.requests import InferRequest, InferResponse
from shoal.scheduling.ensemble_graph import Flow


class _Answer(NamedTuple):
    """What a step gave: None for nothing more, from a decoupled model; ``final`` when nothing comes after it."""

    response: InferResponse | None
    decoupled: bool
    final: bool


class BranchingWave(Wave):
    """A pass through the graph in which decoupled steps begin others.

    Attributes:
        children: the passes that its decoupled steps began, in the order of their responses; done ones are dropped.
    """

    __slots__ = ("children",)

    def __init__(self, flow: Flow) -> None:
        Wave.__init__(self, flow)
        self.children: deque[BranchingWave] = deque()


class DecoupledRun(EnsembleRun):
    """Gives any number of answers, in the order of the responses that they were made of.

    Triton answers in the order in which the last steps are done, which several instances can turn around.

    Args:
        limit: how many requests may be outstanding at a step before the steps in front of it are held up
            (``max_inflight_requests``); 0 for any number.
    """

    __slots__ = ("_counts", "_held", "_limit", "_paused")

    def __init__(self, owner: RunOwner, request: InferRequest, plan: EnsemblePlan, now_ns: int, limit: int) -> None:
        EnsembleRun.__init__(self, owner, request, plan, now_ns)
        self._limit = limit
        self._counts = [0] * len(plan.plans.flow.waits)
        self._held: dict[StepRequest, deque[_Answer]] = {}  # a step that is held up, with what it gave all the same
        self._paused = False

    def _wave(self) -> BranchingWave:
        return BranchingWave(self._plans.flow)

    def completed(self, request: InferRequest, response: InferResponse) -> None:
        """Take what a step gave."""
        self._received(request, _Answer(response, decoupled=False, final=True))

    def responded(self, request: InferRequest, answer: InferResponse | ShoalError | None, *, final: bool) -> None:
        """Take one of the answers of a decoupled step."""
        if isinstance(answer, ShoalError):
            self.failed(request, answer)
        else:
            self._received(request, _Answer(answer, decoupled=True, final=final))

    def _received(self, request: InferRequest, answer: _Answer) -> None:
        if self._ended:
            return
        assert isinstance(request, StepRequest)
        try:
            if self._held.get(request) or (answer.response is not None and self._is_full(request.step)):
                self._hold_up(request).append(answer)
            else:
                self._take(request, answer)
            if not answer.final and (self._paused or self._is_full(request.step)):
                self._hold_up(request)
        except Exception as error:  # as in ``EnsembleRun.completed``
            self._fail_unexpectedly(error)
        self._advance()

    def _take(self, request: StepRequest, answer: _Answer) -> None:
        wave = request.wave
        assert isinstance(wave, BranchingWave)
        if answer.response is not None:
            if answer.decoupled:
                parent, wave = wave, self._wave()
                parent.children.append(wave)
            self._put_response(wave, request.step, answer.response)
        if answer.final:
            self._step_done(request)

    # --- max_inflight_requests --------------------------------------------------------------------------------------

    def _is_full(self, step: int) -> bool:
        """Whether a step behind this one has as many requests outstanding as it may."""
        if not self._limit:
            return False
        readers = self._plans.flow.readers
        return any(
            self._counts[reader] >= self._limit
            for _, tensor in self._plans.steps[step].outputs
            for reader in readers[tensor]
        )

    def _hold_up(self, producer: StepRequest) -> deque[_Answer]:
        """Have a step's model wait with its next response; gives what it gave in the meantime.

        A request that waits in its model's queue cannot be held, so its model is told again with each response.
        """
        hold(producer, held=True)
        return self._held.setdefault(producer, deque())

    def _make_ready(self, wave: Wave, step: int) -> None:
        super()._make_ready(wave, step)
        self._counts[step] += 1

    def _step_done(self, request: StepRequest) -> None:
        super()._step_done(request)
        self._held.pop(request, None)
        self._counts[request.step] -= 1
        for producer in tuple(self._held):
            self._release(producer)

    def _release(self, producer: StepRequest) -> None:
        """Take the answers of a step that there is room for now; with none left, it need not wait any more."""
        held = self._held.get(producer)
        while held:
            if held[0].response is not None and self._is_full(producer.step):
                return
            self._take(producer, held.popleft())
        if producer in self._held and not self._paused and not self._is_full(producer.step):
            del self._held[producer]
            hold(producer, held=False)

    def hold(self, *, held: bool) -> None:
        """The client does not keep up, or does again: so do the models of the steps that run."""
        self._paused = held
        for request in tuple(self._running):
            if held:
                self._hold_up(request)
            else:
                self._release(request)
        self._advance()

    # --- answers ----------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        self._held.clear()
        super()._end()

    def _deliver(self) -> None:
        """Give the answers whose turn it is."""
        root = self._root
        assert isinstance(root, BranchingWave)
        answers: list[InferResponse] = []
        done = _collect(root, answers)
        last = len(answers) - 1
        for position, answer in enumerate(answers):
            if self._ended:  # cancelled by who got an earlier one
                return
            if done and position == last:
                self._end()
            self._owner.run_responded(self, answer, final=done and position == last)
        if done and not self._ended:
            self._end()
            self._owner.run_responded(self, None, final=True)


def _collect(wave: BranchingWave, answers: list[InferResponse]) -> bool:
    """Take the answers of a wave that may be given, in their order; True when it will have no more."""
    if wave.answer is not None:
        answers.append(wave.answer)
        wave.answer = None
    while wave.children:
        if not _collect(wave.children[0], answers):
            return False
        wave.children.popleft()
    return not wave.steps
