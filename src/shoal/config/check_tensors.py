"""The rules for inputs and outputs: names, types, shapes, and the tensors that the server makes of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

from shoal.config.problem import Problem, Source
from shoal.datatypes import BY_CONFIG

TENSORRT = "tensorrt_plan"


def tensor_problems(config: Any, source: Source) -> list[Problem]:
    """What is wrong with the inputs and outputs."""
    problems = []
    if not config.input and not config.output:
        text = "the model has neither inputs nor outputs; list them, for the model itself does not tell"
        problems.append(source.problem("input", text))
    for list_name in ("input", "output"):
        tensors = getattr(config, list_name)
        for index, tensor in enumerate(tensors):
            problems += _tensor_problems(config, tensor, f"{list_name}[{index}]", source)
        problems += _name_problems(tensors, list_name, source)
    return problems


def _name_problems(tensors: Sequence[Any], list_name: str, source: Source) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for index, tensor in enumerate(tensors):
        if not tensor.name:
            yield source.problem(f"{list_name}[{index}].name", "must be given")
        elif tensor.name in first:
            text = f"'{tensor.name}' is the name of {list_name}[{first[tensor.name]}] as well"
            yield source.problem(f"{list_name}[{index}].name", text)
        first.setdefault(tensor.name, index)


def _tensor_problems(config: Any, tensor: Any, path: str, source: Source) -> list[Problem]:
    problems = []
    if tensor.data_type == 0:
        text = f"must be given, one of {', '.join(BY_CONFIG)}"
        problems.append(source.problem(f"{path}.data_type", text))
    problems += _dims_problems(tensor, path, source)
    problems += _reshape_problems(tensor, path, source, config.max_batch_size)
    problems += _layout_problems(config, tensor, path, source)
    return problems


def _dims_problems(tensor: Any, path: str, source: Source) -> list[Problem]:
    if not tensor.dims:
        text = "must be given; for a scalar use dims: [ 1 ] with reshape { shape: [ ] }"
        return [source.problem(f"{path}.dims", text)]
    return _dimension_problems(tensor.dims, f"{path}.dims", source)


def _dimension_problems(dims: Sequence[int], path: str, source: Source) -> list[Problem]:
    return [
        source.problem(f"{path}[{index}]", f"a dimension is 1 or more, or -1 when it varies, found {dimension}")
        for index, dimension in enumerate(dims)
        if dimension < 1 and dimension != -1
    ]


def _reshape_problems(tensor: Any, path: str, source: Source, max_batch_size: int) -> list[Problem]:
    if not tensor.HasField("reshape"):
        return []
    place = f"{path}.reshape.shape"
    shape, dims = list(tensor.reshape.shape), list(tensor.dims)
    problems = _dimension_problems(shape, place, source)
    if problems or any(dimension < 1 and dimension != -1 for dimension in dims):
        return problems
    if not shape and max_batch_size == 0:
        text = "must not be empty in a model without a batch dimension, for it has no scalar tensors"
        return [source.problem(place, text)]
    if _runs(shape) != _runs(dims):
        text = f"{shape} does not hold as many elements as dims {dims}, between each two variable dimensions"
        return [source.problem(place, text if -1 in shape + dims else f"{shape} and dims {dims} differ in size")]
    return []


def _runs(dims: Sequence[int]) -> list[int]:
    """The number of elements between the variable dimensions: [2, 3, -1, 4] has the runs 6 and 4."""
    runs: list[list[int]] = [[]]
    for dimension in dims:
        if dimension == -1:
            runs.append([])
        else:
            runs[-1].append(dimension)
    return [prod(run) for run in runs]


def _layout_problems(config: Any, tensor: Any, path: str, source: Source) -> Iterator[Problem]:
    """The rules for image formats, and for what only TensorRT has."""
    if "format" in tensor.DESCRIPTOR.fields_by_name and tensor.format != 0 and len(tensor.dims) != 3:
        name = tensor.Format.Name(tensor.format)
        yield source.problem(f"{path}.format", f"{name} needs 3 dims, found {len(tensor.dims)}")
    for flag, what in (("is_shape_tensor", "shape tensors"), ("is_non_linear_format_io", "non-linear formats")):
        if getattr(tensor, flag) and config.platform != TENSORRT:
            yield source.problem(f"{path}.{flag}", f"{what} are for platform {TENSORRT} only")
    if tensor.is_non_linear_format_io and len(tensor.dims) != 3:
        yield source.problem(f"{path}.is_non_linear_format_io", f"needs 3 dims, found {len(tensor.dims)}")
    if getattr(tensor, "allow_ragged_batch", False) and config.max_batch_size == 0:
        yield source.problem(f"{path}.allow_ragged_batch", "needs a model with max_batch_size of 1 or more")
