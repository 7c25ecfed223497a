"""What execution reports of every batch and request: implemented by ``observe``, called on the event loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from shoal.errors import FailureReason
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


class Recorder(Protocol):
    """Counts what happens to one model version."""

    def batch_done(self, batch: Batch, times: BatchTimes, answered: Sequence[InferRequest]) -> None:
        """A batch ran; ``answered`` are those of its requests that got a result, the others are reported one by one."""

    def request_failed(self, request: InferRequest, reason: FailureReason, now_ns: int) -> None:
        """A request was answered with an error, at any stage."""
