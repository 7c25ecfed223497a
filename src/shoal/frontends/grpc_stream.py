"""ModelStreamInfer: many requests on one call, answered in their order but for decoupled models (rules 23 and 24)."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from shoal.errors import ShoalError, Status
from shoal.frontends.access import log_grpc
from shoal.frontends.grpc_decoupled import DecoupledRequests, encode_answer
from shoal.protocols import grpc_infer
from shoal.requests import Buffer, InferRequest, InferResponse, SequencePart, Sink
from shoal.transport.handler import GrpcCall

if TYPE_CHECKING:
    from shoal.frontends.grpc import GrpcFrontend

SHUTTING_DOWN = "GRPC server is shutting down and has stopped accepting new requests."
STATUS_ERRORS = "triton_grpc_error"
"""The metadata key by which a client asks that an error ends the stream with a real gRPC status."""
MOST_UNANSWERED = 65_536
"""Requests of one stream that may be without an answer sent; with one more the stream ends."""
MOST_SEQUENCES = 65_536
"""Sequences of one stream that end with their client; of more than these the oldest end when they are idle."""


class _Turn:
    """One request's place in the order of answers."""

    __slots__ = ("answer", "error", "request")

    def __init__(self) -> None:
        self.request: InferRequest | None = None
        self.answer: Sequence[Buffer] | None = None
        self.error: ShoalError | None = None


class InferStream:
    """One stream (a ``requests.Responder``): holds answers back until those of earlier requests are sent."""

    def __init__(self, frontend: GrpcFrontend, call: GrpcCall) -> None:
        self._frontend = frontend
        self._call = call
        self._turns: deque[_Turn] = deque()
        self._decoupled = DecoupledRequests(call)
        self._half_closed = False
        self._stopping = False
        self._over = False
        self._status_errors = call.metadata.get(STATUS_ERRORS) == "true"
        self._sequences: dict[tuple[Sink, int | str], int] = {}

    def message(self, message: Buffer) -> None:
        """A request arrived; an error of it is an answer like any other, and the stream goes on."""
        arrival_ns = time.monotonic_ns()
        if len(self._turns) >= MOST_UNANSWERED:
            self.cancelled()
            text = f"{MOST_UNANSWERED} requests of this stream are not answered yet; wait, or use more streams"
            self._call.finish(Status.UNAVAILABLE.grpc, text)
            return
        try:
            plan, payload = self._frontend.plan(self._call, message)
        except ShoalError as error:
            refusal = grpc_infer.encode_stream_refusal(error.message, grpc_infer.request_id(message))
            self._settle(self._take_turn(), [refusal], error)
            if self._frontend.access_log:
                log_grpc(self._call, error.status.grpc, 0, arrival_ns)
            return
        if plan.sequence is not None:
            self._note(plan.sequence, plan.sink, arrival_ns)
        if plan.decoupled:
            request = InferRequest(plan, payload, self, None, arrival_ns)
            self._decoupled.add(request)
        else:
            turn = self._take_turn()
            request = turn.request = InferRequest(plan, payload, self, turn, arrival_ns)
        plan.sink.submit(request)

    def _take_turn(self) -> _Turn:
        turn = _Turn()
        self._turns.append(turn)
        return turn

    def _note(self, part: SequencePart, sink: Sink, arrival_ns: int) -> None:
        """Remember the sequences that were begun here and not ended: they end with the client."""
        if part.end:
            self._sequences.pop((sink, part.correlation_id), None)
        elif part.start and part.correlation_id:
            if len(self._sequences) >= MOST_SEQUENCES:
                self._sequences.pop(next(iter(self._sequences)))
            self._sequences[sink, part.correlation_id] = arrival_ns

    def half_closed(self) -> None:
        """The client sends no more: the stream ends with the last answer."""
        self._half_closed = True
        self._send_ready()

    def end(self) -> None:
        """The server stops: the stream ends when what was asked is answered, whether or not the client is done."""
        self._stopping = True
        self._send_ready()

    def cancelled(self) -> None:
        """The client is gone: what waits is cancelled, its sequences end, nothing more is sent."""
        self._drop()
        for (sink, correlation_id), begun_ns in self._sequences.items():
            sink.abandon(correlation_id, begun_ns)
        self._sequences.clear()

    def _drop(self) -> None:
        """Cancel what waits."""
        self._finished()
        for turn in list(self._turns):
            if turn.request is not None and turn.answer is None:
                turn.request.plan.sink.cancel(turn.request)
        self._turns.clear()
        for request in self._decoupled.take_all():
            request.plan.sink.cancel(request)

    def drained(self) -> None:
        """The client has read what it had left unread."""
        self._decoupled.drained()

    def completed(self, request: InferRequest, response: InferResponse) -> None:
        """Take the answer of a request."""
        turn: _Turn = request.context  # type: ignore[assignment] # set in ``message``
        plan = request.plan
        try:
            answer = grpc_infer.encode_stream_response(
                plan.head, response, plan.labels, batched=plan.batched, final=True
            )
        except ShoalError as error:
            self.failed(request, error)
        else:
            self._settle(turn, answer)
            self._log(request, 0, sum(memoryview(part).nbytes for part in answer))

    def failed(self, request: InferRequest, error: ShoalError) -> None:
        """Take the error of a request."""
        if request.plan.decoupled:
            self.responded(request, error, final=True)
            return
        turn: _Turn = request.context  # type: ignore[assignment] # set in ``message``
        self._settle(turn, [grpc_infer.encode_stream_failure(error.message, request.plan.head)], error)
        self._log(request, error.status.grpc)

    def responded(self, request: InferRequest, answer: InferResponse | ShoalError | None, *, final: bool) -> None:
        """Send one of the answers of a decoupled model."""
        if request not in self._decoupled:  # the stream is over
            return
        try:
            message = encode_answer(request, answer, final=final)
        except ShoalError as error:
            answer, message = error, encode_answer(request, error, final=final)
        code = answer.status.grpc if isinstance(answer, ShoalError) else 0
        if isinstance(answer, ShoalError) and self._status_errors:
            self._end_with(answer)
            self._log(request, code)
            return
        if message is not None:
            self._decoupled.send(request, message)
        if final:
            self._log(request, code, self._decoupled.end(request))
            self._send_ready()

    def _settle(self, turn: _Turn, answer: Sequence[Buffer], error: ShoalError | None = None) -> None:
        turn.answer, turn.error = answer, error
        self._send_ready()

    def _send_ready(self) -> None:
        """Send the answers whose turn it is; end the stream when there is nothing more to come."""
        turns = self._turns
        while not self._over and turns and (answer := turns[0].answer) is not None:
            turn = turns.popleft()
            if turn.error is not None and self._status_errors:
                self._end_with(turn.error)
                return
            self._call.send(answer)
        if self._over or turns or self._decoupled or not (self._half_closed or self._stopping):
            return
        self._finished()
        if self._half_closed:
            self._call.finish(0, "")
        else:
            self._call.finish(Status.UNAVAILABLE.grpc, SHUTTING_DOWN)

    def _end_with(self, error: ShoalError) -> None:
        """End the stream with an error's own status, for a client that asked for that."""
        self._drop()
        self._call.finish(error.status.grpc, error.message, 1000 * error.retry_after_s)

    def _finished(self) -> None:
        self._over = True
        self._frontend.forget(self)

    def _log(self, request: InferRequest, code: int, nbytes: int = 0) -> None:
        if self._frontend.access_log:
            log_grpc(self._call, code, nbytes, request.arrival_ns, request.plan.head)
