"""The requests to decoupled models on one ModelStreamInfer call: their answers go out as they come (rule 24)."""

from __future__ import annotations

from collections.abc import Sequence

from shoal.errors import ShoalError
from shoal.protocols import grpc_infer
from shoal.protocols.parameters import EMPTY_FINAL_RESPONSE
from shoal.requests import Buffer, HoldingSink, InferRequest, InferResponse
from shoal.transport.handler import GrpcCall

HELD_NBYTES = 4 * 1024 * 1024
"""When a client has left more than this unread, the models that answer it wait until it has read everything."""


class DecoupledRequests:
    """Those of one stream that have not got their final answer.

    Args:
        call: the stream's call.
    """

    def __init__(self, call: GrpcCall) -> None:
        self._call = call
        self._sent_nbytes: dict[InferRequest, int] = {}
        self._held: set[InferRequest] = set()

    def __len__(self) -> int:
        return len(self._sent_nbytes)

    def __contains__(self, request: InferRequest) -> bool:
        return request in self._sent_nbytes

    def add(self, request: InferRequest) -> None:
        """A request is about to be submitted."""
        self._sent_nbytes[request] = 0

    def end(self, request: InferRequest) -> int:
        """A request has its final answer; gives the length of all of them together."""
        self._held.discard(request)
        return self._sent_nbytes.pop(request)

    def take_all(self) -> list[InferRequest]:
        """All requests, which are forgotten here."""
        requests = list(self._sent_nbytes)
        self._sent_nbytes.clear()
        self._held.clear()
        return requests

    def send(self, request: InferRequest, message: Sequence[Buffer]) -> None:
        """Send one answer; the model's next one waits if the client does not keep up."""
        self._sent_nbytes[request] += sum(memoryview(part).nbytes for part in message)
        self._call.send(message)
        if self._call.unsent_nbytes > HELD_NBYTES:
            self._held.add(request)
            _hold(request, held=True)

    def drained(self) -> None:
        """The client has read all that there was."""
        held, self._held = self._held, set()
        for request in held:
            _hold(request, held=False)


def encode_answer(
    request: InferRequest, answer: InferResponse | ShoalError | None, *, final: bool
) -> Sequence[Buffer] | None:
    """The message of one answer; None when there is nothing to send.

    Raises:
        ShoalError: the answer cannot be sent.
    """
    plan = request.plan
    if isinstance(answer, InferResponse):
        return grpc_infer.encode_stream_response(plan.head, answer, plan.labels, batched=plan.batched, final=final)
    if answer is not None:
        return [grpc_infer.encode_stream_failure(answer.message, plan.head, final=final)]
    if plan.head.parameters.get(EMPTY_FINAL_RESPONSE) is True:
        return [grpc_infer.encode_stream_final(plan.head)]
    return None


def _hold(request: InferRequest, *, held: bool) -> None:
    sink = request.plan.sink
    if isinstance(sink, HoldingSink):
        sink.hold(request, held=held)
