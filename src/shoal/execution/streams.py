"""The requests of a model version that are answered response by response, from their dispatch to their one end.

These are all requests of a decoupled model, and those of any other Python model whose one response comes after
``execute`` has returned. A request gets a number when it begins. It ends with the message that is final, with its batch
when that failed, when it was silent for longer than the execution timeout, or with its worker.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from shoal.config.spec import ModelSpec
from shoal.errors import InternalError, ShoalError, WorkerError
from shoal.execution.instance import InstanceChannel
from shoal.execution.marks import CANCELLED, HELD, byte_of_number
from shoal.execution.messages import BatchDone, Streamed
from shoal.execution.recorder import BatchTimes, Recorder, ResponseTimes
from shoal.execution.scatter import Answer, Scatterer
from shoal.execution.stream_table import Deliver, Stream, StreamOrder, StreamTable
from shoal.requests import NOBODY, InferRequest, InferResponse, InnerRequest, RequestState
from shoal.scheduling.contract import Batch
from shoal.scheduling.ordering import keeps_order

log = logging.getLogger("shoal.model")

Fail = Callable[[InferRequest, ShoalError, int], None]
"""Answers a request with an error and counts it; the last argument is the time."""


class RunningStreams:
    """The streams of one model version. All methods are called on the event loop's thread.

    Args:
        spec: the model.
        scatterer: makes its responses.
        recorder: counts them.
        fail: how a request is answered with an error.
        now_ns: the clock.

    Attributes:
        open: how many requests are being answered.
    """

    def __init__(
        self, spec: ModelSpec, scatterer: Scatterer, recorder: Recorder, fail: Fail, now_ns: Callable[[], int]
    ) -> None:
        self.open = 0
        self._spec = spec
        self._scatterer = scatterer
        self._recorder = recorder
        self._fail = fail
        self._now_ns = now_ns
        self._order = StreamOrder() if spec.decoupled and keeps_order(spec) else None
        self._tables: dict[InstanceChannel, StreamTable] = {}

    def _table(self, instance: InstanceChannel) -> StreamTable:
        table = self._tables.get(instance)
        if table is None:
            table = self._tables[instance] = StreamTable()
        return table

    def begin(self, instance: InstanceChannel, batch: Batch, now_ns: int) -> list[int]:
        """Number the requests of a decoupled model's batch.

        Raises:
            UnavailableError: the instance still answers too many others.
        """
        table = self._table(instance)
        table.check_room(len(batch.requests))
        self.open += len(batch.requests)
        numbers = []
        for request in batch.requests:
            stream = table.add(request, now_ns)
            numbers.append(stream.number)
            if self._order is not None:
                self._order.add(stream)
            if request.cancelled:  # when it ran before, in an iterative sequence
                self._mark(instance, stream, CANCELLED)
        return numbers

    # --- what the worker tells --------------------------------------------------------------------------------------

    def batch_done(
        self, instance: InstanceChannel, batch: Batch, done: BatchDone, answers: Sequence[Answer | None]
    ) -> list[Answer | None]:
        """A batch has ended; its streams go on, unless it failed.

        Args:
            instance: where it ran.
            batch: the batch.
            done: what the worker said of it.
            answers: what would be answered now, were there no streams; None for a request that runs again.

        Returns:
            What is to be answered now: None for a request that its stream answers, or has answered.
        """
        if self._spec.decoupled:
            for request, answer in zip(batch.requests, answers, strict=True):
                self._after_batch(instance, request, answer)
            return [None] * len(batch.requests)
        now = list(answers)
        for place, number in (done.later or {}).items():
            now[place] = None
            self._adopt(instance, batch.requests[place], number)
        return now

    def _after_batch(self, instance: InstanceChannel, request: InferRequest, answer: Answer | None) -> None:
        """End the stream of a request whose batch failed; one that runs again gets another number then."""
        stream = self._table(instance).of(request)
        if stream is None:  # its final response came before
            return
        if answer is None:
            self._close(instance, stream)
            if self._order is not None:
                self._in_order(stream, lambda: None, final=True)
        elif isinstance(answer, ShoalError):
            self._end(instance, stream, answer)

    def _adopt(self, instance: InstanceChannel, request: InferRequest, number: int) -> None:
        """The one response of this request comes later."""
        stream = self._table(instance).put(number, request, instance.taken_ns)
        stream.last_ns = self._now_ns()
        self.open += 1
        if request.cancelled:
            self._mark(instance, stream, CANCELLED)

    def streamed(self, instance: InstanceChannel, message: Streamed) -> None:
        """A response has come; one of a request that has ended meanwhile is dropped."""
        table = self._table(instance)
        stream = table.get(message.number)
        if stream is None:
            return
        stream.last_ns = table.last_ns = self._now_ns()
        if message.final:
            self._close(instance, stream)
        answer: Answer | None = None
        if message.outcome is not None:
            answer = self._make_answer(stream.request, message)
        self._count(stream, message, answer)
        if self._order is not None:
            self._deliver_in_order(instance, stream, answer, final=message.final)
        else:
            self._deliver(stream.request, answer, final=message.final)

    def _make_answer(self, request: InferRequest, message: Streamed) -> Answer:
        assert message.outcome is not None
        try:
            return self._scatterer.streamed(request, message.outcome, message.data)
        except Exception as error:  # whatever it is, the request must be told
            log.exception("a response of model '%s' could not be read", self._spec.name)
            return InternalError(f"unexpected {type(error).__name__}: {error}")

    # --- answers ----------------------------------------------------------------------------------------------------

    def _deliver(self, request: InferRequest, answer: Answer | None, *, final: bool) -> None:
        if request.state is RequestState.DONE:  # cancelled between two runs, while these answers waited for their turn
            return
        if final:
            request.state = RequestState.DONE
        if not self._spec.decoupled and isinstance(answer, ShoalError):
            self._fail(request, answer, self._now_ns())
            return
        try:
            if self._spec.decoupled:
                request.responder.responded(request, answer, final=final)
            elif isinstance(answer, InferResponse):
                request.responder.completed(request, answer)
        except Exception:  # the other requests must be answered
            log.exception("an answer of model '%s' could not be delivered", self._spec.name)

    def _deliver_in_order(
        self, instance: InstanceChannel, stream: Stream, answer: Answer | None, *, final: bool
    ) -> None:
        assert self._order is not None
        first = self._order.first
        # What waits for a slow client is not to pile up here. Nobody else is waited for: the model may serve the first
        # one and this one by turns, in one thread, and would never get to the end of the first one.
        if not final and not stream.held and first is not stream and first is not None and first.slow:
            self._hold(instance, stream)
        self._in_order(stream, lambda: self._deliver(stream.request, answer, final=final), final=final)

    def _in_order(self, stream: Stream, deliver: Deliver, *, final: bool) -> None:
        assert self._order is not None
        for ready in self._order.deliver(stream, deliver, final=final):
            ready()
        if final:
            self._release()

    def _release(self) -> None:
        """Let those go on that waited for a client that was slow, unless the one whose turn it is now is slow, too."""
        assert self._order is not None
        first = self._order.first
        if first is not None and first.slow:
            return
        for instance, table in self._tables.items():
            for stream in table.streams():
                if stream.held and not stream.slow:
                    self._let_go(instance, stream)

    def _count(self, stream: Stream, message: Streamed, answer: Answer | None) -> None:
        """Count a response, and with the last one its request: as a success, whatever its responses were (Triton)."""
        request, (input_ns, infer_ns, output_ns) = stream.request, message.times
        times = ResponseTimes(stream.previous_ns or input_ns, infer_ns, output_ns)
        if self._spec.decoupled:
            error = answer if isinstance(answer, ShoalError) else None
            empty = answer is None or (isinstance(answer, InferResponse) and not answer.data)
            if answer is not None or message.final:
                self._recorder.response_sent(stream.responses, times, error, empty=empty)
        stream.previous_ns = output_ns
        stream.responses += answer is not None
        if message.final and (self._spec.decoupled or not isinstance(answer, ShoalError)):
            whole = BatchTimes(stream.taken_ns, input_ns, infer_ns, output_ns, self._now_ns())
            if isinstance(request, InnerRequest):
                request.compute_ns = whole.compute_ns
            if request.responder is not NOBODY:
                self._recorder.request_streamed(request, whole)

    # --- the client's side ------------------------------------------------------------------------------------------

    def cancel(self, request: InferRequest) -> bool:
        """Tell the model that the client is gone; False when the request is no stream."""
        found = self._find(request)
        if found is not None:
            self._mark(*found, CANCELLED)
        return found is not None

    def cancel_all(self) -> None:
        """Tell the model that nobody waits any more, for it is going to be stopped."""
        for instance, table in self._tables.items():
            for stream in table.streams():
                self._mark(instance, stream, CANCELLED)

    def hold(self, request: InferRequest, *, held: bool) -> None:
        """Have the model wait with its next response, or go on."""
        found = self._find(request)
        if found is None:
            return
        found[1].slow = held
        if held:
            self._hold(*found)
        elif self._order is None:
            self._let_go(*found)
        else:
            self._release()

    def _find(self, request: InferRequest) -> tuple[InstanceChannel, Stream] | None:
        for instance, table in self._tables.items():
            stream = table.of(request)
            if stream is not None:
                return instance, stream
        return None

    def _hold(self, instance: InstanceChannel, stream: Stream) -> None:
        stream.held = True
        self._mark(instance, stream, HELD)

    def _let_go(self, instance: InstanceChannel, stream: Stream) -> None:
        stream.held = False
        stream.last_ns = self._now_ns()
        instance.blocks.marks.unset(byte_of_number(stream.number), HELD)

    def _mark(self, instance: InstanceChannel, stream: Stream, mark: int) -> None:
        instance.blocks.marks.set(byte_of_number(stream.number), mark)

    # --- ends -------------------------------------------------------------------------------------------------------

    def lost(self, instance: InstanceChannel, error: ShoalError) -> None:
        """The instance's worker is gone, or is going to be: whoever is not fully answered gets this error."""
        for stream in self._table(instance).streams():
            self._end(instance, stream, error)
        self._tables.pop(instance, None)

    def waits_for_clients(self, instance: InstanceChannel) -> bool:
        """Whether the model may be waiting for a client, so that it is no fault of its own when nothing comes."""
        table = self._tables.get(instance)
        return table is not None and any(stream.held for stream in table.streams())

    def last_sign_ns(self, instance: InstanceChannel) -> int:
        """When the instance last sent anything; 0 for never."""
        table = self._tables.get(instance)
        return 0 if table is None else table.last_ns

    def end_silent(self, instance: InstanceChannel, limit_ns: int, timeout_s: float) -> None:
        """Answer the requests of which nothing was heard since ``limit_ns``: their model seems to have lost them.

        Args:
            instance: where to look; requests of the batch that it runs are left alone.
            limit_ns: the moment.
            timeout_s: the execution timeout, for the message.
        """
        running = instance.batch.requests if instance.batch is not None else ()
        table = self._tables.get(instance)
        for stream in () if table is None else table.streams():
            if stream.last_ns < limit_ns and not stream.held and stream.request not in running:
                text = f"model '{self._spec.name}' did not answer within the execution timeout of {timeout_s:g} s"
                self._end(instance, stream, WorkerError(f"{text}: it returned from execute and sent nothing more"))

    def _end(self, instance: InstanceChannel, stream: Stream, error: ShoalError) -> None:
        self._close(instance, stream)
        request = stream.request
        if self._order is None:
            self._fail(request, error, self._now_ns())
        else:
            self._in_order(stream, lambda: self._fail(request, error, self._now_ns()), final=True)

    def _close(self, instance: InstanceChannel, stream: Stream) -> None:
        self._table(instance).remove(stream)
        self.open -= 1
        instance.blocks.marks.clear(byte_of_number(stream.number))
