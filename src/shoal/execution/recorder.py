"""What execution reports of every batch and request: implemented by ``observe``, called on the event loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from shoal.caching.contract import CacheRecorder
from shoal.errors import FailureReason, ShoalError
from shoal.requests import InferRequest
from shoal.scheduling.contract import Batch


@dataclass(slots=True)
class BatchTimes:
    """When a batch passed each point, in monotonic nanoseconds.

    Attributes:
        taken_ns: taken from the queue: the queue time of its requests ends here.
        input_ns: its inputs lay before the model.
        infer_ns: the model was done.
        output_ns: its outputs lay before the server.
        done_ns: its answers were handed over.
    """

    taken_ns: int
    input_ns: int
    infer_ns: int
    output_ns: int
    done_ns: int

    @property
    def compute_ns(self) -> tuple[int, int, int]:
        """How long the batch's input, the inference and its output took."""
        return self.input_ns - self.taken_ns, self.infer_ns - self.input_ns, self.output_ns - self.infer_ns


@dataclass(slots=True)
class ResponseTimes:
    """When one response of several passed each point, in monotonic nanoseconds.

    Attributes:
        start_ns: the response before it was ready or, of the first one, the inputs lay before the model.
        infer_ns: the model gave it.
        output_ns: it was ready to be sent to the server.
    """

    start_ns: int
    infer_ns: int
    output_ns: int


class Recorder(CacheRecorder, Protocol):
    """Counts what happens to one model version."""

    def batch_done(self, batch: Batch, times: BatchTimes, answered: Sequence[InferRequest]) -> None:
        """A batch ran; ``answered`` are those of its requests that got a result, the others are reported one by one."""

    def request_failed(self, request: InferRequest, reason: FailureReason, now_ns: int) -> None:
        """A request was answered with an error, at any stage."""

    def response_sent(self, index: int, times: ResponseTimes, error: ShoalError | None, *, empty: bool) -> None:
        """A decoupled model sent one of a request's responses.

        Args:
            index: how many came before it.
            times: when.
            error: why it is an error; None when it is none.
            empty: whether it has no outputs, or is nothing but the word that there are no more.
        """

    def request_streamed(self, request: InferRequest, times: BatchTimes) -> None:
        """A request whose responses came one by one got its last one; ``batch_done`` did not count it."""
