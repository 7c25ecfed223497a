"""Responses as bytes: they come back as they were, and nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.caching.codec import MAGIC, BrokenValueError, ResponseCodec
from shoal.datatypes import DataType, element_count
from shoal.requests import InferResponse, ResponseLayout, TensorHead
from shoal.testing.strategies import wire_bytes
from tests.caching.pieces import key_of, response_of

KEY = key_of(1)


@st.composite
def responses(draw):
    tensors, data = [], []
    for place in range(draw(st.integers(0, 3))):
        datatype = draw(st.sampled_from(DataType))
        shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
        tensors.append(TensorHead(draw(st.text(max_size=5)) + str(place), datatype, shape))
        data.append(draw(wire_bytes(datatype, element_count(shape))))
    values = st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=5)
    parameters = draw(st.none() | st.dictionaries(st.text(max_size=3), values, min_size=1, max_size=3))
    layout = ResponseLayout(draw(st.text(max_size=5)), draw(st.integers(1, 9)), tuple(tensors))
    return InferResponse(layout, data, parameters)


def told(response: InferResponse) -> tuple:
    layout = response.layout
    data = [bytes(each) for each in response.data]
    parameters = {name: (type(value), value) for name, value in (response.parameters or {}).items()}
    return layout.model_name, layout.model_version, layout.outputs, data, parameters


@given(responses())
def test_what_was_kept_comes_back(response):
    codec = ResponseCodec()
    assert told(codec.load(KEY, codec.dump(KEY, response))) == told(response)
    assert told(ResponseCodec().load(KEY, codec.dump(KEY, response))) == told(response)  # by another server


@given(responses(), st.data())
def test_a_changed_value_is_refused(response, data):
    """One byte that is another, a value that was cut off, one that has more behind it, one of another key."""
    codec = ResponseCodec()
    value = codec.dump(KEY, response)
    place, flip = data.draw(st.integers(0, len(value) - 1)), data.draw(st.integers(1, 255))
    changed = [
        value[:place] + bytes([value[place] ^ flip]) + value[place + 1 :],
        value[:place],
        value + b"\x00",
    ]
    for one in changed:
        with pytest.raises(BrokenValueError):
            codec.load(KEY, one)
    with pytest.raises(BrokenValueError):
        codec.load(key_of(2), value)


@given(st.binary(max_size=80))
def test_anything_else_is_refused(value):
    for one in (value, MAGIC + value):
        with pytest.raises(BrokenValueError):
            ResponseCodec().load(KEY, one)


def test_another_version_of_the_format_is_named():
    value = ResponseCodec().dump(KEY, response_of(b"x"))
    other = value[: len(MAGIC) - 1] + b"\x02" + value[len(MAGIC) :]
    with pytest.raises(BrokenValueError, match="another version of Shoal"):
        ResponseCodec().load(KEY, other)


def test_equal_layouts_are_one_object():
    """What an encoder made of a layout is found again with the next hit."""
    codec = ResponseCodec()
    first = codec.load(KEY, codec.dump(KEY, response_of(b"a")))
    again = codec.load(KEY, codec.dump(KEY, response_of(b"b")))
    assert first.layout is again.layout
    assert bytes(again.data[0]) == b"b"
