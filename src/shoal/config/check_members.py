"""The rules between an ensemble and the models of its steps (Triton ``ensemble_utils.cc``), in Triton's words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from shoal.config.ensemble_flow import FlowStep, follow
from shoal.config.padding_check import made_by_padding
from shoal.config.problem import Problem, Source
from shoal.datatypes import BY_NUMBER
from shoal.errors import nearest
from shoal.requests import Shape

_ANY = -1


class _Tensor(NamedTuple):
    """What one model says of a tensor of the ensemble; ``full`` has the batch dimension if the model has one."""

    model: str
    datatype: int
    dims: Shape
    full: Shape


def member_problems(config: Any, source: Source, members: Mapping[str, Any]) -> list[Problem]:
    """What does not fit together.

    Args:
        config: the ensemble's ``ModelConfig`` message, without problems of its own.
        source: where it came from.
        members: the ``ModelConfig`` of every step's model, by name; one that does not say its inputs or outputs (for
            its model will) is checked as far as it goes.
    """
    tensors = dict(_own_tensors(config))
    problems: list[Problem] = []
    for index, step in enumerate(config.ensemble_scheduling.step):
        member = members[step.model_name]
        path = f"ensemble_scheduling.step[{index}]"
        problems += _batch_size_problems(config, source, path, member)
        mapping = _Mapping(config.name, source, path, step, member)
        problems += mapping.input_problems(tensors)
        problems += mapping.output_problems(tensors)
    return problems or list(_decoupled_problems(config, source, members))


def flow_steps(config: Any, members: Mapping[str, Any]) -> list[FlowStep]:
    """The ensemble's steps as ``ensemble_flow`` looks at them."""
    return [
        FlowStep(
            frozenset(step.input_map.values()),
            frozenset(step.output_map.values()),
            members[step.model_name].model_transaction_policy.decoupled,
        )
        for step in config.ensemble_scheduling.step
    ]


def is_decoupled(config: Any, members: Mapping[str, Any]) -> bool:
    """Whether a model of its steps makes the ensemble give any number of responses."""
    return any(step.decoupled for step in flow_steps(config, members))


def _own_tensors(config: Any) -> Iterator[tuple[str, _Tensor]]:
    for tensor in (*config.input, *config.output):
        dims = tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims
        yield tensor.name, _described(config, tensor.data_type, dims)


def _described(config: Any, datatype: int, dims: Sequence[int]) -> _Tensor:
    shape = tuple(dims)
    return _Tensor(config.name, datatype, shape, (_ANY, *shape) if config.max_batch_size > 0 else shape)


def _batch_size_problems(config: Any, source: Source, path: str, member: Any) -> Iterator[Problem]:
    """A model without batching may be a step of an ensemble with it as long as the full shapes fit."""
    if 0 != member.max_batch_size < config.max_batch_size:
        text = (
            f"ensemble {config.name} allows maximum batch size {config.max_batch_size}, but it contains model "
            f"{member.name} which only allows maximum batch size to be {member.max_batch_size}; "
            f"set the ensemble's max_batch_size to {member.max_batch_size} or less, or raise the model's"
        )
        yield source.problem(f"{path}.model_name", text)


class _Mapping:
    """One step's maps, against the inputs and outputs of its model."""

    def __init__(self, ensemble: str, source: Source, path: str, step: Any, member: Any) -> None:
        self._prefix = f"in ensemble {ensemble}, "
        self._source = source
        self._path = path
        self._step = step
        self._member = member

    def input_problems(self, tensors: dict[str, _Tensor]) -> Iterator[Problem]:
        """Every mapped input must be one, every required one must be mapped, and types and shapes must fit."""
        made = made_by_padding(self._member)
        inputs = {tensor.name: tensor for tensor in self._member.input if tensor.name not in made}
        if not inputs:
            return
        for name, tensor in sorted(self._step.input_map.items()):
            path = f'{self._path}.input_map["{name}"]'
            if name in inputs:
                yield from self._mismatch(path, tensors, tensor, inputs[name])
                continue
            text = f"ensemble tensor {tensor} is mapping to non-existing input {name} in model {self._member.name}"
            yield self._source.problem(path, self._prefix + text + nearest(name, inputs))
        for name, known in inputs.items():
            if name not in self._step.input_map and not known.optional:
                text = f"input {name} in model {self._member.name} is not mapped to any ensemble tensors"
                yield self._source.problem(f"{self._path}.input_map", self._prefix + text)

    def output_problems(self, tensors: dict[str, _Tensor]) -> Iterator[Problem]:
        """Every mapped output must be one, and types and shapes must fit."""
        outputs = {tensor.name: tensor for tensor in self._member.output}
        if not outputs:
            return
        for name, tensor in sorted(self._step.output_map.items()):
            path = f'{self._path}.output_map["{name}"]'
            if name in outputs:
                yield from self._mismatch(path, tensors, tensor, outputs[name])
                continue
            text = f"ensemble tensor {tensor} is mapped from non-existing output {name} in model {self._member.name}"
            yield self._source.problem(path, self._prefix + text + nearest(name, outputs))

    def _mismatch(self, path: str, tensors: dict[str, _Tensor], name: str, declared: Any) -> Iterator[Problem]:
        """What the step's model says of a tensor, against what was said of it before."""
        found = _described(self._member, declared.data_type, declared.dims)
        known = tensors.setdefault(name, found)
        if not declared.data_type or not declared.dims or not known.datatype or not known.dims:
            return
        if known.datatype != found.datatype:
            text = (
                f"inconsistent data type: {BY_NUMBER[known.datatype].config} is inferred from model {known.model} "
                f"while {BY_NUMBER[found.datatype].config} is inferred from model {found.model}"
            )
        elif not _compatible(known.dims, found.dims) and not _compatible(known.full, found.full):
            text = (
                f"inconsistent shape: {_text(known.full)} is inferred from model {known.model} "
                f"while {_text(found.full)} is inferred from model {found.model}"
            )
        else:
            return
        yield self._source.problem(path, f"{self._prefix}ensemble tensor {name}: {text}")


def _compatible(one: Shape, other: Shape) -> bool:
    """Whether two shapes are equal where both are fixed; what is variable is checked for every request."""
    return len(one) == len(other) and all(
        left == right or _ANY in (left, right) for left, right in zip(one, other, strict=True)
    )


def _text(shape: Shape) -> str:
    return f"[{','.join(map(str, shape))}]"


def _decoupled_problems(config: Any, source: Source, members: Mapping[str, Any]) -> Iterator[Problem]:
    flow = follow((tensor.name for tensor in config.input), flow_steps(config, members))
    text = "receives inputs originated from different decoupled models"
    for index in flow.mixed:
        step = config.ensemble_scheduling.step[index]
        yield source.problem(
            f"ensemble_scheduling.step[{index}].input_map",
            f"in ensemble {config.name}, step of model '{step.model_name}' {text}: what a decoupled model "
            "gives several times cannot be joined with a tensor that there is once",
        )
    if len({flow.regions[tensor.name] for tensor in config.output if tensor.name in flow.regions}) > 1:
        yield source.problem(
            "output",
            f"in ensemble {config.name}, step of model '{config.name}' {text}: all outputs must come from "
            "the same responses of the same decoupled model",
        )
