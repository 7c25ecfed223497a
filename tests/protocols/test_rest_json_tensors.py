"""JSON tensors in both directions: every type, any shape (rules 7 to 11)."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.datatypes import DataType
from shoal.errors import InternalError, InvalidArgumentError
from shoal.protocols import rest_json, rest_json_tensors
from tests.protocols.tensors import JSON_TYPES, arrays, wire_bytes


@st.composite
def tensors(draw: st.DrawFn) -> tuple[DataType, np.ndarray]:
    datatype = draw(st.sampled_from(JSON_TYPES))
    return datatype, draw(arrays(datatype))


def as_json(array: np.ndarray) -> str:
    values = [value.decode() for value in array.ravel()] if array.dtype == object else array.ravel().tolist()
    return json.dumps(values)


@given(tensors())
def test_rule_7_a_tensor_passes_unchanged_through_a_flat_list(tensor: tuple[DataType, np.ndarray]) -> None:
    datatype, array = tensor
    data = wire_bytes(array)
    text = rest_json_tensors.encode("x", datatype, array.shape, data)
    assert len(json.loads(text)) == array.size
    decoded = rest_json_tensors.decode("x", datatype, array.shape, rest_json.parse(text))
    if datatype in (DataType.FP32, DataType.FP64):
        # A NaN has one spelling in JSON, so its bits may change.
        kind = datatype.numpy
        np.testing.assert_array_equal(np.frombuffer(decoded, kind), np.frombuffer(data, kind))
    else:
        assert decoded == data


@given(tensors())
def test_rule_7_nesting_is_only_a_matter_of_the_count(tensor: tuple[DataType, np.ndarray]) -> None:
    datatype, array = tensor
    if array.ndim == 0 or array.dtype == object:
        return
    flat = rest_json_tensors.decode("x", datatype, array.shape, array.ravel().tolist())
    assert rest_json_tensors.decode("x", datatype, array.shape, array.tolist()) == flat
    assert rest_json_tensors.decode("x", datatype, array.shape, [array.tolist()]) == flat


def test_rule_7_uneven_nesting_keeps_the_order() -> None:
    decoded = rest_json_tensors.decode("x", DataType.UINT8, (6,), [1, [2, [3], []], [[[4]], 5], 6])
    assert decoded == bytes([1, 2, 3, 4, 5, 6])


@pytest.mark.parametrize("depth", [1, 2, 99, 100])
def test_rule_7_a_hundred_levels_are_allowed(depth: int) -> None:
    text = b"[" * depth + b"1" + b"]" * depth
    assert rest_json_tensors.decode("x", DataType.UINT8, (1,), rest_json.parse(text)) == b"\x01"


@pytest.mark.parametrize("depth", [101, 200, 100_000])
def test_rule_7_more_than_a_hundred_levels_are_not(depth: int) -> None:
    text = b"[" * depth + b"1" + b"]" * depth
    with pytest.raises(InvalidArgumentError, match="nesting depth exceeds the maximum of 100"):
        rest_json_tensors.decode("x", DataType.UINT8, (1,), rest_json.parse(text))


@pytest.mark.parametrize(
    ("datatype", "values", "expected"),
    [
        (DataType.INT8, [300, -129, 2**63 - 1], [44, 127, -1]),
        (DataType.INT32, [2**31, 2**63 - 1, -(2**63)], [-(2**31), -1, 0]),
        (DataType.UINT8, [256, 511], [0, 255]),
        (DataType.UINT16, [2**16 + 3, 2**64 - 1], [3, 2**16 - 1]),
    ],
)
def test_rule_12_integers_beyond_a_narrow_type_wrap_around(
    datatype: DataType, values: list[int], expected: list[int]
) -> None:
    """The real server answers these values."""
    decoded = rest_json_tensors.decode("x", datatype, (len(values),), values)
    assert np.frombuffer(decoded, datatype.numpy).tolist() == expected


def test_rule_12_numbers_beyond_fp32_become_infinite() -> None:
    decoded = rest_json_tensors.decode("x", DataType.FP32, (3,), [1e39, -1e39, 2**70])
    assert np.frombuffer(decoded, "<f4").tolist() == [float("inf"), float("-inf"), 2.0**70]


def test_rule_12_an_integer_beyond_fp64_is_refused() -> None:
    with pytest.raises(InternalError, match="Number too big to be stored in double"):
        rest_json_tensors.decode("x", DataType.FP32, (1,), [10**400])


def test_rule_8_strings_are_utf_8_without_base64() -> None:
    decoded = rest_json_tensors.decode("x", DataType.BYTES, (3,), ["aé", "", "\x00"])
    assert decoded == b"\x03\x00\x00\x00a\xc3\xa9" + b"\x00\x00\x00\x00" + b"\x01\x00\x00\x00\x00"


@given(st.lists(st.binary(max_size=8), max_size=5))
def test_rule_8_bytes_that_are_not_utf_8_pass_as_they_are(elements: list[bytes]) -> None:
    """Triton writes and reads them raw; JSON proper would not allow it."""
    data = wire_bytes(np.array([*elements, b""], dtype=object)[:-1])
    text = rest_json_tensors.encode("x", DataType.BYTES, (len(elements),), data)
    assert rest_json_tensors.decode("x", DataType.BYTES, (len(elements),), rest_json.parse(text)) == data


def test_rule_9_bool_is_one_byte_and_true_or_false() -> None:
    assert rest_json_tensors.decode("x", DataType.BOOL, (2,), [True, False]) == b"\x01\x00"
    assert rest_json_tensors.encode("x", DataType.BOOL, (3,), b"\x00\x01\x02") == b"[false,true,true]"


@pytest.mark.parametrize("datatype", [DataType.FP16, DataType.BF16])
def test_rule_10_half_precision_has_no_json_form(datatype: DataType) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"receiving {datatype.wire} .* for input x$"):
        rest_json_tensors.decode("x", datatype, (1,), [1.0])
    with pytest.raises(InvalidArgumentError, match=rf"^sending {datatype.wire} data via JSON .* for output$"):
        rest_json_tensors.encode("x", datatype, (1,), b"\x00\x00")


def test_rule_11_not_finite_numbers_are_written_as_such() -> None:
    data = np.array([np.nan, np.inf, -np.inf, 1.5], "<f4").tobytes()
    assert rest_json_tensors.encode("x", DataType.FP32, (4,), data) == b"[NaN,Infinity,-Infinity,1.5]"


@pytest.mark.parametrize("datatype", JSON_TYPES)
def test_an_output_that_does_not_fit_its_shape_is_refused(datatype: DataType) -> None:
    with pytest.raises(InternalError, match="output tensor shape does not match size of output for 'x'"):
        rest_json_tensors.encode("x", datatype, (3,), b"\x01")


def test_views_of_wider_elements_are_read_as_bytes() -> None:
    view = memoryview(np.array([[1, 2], [3, 4]], "<i4"))
    assert rest_json_tensors.encode("x", DataType.INT32, (2, 2), view) == b"[1,2,3,4]"
