"""The classification extension: a tensor's top classes in place of the tensor.

Each class is one BYTES element, ``value:index`` or ``value:index:label``, the value printed as C++'s
``std::to_string`` prints it.
"""

from __future__ import annotations

from heapq import nlargest

from shoal.datatypes import DataType, element_count
from shoal.errors import InvalidArgumentError
from shoal.protocols import bytes_tensors
from shoal.requests import Buffer, Shape, TensorHead

_CODES = {
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


def classify(
    tensor: TensorHead, data: Buffer, classes: int, labels: tuple[str, ...], *, batched: bool
) -> tuple[TensorHead, bytes]:
    """The top classes of an output, best first; of equal values the one with the lower index comes first.

    Args:
        tensor: the output as the model gave it.
        data: its wire bytes.
        classes: how many classes were asked for.
        labels: the output's labels by index; a class without one, or with an empty one, is shown without.
        batched: whether the first dimension is the batch; classes are then taken row by row.

    Returns:
        The BYTES tensor of the classes and its wire bytes.

    Raises:
        InvalidArgumentError: the output's type has no classes: BOOL, BYTES, FP16 and BF16.
    """
    if tensor.datatype not in _CODES:
        raise InvalidArgumentError(
            f"class result not available for output due to unsupported type '{tensor.datatype.wire}'"
        )
    rows, width = _rows(tensor.shape, batched)
    view = memoryview(data).cast("B")
    row_nbytes = width * tensor.datatype.itemsize
    elements: list[bytes] = []
    for row in range(rows or 1):
        values = view[row * row_nbytes : (row + 1) * row_nbytes]
        elements += _top(values, _CODES[tensor.datatype], classes, labels)
    shape = (rows, min(classes, width)) if rows else (min(classes, width),)
    return TensorHead(tensor.name, DataType.BYTES, shape), bytes_tensors.pack(elements)


def _rows(shape: Shape, batched: bool) -> tuple[int, int]:
    """The batch size (0 without one) and the number of values in a row."""
    rows = shape[0] if batched and shape else 0
    return rows, element_count(shape[1:] if rows else shape)


def _top(values: memoryview, code: str, classes: int, labels: tuple[str, ...]) -> list[bytes]:
    if not values.nbytes:
        return []
    numbers = values.cast(code)  # type: ignore[call-overload]
    template = "%f:%d" if code in "fd" else "%d:%d"
    texts: list[bytes] = []
    for index in nlargest(classes, range(len(numbers)), key=numbers.__getitem__):
        text = template % (numbers[index], index)
        if index < len(labels) and labels[index]:
            text = f"{text}:{labels[index]}"
        texts.append(text.encode())
    return texts
