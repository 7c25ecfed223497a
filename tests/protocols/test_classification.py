"""The classification extension: values, indices and labels as Triton writes them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shoal.datatypes import DataType
from shoal.errors import InvalidArgumentError
from shoal.protocols import bytes_tensors
from shoal.protocols.classification import classify
from shoal.requests import TensorHead

NUMBERS = [
    datatype for datatype in DataType if datatype not in (DataType.BOOL, DataType.BYTES, DataType.FP16, DataType.BF16)
]
LABELS = ("cat", "dog")


def classes(
    array: np.ndarray, count: int, *, labels: tuple[str, ...] = (), batched: bool = False
) -> tuple[tuple[int, ...], list[str]]:
    datatype = next(datatype for datatype in NUMBERS if array.dtype == np.dtype(datatype.numpy))
    tensor = TensorHead("out", datatype, array.shape)
    answer, data = classify(tensor, array.tobytes(), count, labels, batched=batched)
    assert (answer.name, answer.datatype) == ("out", DataType.BYTES)
    elements = bytes_tensors.unpack(data, int(np.prod(answer.shape)))
    assert elements is not None
    return answer.shape, [element.decode() for element in elements]


def test_rows_are_classified_one_by_one_as_the_real_server_does() -> None:
    """These rows and this answer were seen on the real server, with the labels cat and dog."""
    rows = np.array([[1, 2, 3], [3, 2, 1.5]], "<f4")
    shape, texts = classes(rows, 2, labels=LABELS, batched=True)
    assert shape == (2, 2)
    assert texts == ["3.000000:2", "2.000000:1:dog", "3.000000:0:cat", "2.000000:1:dog"]


def test_without_batching_the_whole_tensor_is_one_row() -> None:
    shape, texts = classes(np.array([[1, 4], [2, 3]], "<i4"), 9)
    assert shape == (4,)
    assert texts == ["4:1", "3:3", "2:2", "1:0"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.100000:0"),
        (1e-9, "0.000000:0"),
        (-2.5, "-2.500000:0"),
        (123456789.0, "123456789.000000:0"),
        (np.inf, "inf:0"),
        (np.nan, "nan:0"),
        (1e300, f"{1e300:f}:0"),
    ],
)
def test_floats_have_six_decimals(value: float, text: str) -> None:
    assert classes(np.array([value], "<f8"), 1)[1] == [text]


@pytest.mark.parametrize("datatype", NUMBERS)
def test_every_number_type_has_classes(datatype: DataType) -> None:
    kind = np.dtype(datatype.numpy)
    top = np.iinfo(kind).max if kind.kind in "iu" else 2.0
    _, texts = classes(np.array([0, top, 1], kind), 1)
    assert texts == [f"{top}:1" if kind.kind in "iu" else "2.000000:1"]


@pytest.mark.parametrize("datatype", [DataType.BOOL, DataType.BYTES, DataType.FP16, DataType.BF16])
def test_other_types_have_none(datatype: DataType) -> None:
    text = f"class result not available for output due to unsupported type '{datatype.wire}'"
    with pytest.raises(InvalidArgumentError, match=text):
        classify(TensorHead("out", datatype, (1,)), b"ab", 1, (), batched=False)


def test_empty_labels_are_left_out() -> None:
    assert classes(np.array([1, 2], "<i4"), 2, labels=("", "b"))[1] == ["2:1:b", "1:0"]


@pytest.mark.parametrize(
    ("shape", "batched", "expected"),
    [((0,), False, (0,)), ((0, 3), True, (0,)), ((2, 0), True, (2, 0)), ((), False, (1,)), ((), True, (1,))],
)
def test_shapes_without_elements_or_dimensions(
    shape: tuple[int, ...], batched: bool, expected: tuple[int, ...]
) -> None:
    assert classes(np.zeros(shape, "<f4"), 2, batched=batched)[0] == expected


@given(
    hnp.arrays(np.dtype("<i4"), st.tuples(st.integers(1, 4), st.integers(1, 40)), elements=st.integers(-3, 3)),
    st.integers(1, 50),
)
def test_the_best_come_first_and_of_equals_the_first(rows: np.ndarray, count: int) -> None:
    shape, texts = classes(rows, count, batched=True)
    width = min(count, rows.shape[1])
    assert shape == (rows.shape[0], width)
    expected = [
        f"{value}:{index}"
        for row in rows.tolist()
        for value, index in sorted(((value, index) for index, value in enumerate(row)), key=lambda x: (-x[0], x[1]))[
            :width
        ]
    ]
    assert texts == expected
