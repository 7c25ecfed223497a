"""The rules for ensembles that one configuration can tell: steps, maps, and the flow of tensors between them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from shoal.config.platforms import ENSEMBLE
from shoal.config.problem import Problem, Source


def ensemble_problems(config: Any, source: Source) -> list[Problem]:
    """What is wrong with ``ensemble_scheduling``."""
    if not config.HasField("ensemble_scheduling"):
        if config.platform == ENSEMBLE:
            return [source.problem("platform", "an ensemble needs ensemble_scheduling with its steps")]
        return []
    problems = list(_shape_problems(config, source))
    steps = list(_step_problems(config, source))
    return problems + steps if problems or steps else list(_flow_problems(config, source))


def _shape_problems(config: Any, source: Source) -> Iterator[Problem]:
    if config.platform != ENSEMBLE:
        yield source.problem("platform", f"must be '{ENSEMBLE}' with ensemble_scheduling, found '{config.platform}'")
    for name in ("instance_group", "model_warmup"):
        if getattr(config, name):
            yield source.problem(name, "an ensemble has none; leave it out")
    if config.HasField("optimization"):
        yield source.problem("optimization", "an ensemble has none; leave it out")
    if not config.ensemble_scheduling.step:
        yield source.problem("ensemble_scheduling.step", "must have at least one step")


def _step_problems(config: Any, source: Source) -> Iterator[Problem]:
    written: dict[str, int] = {}
    inputs = {tensor.name for tensor in config.input}
    for index, step in enumerate(config.ensemble_scheduling.step):
        path = f"ensemble_scheduling.step[{index}]"
        if not step.model_name:
            yield source.problem(f"{path}.model_name", "must be given")
        for name in ("input_map", "output_map"):
            if not getattr(step, name):
                yield source.problem(f"{path}.{name}", "must map at least one tensor")
        for key, tensor in sorted(step.output_map.items()):
            if tensor in written:
                text = f"tensor '{tensor}' is written by step {written[tensor]} already"
                yield source.problem(f'{path}.output_map["{key}"]', text)
            if tensor in inputs:
                yield source.problem(f'{path}.output_map["{key}"]', f"tensor '{tensor}' is an input of the ensemble")
            written.setdefault(tensor, index)


def _flow_problems(config: Any, source: Source) -> Iterator[Problem]:
    """Every tensor must be made before it is used, and used after it was made."""
    steps = config.ensemble_scheduling.step
    available = _available(config)
    read = {tensor for step in steps for tensor in step.input_map.values()}
    written = {tensor for step in steps for tensor in step.output_map.values()}
    outputs = {tensor.name for tensor in config.output}
    for index, tensor in enumerate(config.input):
        if tensor.name not in read:
            yield source.problem(f"input[{index}]", f"input '{tensor.name}' is used by no step")
    for index, tensor in enumerate(config.output):
        if tensor.name not in available:
            yield source.problem(f"output[{index}]", f"output '{tensor.name}' is written by no step that can run")
    for index, step in enumerate(steps):
        path = f"ensemble_scheduling.step[{index}]"
        for key, name in sorted(step.input_map.items()):
            if name not in available:
                reason = "is made of itself" if name in written else "is neither an input nor written by a step"
                yield source.problem(f'{path}.input_map["{key}"]', f"tensor '{name}' {reason}")
        for key, name in sorted(step.output_map.items()):
            if name not in read | outputs:
                yield source.problem(f'{path}.output_map["{key}"]', f"tensor '{name}' is used by nothing")


def _available(config: Any) -> set[str]:
    """The tensors that can be computed from the inputs."""
    available = {tensor.name for tensor in config.input}
    waiting = list(config.ensemble_scheduling.step)
    while ready := [step for step in waiting if available.issuperset(step.input_map.values())]:
        available.update(tensor for step in ready for tensor in step.output_map.values())
        waiting = [step for step in waiting if step not in ready]
    return available
