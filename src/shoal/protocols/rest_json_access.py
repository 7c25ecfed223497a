"""Typed access to parsed JSON with the messages of Triton's accessors (rule 12): a wrong type is INTERNAL, 500."""

from __future__ import annotations

from shoal.errors import InternalError

_UINT64_END = 2**64
_INT64_END = 2**63


def find(value: object, name: str) -> tuple[bool, object]:
    """Whether the value is an object with this member, and the member."""
    if isinstance(value, dict) and name in value:
        return True, value[name]
    return False, None


def member(value: object, name: str) -> object:
    """A member that must be there."""
    found, inner = find(value, name)
    if not found:
        raise InternalError(f"Unable to parse '{name}': attempt to access non-existing object member '{name}'")
    return inner


def array_member(value: object, name: str) -> list[object]:
    """A member that must be there and be an array."""
    inner = member(value, name)
    if not isinstance(inner, list):
        raise InternalError(f"Unable to parse '{name}': attempt to access JSON non-array as array")
    return inner


def string_member(value: object, name: str) -> str:
    """A member that must be there and be a string."""
    return as_string(member(value, name), f"Unable to parse '{name}'")


def as_string(value: object, context: str) -> str:
    """The value, which must be a string; ``context`` begins the message when it is not."""
    if not isinstance(value, str):
        raise InternalError(f"{context}: attempt to access JSON non-string as string")
    return value


def as_bool(value: object, context: str) -> bool:
    """The value, which must be true or false."""
    if not isinstance(value, bool):
        raise InternalError(f"{context}: attempt to access JSON non-boolean as boolean")
    return value


def as_uint(value: object, context: str) -> int:
    """The value, which must be an integer of 64 bits that is not negative."""
    if is_uint(value):
        assert isinstance(value, int)
        return value
    raise InternalError(f"{context}: attempt to access JSON non-unsigned-integer as unsigned-integer")


def is_uint(value: object) -> bool:
    """Whether the value is an unsigned integer of 64 bits; ``1.0`` and ``true`` are none."""
    return type(value) is int and 0 <= value < _UINT64_END


def is_int(value: object) -> bool:
    """Whether the value is a signed integer of 64 bits."""
    return type(value) is int and -_INT64_END <= value < _INT64_END
