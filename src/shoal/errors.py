"""Every error that Shoal shows to a user, as one tree, with Triton's status codes.

::

    ShoalError
    ├── UnknownError                400  UNKNOWN
    ├── InternalError               500  INTERNAL
    │   └── WorkerError             a worker died, hung or could not start
    ├── NotFoundError               404  NOT_FOUND
    ├── InvalidArgumentError        400  INVALID_ARGUMENT
    │   └── ConfigError             a model's configuration is wrong; carries every problem found
    ├── UnavailableError            503  UNAVAILABLE
    │   ├── QueueFullError          the model's queue is at ``max_queue_size``
    │   └── QueueTimeoutError       the request waited longer than its queue policy allows
    ├── UnsupportedError            501  UNIMPLEMENTED
    ├── AlreadyExistsError          400  ALREADY_EXISTS
    ├── CancelledError              400  CANCELLED
    ├── DeadlineExceededError       504  DEADLINE_EXCEEDED
    ├── ModelError                  the status that the model chose (INTERNAL when it just raised)
    └── StepError                   a step of an ensemble failed: the status of its error

A message says what is wrong, where, and what to do. The mapping to HTTP and gRPC stands in ``Status`` and nowhere else
(Triton: ``http_server.cc:101`` and ``grpc/grpc_utils.cc:86``).
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from enum import Enum


class Status(Enum):
    """Triton's status codes, and one for deadlines: the HTTP status and the gRPC code that each becomes."""

    UNKNOWN = (400, 2, "UNKNOWN")
    INTERNAL = (500, 13, "INTERNAL")
    NOT_FOUND = (404, 5, "NOT_FOUND")
    INVALID_ARG = (400, 3, "INVALID_ARGUMENT")
    UNAVAILABLE = (503, 14, "UNAVAILABLE")
    UNSUPPORTED = (501, 12, "UNIMPLEMENTED")
    ALREADY_EXISTS = (400, 6, "ALREADY_EXISTS")
    CANCELLED = (400, 1, "CANCELLED")
    DEADLINE_EXCEEDED = (504, 4, "DEADLINE_EXCEEDED")

    def __init__(self, http: int, grpc: int, grpc_name: str) -> None:
        self.http = http
        self.grpc = grpc
        self.grpc_name = grpc_name


class FailureReason(Enum):
    """Why a request failed: the ``reason`` of ``nv_inference_request_failure`` (Triton ``infer_stats.cc:40``)."""

    REJECTED = "REJECTED"
    CANCELED = "CANCELED"
    BACKEND = "BACKEND"
    OTHER = "OTHER"

    __hash__ = object.__hash__  # counted per failure, and a flood of refusals must cost little


class ShoalError(Exception):
    """The root: an error with a status and a message meant for the user.

    Attributes:
        status: what it becomes in each protocol.
        reason: how it is counted.
        retry_after_s: in how many seconds it is worth asking again; 0 when waiting does not help.
    """

    status = Status.UNKNOWN
    reason = FailureReason.OTHER
    retry_after_s = 0

    @property
    def message(self) -> str:
        """The text shown to the user."""
        return str(self)


class UnknownError(ShoalError):
    """An error of no other kind."""


class InternalError(ShoalError):
    """The server or a model failed; the request was not at fault."""

    status = Status.INTERNAL


class WorkerError(InternalError):
    """A worker process died, did not answer in time or could not start."""

    reason = FailureReason.BACKEND


class NotFoundError(ShoalError):
    """What the request names does not exist."""

    status = Status.NOT_FOUND


class InvalidArgumentError(ShoalError):
    """The request or the configuration is wrong."""

    status = Status.INVALID_ARG


class ConfigError(InvalidArgumentError):
    """A model's configuration is wrong; ``problems`` holds one line per problem found."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class UnavailableError(ShoalError):
    """The server or the model cannot take the request now."""

    status = Status.UNAVAILABLE


class QueueFullError(UnavailableError):
    """The model's queue, or what waits in the whole server, is at its limit."""

    reason = FailureReason.REJECTED


class QueueTimeoutError(UnavailableError):
    """The request waited in the queue for longer than allowed."""

    reason = FailureReason.REJECTED


class UnsupportedError(ShoalError):
    """The operation is not supported here."""

    status = Status.UNSUPPORTED


class AlreadyExistsError(ShoalError):
    """What should be created is there already."""

    status = Status.ALREADY_EXISTS


class CancelledError(ShoalError):
    """The client cancelled the request."""

    status = Status.CANCELLED
    reason = FailureReason.CANCELED


class DeadlineExceededError(ShoalError):
    """The request's own deadline passed before it was answered; Triton has none, so the status is gRPC's."""

    status = Status.DEADLINE_EXCEEDED
    reason = FailureReason.CANCELED


class ModelError(ShoalError):
    """An error that a model itself gave to one of its requests, with the status that it chose."""

    reason = FailureReason.BACKEND

    def __init__(self, message: str, status: Status = Status.INTERNAL) -> None:
        super().__init__(message)
        self.status = status


class StepError(ShoalError):
    """A step of an ensemble failed; it has the status and the reason of the step's own error."""

    def __init__(self, message: str, cause: ShoalError) -> None:
        super().__init__(message)
        self.status = cause.status
        self.reason = cause.reason
        self.retry_after_s = cause.retry_after_s


def nearest(name: str, allowed: Iterable[str]) -> str:
    """A hint such as ``; did you mean 'input'?`` when ``name`` is close to an allowed one, else an empty string."""
    found = get_close_matches(name, list(allowed), n=1, cutoff=0.6)
    return f"; did you mean '{found[0]}'?" if found else ""
