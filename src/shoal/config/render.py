"""A configuration as ``GET /v2/models/<model>/config`` returns it, in the layout that Triton prints.

That is protobuf's JSON with the names of the proto file, with all defaults, and with 64-bit numbers as numbers rather
than strings, apart from a few that Triton forgot (``model_config_utils.cc``, ``ModelConfigToJson``). The entries of a
map are sorted; Triton's are in no order.
"""

from __future__ import annotations

import json
import math
import struct
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

_WIDE = (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)
_FLOATS = (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE)
_WIDE_AS_STRING = {
    "shoal.config.ModelInstanceGroup.SecondaryDevice.device_id",
    "shoal.config.ModelOptimizationPolicy.Cuda.GraphSpec.Shape.dim",
    "shoal.config.ModelSequenceBatching.InitialState.dims",
}
_LARGEST_EXACT = 1 << 53


def config_to_dict(config: Any) -> dict[str, Any]:
    """The ``ModelConfig`` message as the JSON object that clients get."""
    return _message(config)


def config_to_json(config: Any) -> str:
    """The ``ModelConfig`` message as JSON text without spaces."""
    return json.dumps(config_to_dict(config), separators=(",", ":"), ensure_ascii=False)


def _message(message: Any) -> dict[str, Any]:
    """In the order of the proto file; scalars of a oneof come last, and only when set."""
    first: dict[str, Any] = {}
    last: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        scalar_choice = field.containing_oneof is not None and field.message_type is None
        (last if scalar_choice else first)[field.name] = _field(field, getattr(message, field.name))
    return first | last


def _field(field: Any, value: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        inner = field.message_type.fields_by_name["value"]
        return {str(key): _single(inner, value[key]) for key in sorted(value)}
    if field.is_repeated:
        return [_single(field, item) for item in value]
    return _single(field, value)


def _single(field: Any, value: Any) -> Any:
    if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        return _message(value)
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        found = field.enum_type.values_by_number.get(value)
        return found.name if found else value
    if field.cpp_type in _WIDE:
        return str(value) if field.full_name in _WIDE_AS_STRING else value
    if field.cpp_type in _FLOATS:
        return _float(value, single=field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT)
    return value


def _float(value: float, *, single: bool) -> float | int | str:
    """The shortest number that reads back as the same value: 0.1 and not 0.10000000149011612, 1 and not 1.0."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if value.is_integer() and abs(value) <= _LARGEST_EXACT and str(value) != "-0.0":
        return int(value)
    return _shortest_single(value) if single else value


def _shortest_single(value: float) -> float:
    for digits in range(6, 9):
        short = float(f"{value:.{digits}g}")
        if struct.pack("f", short) == struct.pack("f", value):
            return short
    return float(f"{value:.9g}")
