"""A request's place in a sequence: its parameters against what the model's sequence batcher takes (rule 44).

Triton checks all this when it queues the request, after the inputs. Only the length of a string id is checked for every
model, and before everything else.
"""

from __future__ import annotations

from shoal.config.spec import ControlKind, ModelSpec, SequenceSpec
from shoal.datatypes import DataType
from shoal.errors import InvalidArgumentError, UnsupportedError
from shoal.requests import InferHead, SequencePart
from shoal.scheduling.texts import request_prefix

LONGEST_ID_NBYTES = 128
"""The longest string that is an id (Triton's ``STRING_CORRELATION_ID_MAX_LENGTH_BYTES``)."""

_UINT64_END = 2**64


def check_id_length(head: InferHead) -> None:
    """Refuse an id that is too long, whatever the model.

    Raises:
        UnsupportedError: it is a string of more than ``LONGEST_ID_NBYTES`` bytes.
    """
    given = head.parameters.get("sequence_id")
    if isinstance(given, str) and len(given) * 4 > LONGEST_ID_NBYTES < len(given.encode(errors="surrogateescape")):
        raise UnsupportedError(f"string correlation ID cannot be longer than {LONGEST_ID_NBYTES} characters")


def sequence_part(head: InferHead, spec: ModelSpec, sequence: SequenceSpec, rows: int) -> SequencePart:
    """The request's place in a sequence; its id is 0 where the server is to choose one.

    Args:
        head: the request.
        spec: the model.
        sequence: its sequence batcher's settings.
        rows: the request's batch size.

    Raises:
        InvalidArgumentError: the request has no id, one of the wrong type, or more than one row.
    """
    if rows > 1:
        raise InvalidArgumentError(
            f"inference request to model '{spec.name}' must specify batch-size 1 due to requirements of sequence "
            "batcher"
        )
    given = head.parameters.get("sequence_id", 0)
    if isinstance(given, bool) or not (isinstance(given, str) or (isinstance(given, int) and 0 <= given < _UINT64_END)):
        raise InvalidArgumentError(
            f"{request_prefix(head)}the request's parameter 'sequence_id' must be a string or a whole number of 64 "
            f"bits, not {given!r}"
        )
    if not given:
        if not sequence.iterative:
            raise InvalidArgumentError(
                f"inference request to model '{spec.name}' must specify a non-zero or non-empty correlation ID"
            )
        return SequencePart(0, start=True)  # other flags are ignored, as in Triton
    _check_control(head, spec, sequence, given)
    return SequencePart(given, start=_flag(head, "sequence_start"), end=_flag(head, "sequence_end"))


def passed_on(head: InferHead) -> SequencePart | None:
    """The place in a sequence that an ensemble passes on to its models, which check it; None for none."""
    given = head.parameters.get("sequence_id")
    if not given or isinstance(given, bool | float):
        return None
    flags = (head.parameters.get(name) is True for name in ("sequence_start", "sequence_end"))
    return SequencePart(given, *flags)


def _check_control(head: InferHead, spec: ModelSpec, sequence: SequenceSpec, given: int | str) -> None:
    """Refuse an id that the model's control input for it cannot hold."""
    for control in sequence.controls:
        if control.kind is ControlKind.CORRELATION_ID and isinstance(given, str) != (
            control.datatype is DataType.BYTES
        ):
            found, wanted = ("a string", "a number") if isinstance(given, str) else ("a number", "a string")
            raise InvalidArgumentError(
                f"{request_prefix(head)}the correlation ID '{given}' is {found}, but the control input of model "
                f"'{spec.name}' for it has the type {control.datatype.config}; send {wanted} as sequence_id"
            )


def _flag(head: InferHead, name: str) -> bool:
    value = head.parameters.get(name, False)
    if not isinstance(value, bool):
        raise InvalidArgumentError(
            f"{request_prefix(head)}the request's parameter '{name}' must be true or false, not {value!r}"
        )
    return value
