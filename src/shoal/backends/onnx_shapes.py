"""The shapes of an ONNX model's outputs, as far as its inputs' shapes tell them before it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shoal.backends.contract import Array
from shoal.backends.onnx_signature import OnnxTensor
from shoal.datatypes import element_count
from shoal.requests import Shape

Source = tuple[str, int]
"""Where a variable size is found: the input's name and the axis."""


class OutputShapes:
    """Resolves the variable sizes of outputs: ONNX gives equal sizes equal names.

    Args:
        inputs: the model's inputs.
        outputs: the outputs to resolve.
        batched: whether the first dimension is the batch.

    Attributes:
        known: whether the shapes of all outputs can be told.
    """

    def __init__(self, inputs: Sequence[OnnxTensor], outputs: Sequence[OnnxTensor], *, batched: bool) -> None:
        sources: dict[str, Source] = {}
        for tensor in inputs:
            for axis, size in enumerate(tensor.dims):
                if isinstance(size, str):
                    sources.setdefault(size, (tensor.name, axis))
        self._batched = batched
        self._sizes = {tensor.name: [_source(size, sources) for size in tensor.dims] for tensor in outputs}
        self.known = all(sizes and None not in sizes for sizes in self._sizes.values())

    def shape(self, output: str, inputs: Mapping[str, Array]) -> Shape:
        """The shape that an output will have for these inputs."""
        return tuple(
            inputs[size[0]].shape[size[1]] if isinstance(size, tuple) else size or 0 for size in self._sizes[output]
        )

    def row_nbytes(self, itemsizes: Mapping[str, int]) -> int | None:
        """The bytes of all outputs per row (altogether for a model without batching); None when that varies."""
        total = 0
        for name, sizes in self._sizes.items():
            fixed = sizes[1:] if self._batched else sizes
            if not all(isinstance(size, int) for size in fixed):
                return None
            total += itemsizes[name] * element_count(tuple(size for size in fixed if isinstance(size, int)))
        return total


def _source(size: int | str | None, sources: Mapping[str, Source]) -> int | Source | None:
    return sources.get(size) if isinstance(size, str) else size
