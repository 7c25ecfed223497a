"""The rules for what is made of a batch (``batch_input``) and cut by it (``batch_output``), for ragged batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from shoal.config.padding_check import backend_dims
from shoal.config.problem import Problem, Source
from shoal.datatypes import DataType
from shoal.errors import nearest

PYTHON = "python"


def batch_io_problems(config: Any, source: Source) -> list[Problem]:
    """What is wrong with ``batch_input`` and ``batch_output``.

    The Python backend gives its models neither, in Triton too; so of a Python model only what Triton's core checks is.
    """
    inputs = {tensor.name: tensor for tensor in config.input}
    outputs = {tensor.name: tensor for tensor in config.output}
    problems = []
    for index, batch_input in enumerate(config.batch_input):
        path = f"batch_input[{index}]"
        problems += _source_problems(batch_input, path, inputs, source)
        if batch_input.data_type not in (DataType.INT32.number, DataType.FP32.number):
            problems.append(source.problem(f"{path}.data_type", "must be TYPE_INT32 or TYPE_FP32"))
    for index, batch_output in enumerate(config.batch_output):
        path = f"batch_output[{index}]"
        problems += _source_problems(batch_output, path, inputs, source)
        problems += _target_problems(batch_output.target_name, f"{path}.target_name", outputs, source)
    if config.backend != PYTHON and not problems:
        problems += [source.problem(path, text) for path, text in _gathered_problems(config, inputs, outputs)]
    return problems


def _source_problems(tensor: Any, path: str, inputs: Any, source: Source) -> list[Problem]:
    place = f"{path}.source_input"
    problems = [
        source.problem(f"{place}[{index}]", f"there is no input '{name}'{nearest(name, inputs)}")
        for index, name in enumerate(tensor.source_input)
        if name not in inputs
    ]
    if len(tensor.source_input) != 1:
        kind = tensor.Kind.Name(tensor.kind)
        problems.append(source.problem(place, f"{kind} needs exactly 1 source input, found {len(tensor.source_input)}"))
    return problems


def _target_problems(names: Sequence[str], path: str, outputs: Any, source: Source) -> Iterator[Problem]:
    for index, name in enumerate(names):
        if name not in outputs:
            yield source.problem(f"{path}[{index}]", f"there is no output '{name}'{nearest(name, outputs)}")
        elif name in names[:index]:
            yield source.problem(f"{path}[{index}]", f"'{name}' stands here for the second time")


def _gathered_problems(config: Any, inputs: Any, outputs: Any) -> Iterator[tuple[str, str]]:
    """What a backend that gets the whole batch as one could not do."""
    if config.max_batch_size < 1:
        for field in ("batch_input", "batch_output"):
            if getattr(config, field):
                yield field, "needs a model with max_batch_size of 1 or more"
    taken = set(inputs)
    for index, batch_input in enumerate(config.batch_input):
        path = f"batch_input[{index}]"
        if inputs[batch_input.source_input[0]].optional:
            yield f"{path}.source_input", f"input '{batch_input.source_input[0]}' must not be optional"
        if not batch_input.target_name:
            yield f"{path}.target_name", "must name the model's input that gets it"
        for number, name in enumerate(batch_input.target_name):
            if name in taken:
                text = f"'{name}' is another input's name; an input that the server makes does not stand in input"
                yield f"{path}.target_name[{number}]", text
            taken.add(name)
    for index, batch_output in enumerate(config.batch_output):
        place = f"batch_output[{index}].target_name"
        for number, name in enumerate(batch_output.target_name):
            yield from _cut_problems(f"{place}[{number}]", outputs[name], inputs[batch_output.source_input[0]])


def _cut_problems(path: str, output: Any, source_input: Any) -> Iterator[tuple[str, str]]:
    """Each variable dimension of the output takes the size of the same dimension of the input."""
    dims, source_dims = backend_dims(output), backend_dims(source_input)
    if output.data_type == DataType.BYTES.number:
        yield path, f"'{output.name}' has data type TYPE_STRING, which cannot be cut by the shape of an input"
    if source_input.optional:
        yield path, f"'{output.name}' cannot be cut by the shape of an optional input, '{source_input.name}'"
    beyond = [place for place, dimension in enumerate(dims) if dimension == -1 and place >= len(source_dims)]
    if beyond:
        text = f"'{output.name}' has the dims {dims}, of which dimension {beyond[0]} varies"
        yield path, f"{text}; input '{source_input.name}', with dims {source_dims}, has no such dimension"
