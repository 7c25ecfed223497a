"""Cuts outputs where rows alone do not tell: padded ones to each length, scattered ones by an input's shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoal.config.spec import ModelSpec
from shoal.datatypes import DataType, element_count
from shoal.errors import InternalError
from shoal.execution.batch_inputs import input_shape
from shoal.execution.blocks import LARGE_NBYTES, InstanceBlocks
from shoal.execution.bytes_arrays import decode_bytes, encode_bytes
from shoal.execution.messages import Place
from shoal.execution.padded_lengths import BatchLength
from shoal.requests import Buffer, InferRequest, Shape
from shoal.scheduling.contract import Batch

Piece = tuple[Buffer, Shape]
"""A request's own part of an output: its bytes and its shape."""


class OutputCutter:
    """Cuts the outputs of one model version.

    Args:
        spec: the model.
        scatters: whether ``batch_output`` is heeded; the Python backend, in Triton too, lets models answer themselves.
    """

    def __init__(self, spec: ModelSpec, *, scatters: bool) -> None:
        self._spec = spec
        self._lengths = spec.padding.lengths if spec.padding is not None else ()
        self._sources = {output: entry.source for entry in spec.batch_outputs for output in entry.outputs if scatters}
        self._padded = {cut.output: (place, cut.axis) for place, a in enumerate(self._lengths) for cut in a.outputs}

    @property
    def needed(self) -> bool:
        """Whether there is any output to cut."""
        return bool(self._sources or self._padded)

    def lengths(self, batch: Batch) -> list[BatchLength]:
        """The lengths of a batch's requests, to be asked once for all its outputs."""
        return [BatchLength(spec, batch.requests) for spec in self._lengths]

    def cuts(self, index: int) -> bool:
        """Whether this output is cut here, and not by rows."""
        return index in self._padded or index in self._sources

    def gathered(
        self, place: Place, batch: Batch, lengths: list[BatchLength], split: list[int] | None, blocks: InstanceBlocks
    ) -> list[Piece]:
        """One output of a whole batch, for each of its requests.

        Args:
            place: where the output is.
            batch: the batch.
            lengths: those of the batch.
            split: the bytes of each request, of a BYTES output.
            blocks: the instance's blocks.

        Raises:
            InternalError: the output does not have the shape that it is to be cut by.
        """
        index, offset, nbytes, shape = place
        if index in self._sources:
            return self._scattered(place, batch.requests, blocks)
        number, axis = self._padded[index]
        length = lengths[number]
        self._check(place, axis, length.padded, sum(length.rows))
        if self._spec.outputs[index].datatype is DataType.BYTES:
            parts = _texts(offset, shape, length.rows, split, blocks)
        elif axis == 1 and len(length.rows) == shape[0] and 0 < nbytes < LARGE_NBYTES * len(length.rows):
            return _single_rows(blocks.read(offset, nbytes), shape, length)
        else:
            array = self._array(place, blocks)
            ends = np.cumsum(length.rows).tolist()
            parts = [array[end - rows : end] for end, rows in zip(ends, length.rows, strict=True)]
        return [_cut(part, axis, size) for part, size in zip(parts, length.each, strict=True)]

    def own(self, place: Place, request: InferRequest, lengths: list[BatchLength], blocks: InstanceBlocks) -> Piece:
        """One output of a response that its model made for one request alone: cut unless it has its length already.

        Args:
            place: where the output is.
            request: the request that it answers.
            lengths: those of the batch.
            blocks: the instance's blocks.

        Raises:
            InternalError: its length is neither that of the batch nor that of the request.
        """
        index, offset, nbytes, shape = place
        if index in self._padded:
            number, axis = self._padded[index]
            length = lengths[number]
            size = length.of_request(request)
            if axis >= len(shape) or shape[axis] != size:
                self._check(place, axis, length.padded, request.plan.rows)
                if self._spec.outputs[index].datatype is DataType.BYTES:
                    return _cut(decode_bytes(blocks.read(offset, nbytes), shape), axis, size)
                return _cut(self._array(place, blocks), axis, size)
        return (blocks.view(offset, nbytes) if nbytes >= LARGE_NBYTES else blocks.read(offset, nbytes)), shape

    def _scattered(self, place: Place, requests: Sequence[InferRequest], blocks: InstanceBlocks) -> list[Piece]:
        """Cut by the shapes of an input (Triton ``backend_output_responder.cc``, ``ProcessBatchOutput``)."""
        index, offset, nbytes, _ = place
        tensor = self._spec.outputs[index]
        dims = (-1, *(tensor.dims if tensor.reshape is None else tensor.reshape))
        shapes = []
        for request in requests:
            source = input_shape(request, self._sources[index])
            shapes.append(tuple(source[axis] if size == -1 else size for axis, size in enumerate(dims)))
        sizes = [element_count(shape) * tensor.datatype.itemsize for shape in shapes]
        if sum(sizes) > nbytes:
            source_name = self._spec.inputs[self._sources[index]].name
            raise InternalError(
                f"model '{self._spec.name}' gave {nbytes} bytes of output '{tensor.name}', which batch_output cuts "
                f"into {sum(sizes)} for this batch, by the shapes of input '{source_name}'"
            )
        pieces: list[Piece] = []
        for size, shape in zip(sizes, shapes, strict=True):
            pieces.append((blocks.view(offset, size) if size >= LARGE_NBYTES else blocks.read(offset, size), shape))
            offset += size
        return pieces

    def _check(self, place: Place, axis: int, padded: int, rows: int) -> None:
        index, _, _, shape = place
        if axis >= len(shape) or shape[axis] != padded or shape[0] != rows:
            name = self._spec.outputs[index].name
            raise InternalError(
                f"model '{self._spec.name}' gave output '{name}' the shape {list(shape)} for a batch of {rows} rows "
                f"padded to {padded}; dimension {axis} must be {padded}, for the padding policy cuts it back; leave "
                "the output out of its 'outputs' if it does not follow the length"
            )

    def _array(self, place: Place, blocks: InstanceBlocks) -> NDArray[Any]:
        index, offset, nbytes, shape = place
        dtype = np.dtype(self._spec.outputs[index].datatype.numpy or "u2")
        data = blocks.view(offset, nbytes) if nbytes >= LARGE_NBYTES else blocks.read(offset, nbytes)
        return np.ndarray(shape, dtype, data)


def _single_rows(data: bytes, shape: Shape, length: BatchLength) -> list[Piece]:
    """The same for requests of one row each, whose real elements are the beginning of their row."""
    row_nbytes = len(data) // shape[0]
    element_nbytes = row_nbytes // length.padded
    dims = shape[2:]
    return [
        (data[start : start + size * element_nbytes], (1, size, *dims))
        for start, size in zip(range(0, len(data), row_nbytes), length.each, strict=True)
    ]


def _texts(
    offset: int, shape: Shape, rows: list[int], split: list[int] | None, blocks: InstanceBlocks
) -> list[NDArray[Any]]:
    """The rows of each request of a BYTES output."""
    assert split is not None
    parts = []
    for count, size in zip(rows, split, strict=True):
        parts.append(decode_bytes(blocks.read(offset, size), (count, *shape[1:])))
        offset += size
    return parts


def _cut(part: NDArray[Any], axis: int, size: int) -> Piece:
    cut = part.swapaxes(0, axis)[:size].swapaxes(0, axis)
    return (encode_bytes(cut) if part.dtype.hasobject else cut.tobytes()), cut.shape
