"""ModelStreamInfer: many requests on one call, answered in their order (rules 23 and 24)."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from shoal.errors import ShoalError, Status
from shoal.frontends.access import log_grpc
from shoal.protocols import grpc_infer
from shoal.requests import Buffer, InferRequest, InferResponse
from shoal.transport.handler import GrpcCall

if TYPE_CHECKING:
    from shoal.frontends.grpc import GrpcFrontend

SHUTTING_DOWN = "GRPC server is shutting down and has stopped accepting new requests."
STATUS_ERRORS = "triton_grpc_error"
"""The metadata key by which a client asks that an error ends the stream with a real gRPC status."""


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
        self._half_closed = False
        self._stopping = False
        self._over = False
        self._status_errors = call.metadata.get(STATUS_ERRORS) == "true"

    def message(self, message: Buffer) -> None:
        """A request arrived; an error of it is an answer like any other, and the stream goes on."""
        arrival_ns = time.monotonic_ns()
        turn = _Turn()
        self._turns.append(turn)
        try:
            plan, payload = self._frontend.plan(self._call, message)
        except ShoalError as error:
            refusal = grpc_infer.encode_stream_refusal(error.message, grpc_infer.request_id(message))
            self._settle(turn, [refusal], error)
            if self._frontend.access_log:
                log_grpc(self._call, error.status.grpc, 0, arrival_ns)
            return
        turn.request = InferRequest(plan, payload, self, turn, arrival_ns)
        plan.sink.submit(turn.request)

    def half_closed(self) -> None:
        """The client sends no more: the stream ends with the last answer."""
        self._half_closed = True
        self._send_ready()

    def end(self) -> None:
        """The server stops: the stream ends when what was asked is answered, whether or not the client is done."""
        self._stopping = True
        self._send_ready()

    def cancelled(self) -> None:
        """The client is gone: what waits is cancelled, nothing more is sent."""
        self._finished()
        for turn in list(self._turns):
            if turn.request is not None and turn.answer is None:
                turn.request.plan.sink.cancel(turn.request)
        self._turns.clear()

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
        turn: _Turn = request.context  # type: ignore[assignment] # set in ``message``
        self._settle(turn, [grpc_infer.encode_stream_failure(error.message, request.plan.head)], error)
        self._log(request, error.status.grpc)

    def responded(self, request: InferRequest, answer: InferResponse | ShoalError | None, *, final: bool) -> None:
        """Take one of the answers of a decoupled model."""
        raise NotImplementedError

    def _settle(self, turn: _Turn, answer: Sequence[Buffer], error: ShoalError | None = None) -> None:
        turn.answer, turn.error = answer, error
        self._send_ready()

    def _send_ready(self) -> None:
        """Send the answers whose turn it is; end the stream when there is nothing more to come."""
        turns = self._turns
        while not self._over and turns and (answer := turns[0].answer) is not None:
            turn = turns.popleft()
            if turn.error is not None and self._status_errors:
                self.cancelled()
                self._call.finish(turn.error.status.grpc, turn.error.message)
                return
            self._call.send(answer)
        if self._over or turns or not (self._half_closed or self._stopping):
            return
        self._finished()
        if self._half_closed:
            self._call.finish(0, "")
        else:
            self._call.finish(Status.UNAVAILABLE.grpc, SHUTTING_DOWN)

    def _finished(self) -> None:
        self._over = True
        self._frontend.forget(self)

    def _log(self, request: InferRequest, code: int, nbytes: int = 0) -> None:
        if self._frontend.access_log:
            log_grpc(self._call, code, nbytes, request.arrival_ns, request.plan.head)
