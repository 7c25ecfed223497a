"""Names and limits of request parameters that both protocols share (rules 20, 21 and 58)."""

from __future__ import annotations

from shoal.errors import InvalidArgumentError
from shoal.requests import LATEST

EMPTY_FINAL_RESPONSE = "triton_enable_empty_final_response"
"""The one request parameter with Triton's prefix that a client may set, over gRPC."""

DEADLINE = "deadline_us"
"""The request parameter with the time, in microseconds from its arrival, in which a request must be answered; ours."""

SCHEDULING = frozenset(
    {"sequence_id", "sequence_start", "sequence_end", "priority", "timeout", DEADLINE, EMPTY_FINAL_RESPONSE}
)
"""Request parameters that the server itself acts on; a model does not see them among its parameters."""

NOT_FORWARDABLE = frozenset(
    {"sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "headers", "binary_data_output", DEADLINE}
)
"""Names that no forwarded header may have (rule 21)."""

MAX_CLASSES = 1_000_000
"""More classes than this cannot be asked for."""

SHARED_MEMORY_DISABLED = "Client shared memory is disabled. Start the server with '--allow-client-shm=true' to enable."
"""The answer to every use of shared memory by a client while it is off (rule 58)."""

_INT64_END = 2**63


def check_forwarded(name: str) -> None:
    """Check that a request header may be forwarded to the model under this name.

    Raises:
        InvalidArgumentError: the name is one that the server itself gives a meaning to.
    """
    if name.lower() in NOT_FORWARDABLE or name.lower().startswith("triton_"):
        raise InvalidArgumentError(f"'{name}' is reserved for Triton usage and cannot be forwarded.")


def check_classes(classes: int) -> int:
    """The number of classes asked for, when there can be so many.

    Raises:
        InvalidArgumentError: it is above ``MAX_CLASSES``.
    """
    if classes > MAX_CLASSES:
        raise InvalidArgumentError(
            f"invalid value for 'classification' parameter, expected <= {MAX_CLASSES}, got {classes}"
        )
    return classes


def parse_version(text: str) -> int:
    """A model version as requests have it: ``""`` is the newest (rule 22).

    Raises:
        InvalidArgumentError: it is no integer, or negative.
    """
    if not text:
        return LATEST
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 20 and int(digits) < _INT64_END):
        raise InvalidArgumentError(
            f"failed to get model version from specified version string '{text}' (details: stol), "
            "version should be an integral value > 0"
        )
    if int(text) < 0:
        raise InvalidArgumentError(
            f"invalid model version specified '{text}' , version should be an integral value > 0"
        )
    return int(text)
