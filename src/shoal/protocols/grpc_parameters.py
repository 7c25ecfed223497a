"""The parameters of gRPC requests and tensors (rules 20 and 21): strictly typed messages to plain values by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shoal.errors import InvalidArgumentError
from shoal.protocols.parameters import DEADLINE, EMPTY_FINAL_RESPONSE, check_classes
from shoal.requests import Parameter

_UINT64 = 2**64


def request(parameters: Mapping[str, Any]) -> dict[str, Parameter]:
    """The ``parameters`` of a gRPC request; the members of the oneof are strict (rule 20).

    Args:
        parameters: ``InferParameter`` messages by name.

    Raises:
        InvalidArgumentError: a value of the wrong kind, or a reserved name.
    """
    return {name: _checked(name, parameters[name]) for name in parameters}


def _checked(name: str, parameter: Any) -> Parameter:
    if name.startswith("triton_") and name != EMPTY_FINAL_RESPONSE:
        raise InvalidArgumentError(
            "parameter keys starting with 'triton_' are reserved for Triton usage. Only the following keys starting "
            f"with 'triton_' are allowed: {EMPTY_FINAL_RESPONSE}"
        )
    kinds, expected = _KINDS.get(name, _CUSTOM)
    kind = parameter.WhichOneof("parameter_choice")
    if kind not in kinds:
        raise InvalidArgumentError(f"invalid value type for '{name}' parameter, expected {expected}.")
    value: Parameter = getattr(parameter, kind)
    if name == "priority" and value < 0:  # type: ignore[operator]
        raise InvalidArgumentError("invalid value for 'priority', expected value >= 0.")
    if name in ("sequence_id", "timeout") and isinstance(value, int):
        # They are unsigned inside, and Triton takes the bits as they are.
        return value % _UINT64
    return value


_CUSTOM = (
    ("bool_param", "int64_param", "string_param", "double_param"),
    "int64_param, bool_param, or string_param",
)
_KINDS = {
    "sequence_id": (("int64_param", "string_param"), "int64_param or string_param"),
    "sequence_start": (("bool_param",), "bool_param"),
    "sequence_end": (("bool_param",), "bool_param"),
    "priority": (("int64_param", "uint64_param"), "int64_param or uint64_param"),
    "timeout": (("int64_param",), "int64_param"),
    DEADLINE: (("int64_param", "uint64_param"), "int64_param or uint64_param"),
    EMPTY_FINAL_RESPONSE: (("bool_param",), "bool_param"),
}


def tensor_parameters(parameters: Mapping[str, Any], handled: frozenset[str]) -> dict[str, Parameter]:
    """The parameters of a gRPC tensor that have no meaning to the server, those named in ``handled`` left out."""
    plain: dict[str, Parameter] = {}
    for name in parameters:
        kind = parameters[name].WhichOneof("parameter_choice")
        if kind is not None and name not in handled:
            plain[name] = getattr(parameters[name], kind)
    return plain


def in_shared_memory(parameters: Mapping[str, Any], tensor: str) -> bool:
    """Whether a gRPC tensor is in shared memory; its three parameters are checked (rule 20).

    Raises:
        InvalidArgumentError: a parameter of the wrong kind, or one without the other.
    """
    in_region = _is_kind(parameters, "shared_memory_region", "string_param", tensor)
    for name in ("shared_memory_offset", "shared_memory_byte_size"):
        if name in parameters and not in_region:
            raise InvalidArgumentError(
                f"'{name}' can not be specified without 'shared_memory_region' parameter for tensor '{tensor}'"
            )
        given = _is_kind(parameters, name, "int64_param", tensor)
        if in_region and not given and name == "shared_memory_byte_size":
            raise InvalidArgumentError(
                f"'{name}' must be specified along with 'shared_memory_region' parameter for tensor '{tensor}'"
            )
    return in_region


def _is_kind(parameters: Mapping[str, Any], name: str, kind: str, tensor: str) -> bool:
    if name not in parameters:
        return False
    if parameters[name].WhichOneof("parameter_choice") != kind:
        raise InvalidArgumentError(f"invalid value type for '{name}' parameter for tensor '{tensor}', expected {kind}.")
    return True


def classes(parameters: Mapping[str, Any]) -> int:
    """How many classes a gRPC output asks for; 0 for the tensor itself.

    Raises:
        InvalidArgumentError: not an ``int64_param`` of at least 1.
    """
    if "classification" not in parameters:
        return 0
    parameter = parameters["classification"]
    if parameter.WhichOneof("parameter_choice") != "int64_param":
        raise InvalidArgumentError("invalid value type for 'classification' parameter, expected int64_param")
    if parameter.int64_param <= 0:
        raise InvalidArgumentError("invalid value for 'classification' parameter, expected >= 1")
    return check_classes(parameter.int64_param)
