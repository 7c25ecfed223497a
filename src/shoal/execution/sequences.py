"""What the execution of a sequence model has on top of a plain one: controls, states, requests that run again."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from shoal.config.spec import ModelSpec
from shoal.execution.blocks import InstanceBlocks
from shoal.execution.gather import MakeInputs
from shoal.execution.messages import BatchDone, Place
from shoal.execution.scatter import Answer, Scatterer
from shoal.execution.sequence_inputs import SequenceInputs
from shoal.execution.sequence_states import SequenceStates
from shoal.requests import NOBODY, InferRequest, client_ns
from shoal.scheduling.contract import Batch, KeepsSequences


class SequenceWork:
    """The sequences of one model version, in execution.

    Args:
        spec: the model, which has ``sequence``.
        scheduler: its queue.
        now_ns: the clock.

    Attributes:
        scheduler: its queue.
        makers: make the inputs that no client sends.
    """

    def __init__(self, spec: ModelSpec, scheduler: KeepsSequences, now_ns: Callable[[], int]) -> None:
        assert spec.sequence is not None
        self.scheduler = scheduler
        self.makers: list[MakeInputs] = [SequenceInputs(spec)] if spec.sequence.controls else []
        self._states = SequenceStates(spec) if spec.sequence.states else None
        if self._states is not None:
            self.makers.append(self._states)
        self._public = len(spec.outputs)
        self._hides = bool(spec.made_outputs)
        self._now_ns = now_ns
        self._begun_ns: dict[int | str, int] = {}
        scheduler.on_finished = self._finished

    def _finished(self, correlation_id: int | str) -> None:
        self._begun_ns.pop(correlation_id, None)
        if self._states is not None:
            self._states.forget(correlation_id)

    def queued(self, request: InferRequest) -> None:
        """A request was queued: remember when its sequence began."""
        part = request.plan.sequence
        if part is not None and part.correlation_id and part.start and not part.end:
            self._begun_ns[part.correlation_id] = client_ns(request)

    def abandon(self, correlation_id: int | str, begun_ns: int) -> None:
        """The client of a sequence is gone; one that was begun anew with the same id since then lives on."""
        if self._begun_ns.get(correlation_id) == begun_ns:
            self.scheduler.abandon(correlation_id)

    def answers(
        self, scatterer: Scatterer, batch: Batch, done: BatchDone, blocks: InstanceBlocks
    ) -> list[Answer | None]:
        """One answer per request; None for one that runs again, which is back in the queue then.

        The states of the batch's sequences are taken over. To be called before the scheduler is told of the batch.
        """
        failures = self._states.keep(batch, done, blocks) if self._states is not None else {}
        public = self._without_states(done) if self._hides else done
        answers: list[Answer | None] = list(scatterer.answers(batch, public, blocks))
        for place, error in failures.items():
            answers[place] = error
        for place, outcome in enumerate(done.outcomes or ()):
            request = batch.requests[place]
            if outcome.rescheduled and place not in failures:
                answers[place] = None
                if request.responder is not NOBODY:
                    batch.queued_ns = batch.queued_ns or (batch.requests[0].queued_ns, batch.requests[-1].queued_ns)
                    self.scheduler.reschedule(request, self._now_ns())
        return answers

    def _without_states(self, done: BatchDone) -> BatchDone:
        """What a batch gave, without the outputs that no client sees."""
        outcomes = done.outcomes
        if outcomes is not None:
            outcomes = [replace(outcome, outputs=self._seen(outcome.outputs)) for outcome in outcomes]
        return replace(done, gathered=self._seen(done.gathered), outcomes=outcomes)

    def _seen(self, places: list[Place]) -> list[Place]:
        return [place for place in places if place[0] < self._public]
