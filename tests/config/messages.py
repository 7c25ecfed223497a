"""Hypothesis strategies for whole ModelConfig messages, made from the descriptor: every field gets its turn."""

import math

from google.protobuf.descriptor import FieldDescriptor
from hypothesis import strategies as st

from shoal.config.model_config_pb2 import ModelConfig

TEXT = st.text(st.characters(codec="utf-8"), max_size=6)
SCALARS = {
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_INT64: st.integers(-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, (1 << 32) - 1),
    FieldDescriptor.CPPTYPE_UINT64: st.integers(0, (1 << 64) - 1),
    FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32, allow_nan=False),
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(allow_nan=False),
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_STRING: TEXT,
}


def is_map(field):
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def value_of(field):
    """A strategy for one value of a field; for a message, what fills it."""
    if field.message_type is not None:
        return fills(field.message_type)
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values])
    return SCALARS[field.cpp_type]


@st.composite
def fills(draw, descriptor, most_fields=4):
    """Some fields of a message with their values, at most one of each oneof."""
    filled = {}
    taken = set()
    choices = list(descriptor.fields)
    fields = (
        draw(st.lists(st.sampled_from(choices), unique_by=lambda field: field.name, max_size=most_fields))
        if choices
        else []
    )
    for field in fields:
        oneof = field.containing_oneof.name if field.containing_oneof else None
        if oneof in taken:
            continue
        taken.add(oneof) if oneof else None
        if is_map(field):
            parts = field.message_type.fields_by_name
            filled[field.name] = draw(st.dictionaries(value_of(parts["key"]), value_of(parts["value"]), max_size=2))
        elif field.is_repeated:
            filled[field.name] = draw(st.lists(value_of(field), max_size=3))
        else:
            filled[field.name] = draw(value_of(field))
    return filled


def apply(message, filled):
    """Set a message's fields to what was drawn."""
    for name, value in filled.items():
        field = message.DESCRIPTOR.fields_by_name[name]
        target = getattr(message, name)
        nested = field.message_type is not None
        if is_map(field):
            into_message = field.message_type.fields_by_name["value"].message_type is not None
            for key, item in value.items():
                if into_message:
                    apply(target[key], item)
                else:
                    target[key] = item
        elif field.is_repeated:
            for item in value:
                apply(target.add(), item) if nested else target.append(item)
        elif nested:
            target.SetInParent()
            apply(target, value)
        else:
            setattr(message, name, value)
    return message


def configs():
    """Any ModelConfig at all, sensible or not."""
    return fills(ModelConfig.DESCRIPTOR, most_fields=6).map(lambda filled: apply(ModelConfig(), filled))


def has_infinity(message):
    """JSON and YAML have other words for infinity than the text format."""
    return any(math.isinf(value) for field, value in _scalars(message) if field.cpp_type in (5, 6))


def _scalars(message):
    for field, value in message.ListFields():
        items = value.values() if is_map(field) else value if field.is_repeated else [value]
        for item in items:
            if hasattr(item, "DESCRIPTOR"):
                yield from _scalars(item)
            elif not is_map(field):
                yield field, item
