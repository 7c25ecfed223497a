"""Gathers the inputs of requests that differ in length: ragged ones end to end, padded ones row by row.

A ragged input becomes one dimension with the elements of all requests, which is what Triton gives its backends. A
padded input becomes ``[rows, ..., longest, ...]``; its rows are written into the shared memory at once, with the
padding. Masks and lengths are written beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shoal.config.padding import PaddedInput
from shoal.config.spec import ModelSpec
from shoal.datatypes import DataType, element_count
from shoal.execution.arena import Mapping, align
from shoal.execution.batch_inputs import input_shape
from shoal.execution.blocks import InstanceBlocks
from shoal.execution.bytes_arrays import decode_bytes, encode_bytes
from shoal.execution.messages import Place
from shoal.execution.padded_lengths import BatchLength
from shoal.requests import Buffer, InferRequest, Shape
from shoal.scheduling.contract import Batch, MadeInput

SHORT_REQUEST_NBYTES = 4096
"""Up to this length on average, requests are written with one masked copy; longer ones with a copy each."""
ONE_IN_BF16 = 0x3F80


class GatheredTensor(Protocol):
    """One input of a batch, to be written.

    Attributes:
        index: which of the model's inputs (an index into ``ModelSpec.all_inputs``).
        shape: its shape.
        nbytes: its length.
    """

    index: int
    shape: Shape
    nbytes: int

    def write(self, mapping: Mapping, offset: int) -> None:
        """Write it into the shared memory."""


class JoinedTensor:
    """The bytes of one request after those of another (a ``GatheredTensor``)."""

    def __init__(self, index: int, shape: Shape, column: Sequence[Buffer]) -> None:
        self.index = index
        self.shape = shape
        self.nbytes = sum(map(len, column))
        self._column = column

    def write(self, mapping: Mapping, offset: int) -> None:
        """Write it into the shared memory."""
        for data in self._column:
            mapping.view[offset : offset + len(data)] = data
            offset += len(data)


class PaddedTensor:
    """The rows of all requests, padded (a ``GatheredTensor``)."""

    def __init__(
        self, padded: PaddedInput, dtype: np.dtype[Any], length: BatchLength, tensors: list[tuple[Buffer, Shape]]
    ) -> None:
        self.index = padded.input
        self._axis = padded.axis
        self._dtype = dtype
        self._value = np.frombuffer(padded.value, dtype)[0]
        self._length = length
        self._tensors = tensors
        self.shape = padded_shape(tensors[0][1], padded.axis, length)
        self.nbytes = element_count(self.shape) * dtype.itemsize

    def write(self, mapping: Mapping, offset: int) -> None:
        """Write it into the shared memory."""
        array: NDArray[Any] = np.ndarray(self.shape, self._dtype, mapping.memory, offset)
        if self._axis == 1 and self.nbytes <= SHORT_REQUEST_NBYTES * len(self._tensors):
            joined = np.frombuffer(b"".join([data for data, _ in self._tensors]), self._dtype)
            array[...] = self._value
            array[self._length.real] = joined.reshape(-1, *self.shape[2:])
        else:
            sources = [np.ndarray(shape, self._dtype, data) for data, shape in self._tensors]
            fill(array, sources, self._axis, self._value)


class MaskTensor:
    """1 for every real element of a row and 0 for the padding (a ``GatheredTensor``)."""

    def __init__(self, index: int, datatype: DataType, length: BatchLength) -> None:
        self.index = index
        self._length = length
        self._one = ONE_IN_BF16 if datatype is DataType.BF16 else 1
        self._dtype = np.dtype(datatype.numpy or "u2")
        self.shape: Shape = (len(length.of_rows), length.padded)
        self.nbytes = element_count(self.shape) * self._dtype.itemsize

    def write(self, mapping: Mapping, offset: int) -> None:
        """Write it into the shared memory."""
        array: NDArray[Any] = np.ndarray(self.shape, self._dtype, mapping.memory, offset)
        np.multiply(self._length.real, self._one, out=array, casting="unsafe")


class UnequalInputs:
    """Gathers the inputs of one model version with ragged or padded inputs.

    Args:
        spec: the model.
        mapping: the shared memory.
    """

    def __init__(self, spec: ModelSpec, mapping: Mapping) -> None:
        self._mapping = mapping
        self._batched = spec.max_batch_size > 0
        self._ragged = frozenset(index for index, tensor in enumerate(spec.inputs) if tensor.allow_ragged_batch)
        self._all_inputs = spec.all_inputs
        self._lengths = spec.padding.lengths if spec.padding is not None else ()

    def places(self, batch: Batch, made: Sequence[MadeInput], blocks: InstanceBlocks) -> list[Place]:
        """Write the inputs of a batch, and tell where they are; counts the padding of the batch.

        Args:
            batch: the batch.
            made: further inputs, that the server made.
            blocks: the instance's blocks.

        Raises:
            UnavailableError: shared memory is used up.
        """
        tensors = self._tensors(batch)
        for tensor in made:
            column = tensor.data if isinstance(tensor.data, list) else [tensor.data]
            tensors.append(JoinedTensor(tensor.input, tensor.shape, column))
        offset = blocks.input_room(sum([align(tensor.nbytes) for tensor in tensors]) or 1).offset
        places: list[Place] = []
        for gathered in tensors:
            gathered.write(self._mapping, offset)
            places.append((gathered.index, offset, gathered.nbytes, gathered.shape))
            offset += align(gathered.nbytes)
        return places

    def _tensors(self, batch: Batch) -> list[GatheredTensor]:
        requests = batch.requests
        lengths = [BatchLength(spec, requests) for spec in self._lengths]
        padded = {member.input: (member, length) for length in lengths for member in length.spec.inputs}
        tensors: list[GatheredTensor] = []
        for slot, planned in enumerate(requests[0].plan.inputs):
            parts = [_tensor(request, slot) for request in requests]
            if planned.index in padded:
                tensors.append(self._padded(*padded[planned.index], parts))
            elif planned.index in self._ragged:
                total = sum([element_count(shape) for _, shape in parts])
                tensors.append(JoinedTensor(planned.index, (total,), [data for data, _ in parts]))
            else:
                shape = (batch.rows, *planned.shape[1:]) if self._batched else planned.shape
                tensors.append(JoinedTensor(planned.index, shape, [data for data, _ in parts]))
        for length in lengths:
            self._count(batch, length, input_shape(requests[0], length.spec.inputs[0].input))
            tensors += self._made(length)
        return tensors

    def _padded(self, padded: PaddedInput, length: BatchLength, parts: list[tuple[Buffer, Shape]]) -> GatheredTensor:
        datatype = self._all_inputs[padded.input].datatype
        if not length.unequal:
            return JoinedTensor(
                padded.input, padded_shape(parts[0][1], padded.axis, length), [data for data, _ in parts]
            )
        if datatype is DataType.BYTES:
            return _padded_texts(padded, length, parts)
        return PaddedTensor(padded, np.dtype(datatype.numpy or "u2"), length, parts)

    def _made(self, length: BatchLength) -> list[GatheredTensor]:
        """The mask and the lengths."""
        tensors: list[GatheredTensor] = []
        if length.spec.mask is not None:
            tensors.append(MaskTensor(length.spec.mask, self._all_inputs[length.spec.mask].datatype, length))
        if length.spec.lengths is not None:
            tensor = self._all_inputs[length.spec.lengths]
            values = length.of_rows.astype(tensor.datatype.numpy)
            dims = tensor.dims if tensor.reshape is None else tensor.reshape
            tensors.append(JoinedTensor(length.spec.lengths, (len(values), *dims), [values.tobytes()]))
        return tensors

    @staticmethod
    def _count(batch: Batch, length: BatchLength, shape: Shape) -> None:
        """Count what was sent and what it became; all but the padded dimension is the same for all requests."""
        axis = length.spec.inputs[0].axis
        others = element_count((*shape[1:axis], *shape[axis + 1 :]))
        sent = sum([rows * size for rows, size in zip(length.rows, length.each, strict=True)])
        batch.elements += sent * others
        batch.padded_elements += sum(length.rows) * length.padded * others


def padded_shape(shape: Shape, axis: int, length: BatchLength) -> Shape:
    """The shape of the whole batch, from that of one of its requests."""
    return (len(length.of_rows), *shape[1:axis], length.padded, *shape[axis + 1 :])


def fill(array: NDArray[Any], sources: Sequence[NDArray[Any]], axis: int, value: object) -> None:
    """Write the rows of each source into those of the array, and the value behind what is shorter."""
    target = array.swapaxes(1, axis)
    start = 0
    for source in sources:
        rows = target[start : start + len(source)]
        size = source.shape[axis]
        rows[:, :size] = source.swapaxes(1, axis)
        rows[:, size:] = value
        start += len(source)


def _padded_texts(padded: PaddedInput, length: BatchLength, parts: list[tuple[Buffer, Shape]]) -> JoinedTensor:
    """A padded BYTES tensor, whose elements have no fixed length and so are taken apart and joined again."""
    shape = padded_shape(parts[0][1], padded.axis, length)
    array = np.empty(shape, object)
    value = decode_bytes(padded.value, (1,))[0]
    fill(array, [decode_bytes(data, part) for data, part in parts], padded.axis, value)
    return JoinedTensor(padded.input, shape, [encode_bytes(array)])


def _tensor(request: InferRequest, slot: int) -> tuple[Buffer, Shape]:
    planned = request.plan.inputs[slot]
    return request.payload[planned.position] if planned.data is None else planned.data, planned.shape
