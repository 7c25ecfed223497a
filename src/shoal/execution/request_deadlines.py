"""Deadlines of requests: whoever asked is answered when the time is up, at any stage (parameter ``deadline_us``).

A request with a deadline passes through a sink of its own before it reaches its model; no other request is touched. A
request that waits is taken out of its queue, one that runs is marked as cancelled and its later answer is dropped.
There is one heap and one timer for all models of a server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from shoal.clock import Clock
from shoal.errors import DeadlineExceededError, ShoalError
from shoal.execution.recorder import Recorder
from shoal.requests import NOBODY, HoldingSink, InferRequest, InferResponse, RequestState, Responder, Sink
from shoal.scheduling.deadlines import Deadlines
from shoal.scheduling.texts import request_prefix

CallLater = Callable[[float, Callable[[], None]], asyncio.TimerHandle]


class DeadlineKeeper:
    """The deadlines of a server's requests.

    Args:
        clock: what time it is; deadlines count from a request's arrival.
        call_later: sets a timer; that of the running event loop when not given.
    """

    def __init__(self, clock: Clock, call_later: CallLater | None = None) -> None:
        self._now_ns = clock.now_ns
        self._call_later = call_later
        self._deadlines = Deadlines()
        self._answers: dict[InferRequest, _InTime] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ns = 0

    def before(self, sink: Sink, recorder: Recorder) -> Sink:
        """A sink that answers in time, whatever the one behind it does.

        Args:
            sink: the model version that runs the requests.
            recorder: counts its requests.
        """
        return _DeadlineSink(self, sink, recorder)

    def close(self) -> None:
        """Keep no more deadlines."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._deadlines.clear()
        self._answers.clear()

    def add(self, request: InferRequest, answer: _InTime) -> None:
        """Keep a request's deadline: ``answer.expired`` is called when it passes."""
        deadline_ns = request.arrival_ns + request.plan.deadline_us * 1_000
        self._answers[request] = answer
        self._deadlines.add(request, deadline_ns)
        if self._timer is None or deadline_ns < self._timer_ns:
            self._set_timer(deadline_ns)

    def ended(self, request: InferRequest) -> None:
        """A request was answered; there is nothing more to keep."""
        if self._answers.pop(request, None) is not None:
            self._deadlines.discard(request)

    def expire(self) -> None:
        """Answer the requests whose deadline has passed; called by the timer."""
        self._timer = None
        now_ns = self._now_ns()
        for request in self._deadlines.pop_due(now_ns):
            answer = self._answers.pop(request, None)
            if answer is not None:  # the end of one request may have been that of another
                answer.expired(request, now_ns)
        next_ns = self._deadlines.next_ns()
        if next_ns is not None and (self._timer is None or next_ns < self._timer_ns):
            self._set_timer(next_ns)

    def _set_timer(self, deadline_ns: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        call_later = self._call_later or asyncio.get_running_loop().call_later
        self._timer_ns = deadline_ns
        self._timer = call_later(max(0, deadline_ns - self._now_ns()) / 1e9, self.expire)


class _DeadlineSink:
    """Stands before a model's sink for the requests of plans with a deadline (a ``requests.Sink``)."""

    __slots__ = ("_keeper", "_recorder", "_sink")

    def __init__(self, keeper: DeadlineKeeper, sink: Sink, recorder: Recorder) -> None:
        self._keeper = keeper
        self._sink = sink
        self._recorder = recorder

    def submit(self, request: InferRequest) -> None:
        """Keep the deadline and pass the request on."""
        request.responder = answer = _InTime(self._keeper, request.responder, self)
        self._keeper.add(request, answer)
        self._sink.submit(request)

    def cancel(self, request: InferRequest) -> None:
        """The client is gone or cancelled."""
        self._sink.cancel(request)

    def abandon(self, correlation_id: int | str, begun_ns: int) -> None:
        """The client of a sequence is gone."""
        self._sink.abandon(correlation_id, begun_ns)

    def hold(self, request: InferRequest, *, held: bool) -> None:
        """The client does not keep up, or does again."""
        if isinstance(self._sink, HoldingSink):
            self._sink.hold(request, held=held)

    def failed(self, request: InferRequest, now_ns: int) -> None:
        """A request that goes on to run has failed in the eyes of its client."""
        self._recorder.request_failed(request, DeadlineExceededError.reason, now_ns)


class _InTime:
    """Passes on the answer to one request, unless its deadline comes first (a ``requests.Responder``)."""

    __slots__ = ("_keeper", "_responder", "_sink")

    def __init__(self, keeper: DeadlineKeeper, responder: Responder, sink: _DeadlineSink) -> None:
        self._keeper = keeper
        self._responder = responder
        self._sink = sink

    def completed(self, request: InferRequest, response: InferResponse) -> None:
        """The answer."""
        self._keeper.ended(request)
        self._responder.completed(request, response)

    def failed(self, request: InferRequest, error: ShoalError) -> None:
        """The error in place of an answer."""
        self._keeper.ended(request)
        self._responder.failed(request, error)

    def responded(self, request: InferRequest, answer: InferResponse | ShoalError | None, *, final: bool) -> None:
        """One of the answers of a decoupled model; the deadline is that of the last one."""
        if final:
            self._keeper.ended(request)
        self._responder.responded(request, answer, final=final)

    def expired(self, request: InferRequest, now_ns: int) -> None:
        """The deadline has passed: what still comes goes to nobody.

        A request that runs counts as failed at once, and is left out when its batch is counted. Not so where something
        else waits for its answer too, such as the response cache.
        """
        waited = request.state in (RequestState.NEW, RequestState.QUEUED)
        responder, self._responder = self._responder, NOBODY
        self._sink.cancel(request)
        if request.state is not RequestState.DONE and request.responder is self:
            request.responder = NOBODY
            self._sink.failed(request, now_ns)
        plan = request.plan
        text = f"the deadline of {plan.deadline_us} microseconds passed while the request "
        text += "waited in the queue" if waited else "ran"
        responder.failed(request, DeadlineExceededError(request_prefix(plan.head) + text))
