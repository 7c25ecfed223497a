"""Makes ``batch_input`` tensors: what a model with ragged inputs needs to know to tell its requests apart.

Values, data types and shapes are those of Triton (``backend_input_collector.cc``, ``BatchInputShape`` and
``ProcessBatchInput``). Elements are counted for a request as a whole, whatever its number of rows.
"""

from __future__ import annotations

from array import array
from itertools import accumulate

from shoal.config.spec import BatchInputSpec, ModelSpec
from shoal.datatypes import DataType, element_count
from shoal.requests import InferRequest, Shape
from shoal.scheduling.contract import Batch, MadeInput

_TYPECODES = {DataType.INT32: "i", DataType.FP32: "f"}


class BatchInputs:
    """Makes the derived inputs of one model version (a ``gather.MakeInputs``)."""

    def __init__(self, spec: ModelSpec) -> None:
        self._entries = spec.batch_inputs
        self._first = len(spec.inputs)

    def __call__(self, batch: Batch) -> list[MadeInput]:
        """The derived inputs of a batch."""
        made = []
        for entry in self._entries:
            shapes = [input_shape(request, entry.source) for request in batch.requests]
            values, shape = _values(entry, shapes)
            data = array(_TYPECODES[entry.datatype], values).tobytes()
            made += [MadeInput(self._first + target, data, shape) for target in entry.inputs]
        return made


def input_shape(request: InferRequest, index: int) -> Shape:
    """The shape of one of a request's inputs."""
    for planned in request.plan.inputs:
        if planned.index == index:
            return planned.shape
    raise AssertionError("a source input is never optional")


def _values(entry: BatchInputSpec, shapes: list[Shape]) -> tuple[list[int], Shape]:
    """The values of a derived input, and its shape."""
    if entry.kind == "BATCH_ITEM_SHAPE":
        rows = [shape[1:] for shape in shapes for _ in range(shape[0])]
        return [size for dims in rows for size in dims], (len(rows), len(shapes[0]) - 1)
    if entry.kind == "BATCH_ITEM_SHAPE_FLATTEN":
        values = [size for shape in shapes for _ in range(shape[0]) for size in shape[1:]]
        return values, (len(values),)
    values = [element_count(shape) for shape in shapes]
    if entry.kind == "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE":  # only the shape tells; Triton leaves the values to chance
        return [0] * max(values), (max(values),)
    if entry.kind == "BATCH_ACCUMULATED_ELEMENT_COUNT":
        values = list(accumulate(values))
    elif entry.kind == "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO":
        values = list(accumulate(values, initial=0))
    return values, (len(values),)
