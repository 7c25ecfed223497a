"""Tensors as JSON lists, in both directions (rules 7 to 11).

Python's own ``array`` and ``memoryview`` convert between lists and little-endian bytes at C speed, so the server needs
no NumPy for it.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from itertools import chain
from typing import Any

from shoal.datatypes import DataType, element_count
from shoal.errors import InternalError, InvalidArgumentError
from shoal.protocols import bytes_tensors, rest_json
from shoal.protocols.rest_json_strict import MAX_NESTING
from shoal.requests import Buffer, Shape

_CODES = {
    DataType.BOOL: "?",
    DataType.UINT8: "B",
    DataType.UINT16: "H",
    DataType.UINT32: "I",
    DataType.UINT64: "Q",
    DataType.INT8: "b",
    DataType.INT16: "h",
    DataType.INT32: "i",
    DataType.INT64: "q",
    DataType.FP32: "f",
    DataType.FP64: "d",
}
"""The letter of ``array`` and ``memoryview`` for each type that has a JSON form."""

_NO_JSON = (DataType.FP16, DataType.BF16)
_WRONG_COUNT = "Unable to parse 'data': Shape does not match true shape of 'data' field"


def decode(name: str, datatype: DataType, shape: Shape, data: object) -> bytes:
    """The wire bytes of an input's ``data``, which may be flat or nested in any way (rule 7).

    The element count must be that of the shape; integers out of a narrow type's range wrap around, as in Triton. The
    elements of a BYTES tensor are counted with the model's other checks, not here.

    Args:
        name: the input's name, for messages.
        datatype: its type.
        shape: its shape.
        data: the parsed JSON.

    Raises:
        InternalError: an element of the wrong type, or the wrong number of them.
        InvalidArgumentError: the type has no JSON form (rule 10), or the lists are nested too deep.
    """
    expected = element_count(shape)
    if expected == 0:
        return b""
    if not isinstance(data, list):
        raise InternalError("Unable to parse 'data': attempt to access JSON non-array as array")
    if datatype in _NO_JSON:
        raise InvalidArgumentError(
            f"receiving {datatype.wire} data via JSON is not supported. "
            f"Please use the binary data format for input {name}"
        )
    flat = _flatten(data)
    if datatype is DataType.BYTES:
        return _encode_strings(flat)
    # An element of the wrong type counts before a surplus element behind it.
    encoded = _ENCODERS[datatype](flat if len(flat) <= expected else flat[:expected], _CODES[datatype])
    if len(flat) != expected:
        raise InternalError(_WRONG_COUNT)
    return encoded


def _flatten(data: list[Any]) -> list[Any]:
    for _ in range(MAX_NESTING):
        kinds = set(map(type, data))
        if list not in kinds:
            return data
        if len(kinds) == 1:
            data = list(chain.from_iterable(data))
        else:
            data = list(chain.from_iterable(item if isinstance(item, list) else (item,) for item in data))
    raise InvalidArgumentError(f"Unable to parse 'data': JSON nesting depth exceeds the maximum of {MAX_NESTING}")


def _encode_floats(values: list[Any], code: str) -> bytes:
    if not set(map(type, values)) <= {float, int}:
        raise InternalError("Unable to parse 'data': attempt to access JSON non-number as double")
    try:
        return array(code, values).tobytes()
    except OverflowError:
        raise InternalError("Unable to parse 'data': Number too big to be stored in double.") from None


def _encode_signed(values: list[Any], code: str) -> bytes:
    return _encode_integers(values, code, "q", "signed-integer")


def _encode_unsigned(values: list[Any], code: str) -> bytes:
    return _encode_integers(values, code, "Q", "unsigned-integer")


def _encode_integers(values: list[Any], code: str, widest: str, kind: str) -> bytes:
    if not set(map(type, values)) <= {int}:
        raise _not_integer(kind)
    try:
        return array(code, values).tobytes()
    except OverflowError:
        return _wrap_around(values, code, widest, kind)


def _wrap_around(values: list[Any], code: str, widest: str, kind: str) -> bytes:
    try:
        wide = array(widest, values)
    except OverflowError:
        raise _not_integer(kind) from None
    mask = (1 << (8 * array(code).itemsize)) - 1
    return array(code.upper(), [value & mask for value in wide]).tobytes()


def _not_integer(kind: str) -> InternalError:
    return InternalError(f"Unable to parse 'data': attempt to access JSON non-{kind} as {kind}")


def _encode_bools(values: list[Any], _code: str) -> bytes:
    if not set(map(type, values)) <= {bool}:
        raise InternalError("Unable to parse 'data': attempt to access JSON non-boolean as boolean")
    return bytes(values)


def _encode_strings(values: list[Any]) -> bytes:
    if not set(map(type, values)) <= {str}:
        raise InternalError("Unable to parse JSON bytes array: attempt to access JSON non-string as string")
    try:
        return bytes_tensors.pack(value.encode("utf-8", "surrogateescape") for value in values)
    except UnicodeEncodeError:
        raise InternalError("Unable to parse 'data': The surrogate pair in string is invalid.") from None


_ENCODERS: dict[DataType, Callable[[list[Any], str], bytes]] = {
    DataType.BOOL: _encode_bools,
    DataType.FP32: _encode_floats,
    DataType.FP64: _encode_floats,
    **dict.fromkeys((DataType.UINT8, DataType.UINT16, DataType.UINT32, DataType.UINT64), _encode_unsigned),
    **dict.fromkeys((DataType.INT8, DataType.INT16, DataType.INT32, DataType.INT64), _encode_signed),
}


def encode(name: str, datatype: DataType, shape: Shape, data: Buffer) -> bytes:
    """An output's wire bytes as a flat JSON list (rule 7).

    Bytes of a BYTES element that are not UTF-8 are written as they are, as Triton does.

    Raises:
        InvalidArgumentError: the type has no JSON form (rule 10).
        InternalError: the data does not fit the shape.
    """
    if datatype in _NO_JSON:
        raise InvalidArgumentError(
            f"sending {datatype.wire} data via JSON is not supported. Please use the binary data format for output"
        )
    count = element_count(shape)
    values: list[object] | list[str] | None
    if datatype is DataType.BYTES:
        values = _decode_strings(data, count)
    else:
        view = memoryview(data)
        values = _decode_numbers(view, _CODES[datatype]) if view.nbytes == count * datatype.itemsize else None
    if values is None:
        raise InternalError(f"output tensor shape does not match size of output for '{name}'")
    return rest_json.dump(values)


def _decode_numbers(view: memoryview, code: str) -> list[object]:
    if not view.nbytes:
        return []
    return view.cast("B").cast(code).tolist()  # type: ignore[call-overload, no-any-return]


def _decode_strings(data: Buffer, count: int) -> list[str] | None:
    elements = bytes_tensors.unpack(data, count)
    if elements is None:
        return None
    return [element.decode("utf-8", "surrogateescape") for element in elements]
