"""The parameters of REST requests and tensors (rules 5 and 21): JSON to plain values by name."""

from __future__ import annotations

from shoal.errors import InternalError, InvalidArgumentError, UnsupportedError
from shoal.protocols.parameters import SHARED_MEMORY_DISABLED
from shoal.protocols.rest_json_access import as_bool, as_string, as_uint, find, is_int, is_uint
from shoal.requests import Parameter


def request(value: object) -> tuple[dict[str, Parameter], bool]:
    """The ``parameters`` of a REST request.

    Args:
        value: the parsed JSON.

    Returns:
        The parameters, and whether outputs that the request does not list come as bytes (``binary_data_output``).

    Raises:
        InternalError: a known parameter has the wrong JSON type.
        InvalidArgumentError: a reserved name, or a value that is no scalar.
    """
    if not isinstance(value, dict):
        raise InternalError("failed to get request params.: attempt to get members for non-object")
    parameters: dict[str, Parameter] = {}
    binary_outputs = False
    for name, item in value.items():
        if name == "binary_data_output":
            binary_outputs = as_bool(item, f"Unable to parse '{name}'")
        else:
            parameters[name] = _checked(name, item)
    return parameters, binary_outputs


def _checked(name: str, value: object) -> Parameter:
    if name == "sequence_id":
        return value if is_uint(value) else as_string(value, f"Unable to parse '{name}'")  # type: ignore[return-value]
    if name in ("sequence_start", "sequence_end"):
        return as_bool(value, f"Unable to parse '{name}'")
    if name in ("priority", "timeout"):
        return as_uint(value, f"Unable to parse '{name}'")
    if name.startswith("triton_"):
        raise InvalidArgumentError(
            "parameter keys starting with 'triton_' are reserved for Triton usage and should not be specified."
        )
    plain = scalar(value)
    if plain is None:
        raise InvalidArgumentError(
            f"parameter '{name}' has invalid type. It should be either 'int', 'bool', or 'string'."
        )
    return plain


def scalar(value: object) -> Parameter | None:
    """A JSON value as a parameter; an integer beyond 64 bits as a float, as Triton has it; None for anything else."""
    if isinstance(value, bool | str | float) or is_int(value):
        return value  # type: ignore[return-value]
    if not isinstance(value, int):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def check_shared_memory(parameters: object) -> None:
    """Refuse shared memory for a REST tensor.

    Args:
        parameters: the tensor's ``parameters``, parsed.

    Raises:
        InternalError: a shared memory parameter has the wrong JSON type.
        UnsupportedError: the tensor is in shared memory.
    """
    in_region, region = find(parameters, "shared_memory_region")
    if in_region:
        as_string(region, "Unable to parse 'shared_memory_region'")
    for name in ("shared_memory_offset", "shared_memory_byte_size"):
        given, number = find(parameters, name)
        if given:
            as_uint(number, f"Unable to parse '{name}'")
    if in_region:
        raise UnsupportedError(SHARED_MEMORY_DISABLED)
