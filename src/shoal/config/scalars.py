"""Single values: from what is written in a file to what a protobuf field holds."""

from __future__ import annotations

import math
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from shoal.config.tree import Dialect, Scalar, ScalarKind
from shoal.errors import nearest

_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, (1 << 64) - 1),
}
_LONGEST_NUMBER = 40
_FLOAT_OVERFLOW = 3.4028235677973366e38
"""The first number that rounds to infinity in 32 bits."""

_TRUE = {Dialect.TEXT: {"true", "True", "t", "1"}, Dialect.JSON: {"true"}, Dialect.YAML: {"true", "yes", "on"}}
_FALSE = {Dialect.TEXT: {"false", "False", "f", "0"}, Dialect.JSON: {"false"}, Dialect.YAML: {"false", "no", "off"}}


class UnfitError(Exception):
    """The value does not fit the field; the text says what would."""


def convert(field: Any, scalar: Scalar, dialect: Dialect) -> Any:
    """The value for a field that is not a message.

    Raises:
        UnfitError: the value is of the wrong type or out of range.
    """
    if field.cpp_type in _RANGES:
        return _integer(scalar, dialect, *_RANGES[field.cpp_type])
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return _string(scalar, dialect)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return _bool(scalar, dialect)
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return _enum(field.enum_type, scalar, dialect)
    return _float(scalar, dialect, single=field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT)


def _string(scalar: Scalar, dialect: Dialect) -> str:
    if scalar.kind is not ScalarKind.STRING and not (dialect is Dialect.YAML and scalar.plain):
        raise UnfitError(f'expected a string in quotes, found {scalar}; write "{scalar.text}"')
    try:
        scalar.text.encode()
    except UnicodeEncodeError:
        raise UnfitError("the string holds half a surrogate pair, which is no character") from None
    return scalar.text


def _bool(scalar: Scalar, dialect: Dialect) -> bool:
    text = scalar.text.lower() if dialect is Dialect.YAML else scalar.text
    quoted = scalar.kind is ScalarKind.STRING and not scalar.plain
    # The key of a map is a string in JSON whatever its type; no map of ModelConfig has a bool for a key.
    if not quoted and text in _TRUE[dialect]:
        return True
    if not quoted and text in _FALSE[dialect]:
        return False
    raise UnfitError(f"expected true or false, found {scalar}")


def _integer(scalar: Scalar, dialect: Dialect, lowest: int, highest: int) -> int:
    number = None
    if _numeric(scalar, dialect):
        number = _text_integer(scalar.text) if dialect is Dialect.TEXT else _json_integer(scalar.text)
    if number is None or not lowest <= number <= highest:
        raise UnfitError(f"expected a whole number from {lowest} to {highest}, found {scalar}")
    return number


def _numeric(scalar: Scalar, dialect: Dialect) -> bool:
    if len(scalar.text) > _LONGEST_NUMBER or "_" in scalar.text:
        return False
    # In JSON a 64-bit number may stand in quotes, and the key of a map always does.
    return scalar.kind is ScalarKind.NUMBER or (dialect is not Dialect.TEXT and scalar.kind is ScalarKind.STRING)


def _text_integer(text: str) -> int | None:
    digits = text.removeprefix("-")
    sign = -1 if len(digits) < len(text) else 1
    try:
        if digits[:2] in ("0x", "0X"):
            return sign * int(digits, 16)
        return sign * int(digits, 8 if digits.startswith("0") else 10)
    except ValueError:
        return None


def _json_integer(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number.is_integer() else None


def _float(scalar: Scalar, dialect: Dialect, *, single: bool) -> float:
    text = scalar.text
    named = text.lower().removeprefix("-") in ("inf", "infinity", "nan")
    if dialect is Dialect.TEXT:
        text = text.lower() if named else text.rstrip("fF") if not text.lower().startswith("0x") else ""
        numeric = scalar.kind is not ScalarKind.STRING
    else:
        text = text.replace(".inf", "inf").replace(".nan", "nan") if scalar.plain else text
        numeric = _numeric(scalar, dialect)
    try:
        number = float(text) if numeric else None
    except ValueError:
        number = None
    if number is None:
        raise UnfitError(f"expected a number, found {scalar}")
    if single and math.isfinite(number) and abs(number) >= _FLOAT_OVERFLOW:
        raise UnfitError(f"expected a number no larger than 3.4028235e+38, found {scalar}")
    return number


def _enum(enum: Any, scalar: Scalar, dialect: Dialect) -> int:
    """An enum's number from its name, or from the number itself; in JSON and YAML in any case (rule 47)."""
    exact = dialect is Dialect.TEXT
    named = scalar.kind is ScalarKind.WORD if exact else scalar.kind is ScalarKind.STRING
    written = scalar.text if exact else scalar.text.upper()
    if named and written in enum.values_by_name:
        return int(enum.values_by_name[written].number)
    if scalar.kind is ScalarKind.NUMBER:
        number = _text_integer(scalar.text) if exact else _json_integer(scalar.text)
        if number is not None and number in enum.values_by_number:
            return number
    if exact and scalar.kind is ScalarKind.STRING and written in enum.values_by_name:
        raise UnfitError(f"expected a name without quotes; write {written}")
    names = [name for name in enum.values_by_name if name != "TYPE_INVALID"]
    raise UnfitError(f"expected one of {', '.join(names)}, found {scalar}{nearest(scalar.text.upper(), names)}")
