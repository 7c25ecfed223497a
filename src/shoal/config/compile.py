"""Compiles a complete, checked configuration into the ModelSpec that the rest of Shoal reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from shoal.config.compile_sequence import CompiledSequence, compile_sequence
from shoal.config.complete import complete_instance_groups
from shoal.config.latency_target import latency_target_us
from shoal.config.padding_check import backend_dims, compile_padding, made_by_padding
from shoal.config.spec import (
    BatchingSpec,
    BatchInputSpec,
    BatchOutputSpec,
    EnsembleSpec,
    InstanceKind,
    InstanceSpec,
    ModelSpec,
    QueuePolicySpec,
    ResourceSpec,
    StepSpec,
    TensorSpec,
    TimeoutAction,
)
from shoal.datatypes import BY_NUMBER
from shoal.errors import ConfigError
from shoal.requests import LATEST

_KINDS = {1: InstanceKind.GPU, 2: InstanceKind.CPU, 3: InstanceKind.MODEL}


def compile_spec(config: Any, version: int, model_dir: Path, gpu_count: int) -> ModelSpec:
    """Make the spec of one version of a model.

    Args:
        config: the ``ModelConfig`` message, complete and without problems; it is not changed.
        version: the version.
        model_dir: the model's folder, where its label files are.
        gpu_count: GPUs of this machine, for instance groups that leave the choice to the server.

    Raises:
        ConfigError: a label file, or the file of an initial state, cannot be read.
    """
    sequence: CompiledSequence | _NoSequence = (
        compile_sequence(config, model_dir) if config.HasField("sequence_batching") else _NO_SEQUENCE
    )
    for_padding = made_by_padding(config)
    inputs = tuple(_input(tensor) for tensor in config.input if tensor.name not in for_padding)
    names = [tensor.name for tensor in inputs]
    batch_inputs, derived = _batch_inputs(config, names, len(sequence.made_inputs))
    masks = tuple(_input(tensor) for name in for_padding for tensor in config.input if tensor.name == name)
    first_mask = len(inputs) + len(sequence.made_inputs) + len(derived)
    return ModelSpec(
        name=config.name,
        version=version,
        backend=config.backend,
        platform=config.platform or config.backend,
        max_batch_size=config.max_batch_size,
        inputs=inputs,
        outputs=tuple(_output(tensor, model_dir) for tensor in config.output),
        instances=_instances(config, gpu_count),
        batching=_batching(config) if config.HasField("dynamic_batching") else None,
        parameters={name: config.parameters[name].string_value for name in config.parameters},
        filename=config.default_model_filename,
        metric_tags=dict(config.metric_tags),
        sequence=sequence.spec,
        ensemble=_ensemble(config.ensemble_scheduling) if config.HasField("ensemble_scheduling") else None,
        decoupled=config.model_transaction_policy.decoupled,
        cached=config.response_cache.enable,
        made_inputs=sequence.made_inputs + derived + masks,
        made_outputs=sequence.made_outputs,
        batch_inputs=batch_inputs,
        batch_outputs=_batch_outputs(config, names),
        padding=compile_padding(config, names, first_mask),
    )


class _NoSequence(NamedTuple):
    """What a model without sequences has in place of ``CompiledSequence``."""

    spec: None = None
    made_inputs: tuple[TensorSpec, ...] = ()
    made_outputs: tuple[TensorSpec, ...] = ()


_NO_SEQUENCE = _NoSequence()


def _ensemble(scheduling: Any) -> EnsembleSpec:
    steps = [
        StepSpec(step.model_name, step.model_version or LATEST, dict(step.input_map), dict(step.output_map))
        for step in scheduling.step
    ]
    return EnsembleSpec(tuple(steps), scheduling.max_inflight_requests)


def _batch_inputs(
    config: Any, sources: Sequence[str], first: int
) -> tuple[tuple[BatchInputSpec, ...], tuple[TensorSpec, ...]]:
    """The derived inputs, and the tensors that carry them, which are numbered from ``first``."""
    specs: list[BatchInputSpec] = []
    tensors: list[TensorSpec] = []
    for entry in config.batch_input:
        datatype = BY_NUMBER[entry.data_type]
        numbers = range(first + len(tensors), first + len(tensors) + len(entry.target_name))
        source = sources.index(entry.source_input[0])
        kind = entry.Kind.Name(entry.kind)
        dims = (_rank(config, entry.source_input[0]),) if kind == "BATCH_ITEM_SHAPE" else ()
        tensors += [TensorSpec(name, datatype, dims) for name in entry.target_name]
        specs.append(BatchInputSpec(kind, tuple(numbers), datatype, source))
    return tuple(specs), tuple(tensors)


def _rank(config: Any, name: str) -> int:
    """How many dims an input has for the backend."""
    return next(len(backend_dims(tensor)) for tensor in config.input if tensor.name == name)


def _batch_outputs(config: Any, sources: Sequence[str]) -> tuple[BatchOutputSpec, ...]:
    outputs = [tensor.name for tensor in config.output]
    return tuple(
        BatchOutputSpec(tuple(map(outputs.index, entry.target_name)), sources.index(entry.source_input[0]))
        for entry in config.batch_output
    )


def _input(tensor: Any) -> TensorSpec:
    return TensorSpec(
        name=tensor.name,
        datatype=BY_NUMBER[tensor.data_type],
        dims=tuple(tensor.dims),
        reshape=tuple(tensor.reshape.shape) if tensor.HasField("reshape") else None,
        optional=tensor.optional,
        allow_ragged_batch=tensor.allow_ragged_batch,
        is_shape_tensor=tensor.is_shape_tensor,
    )


def _output(tensor: Any, model_dir: Path) -> TensorSpec:
    return TensorSpec(
        name=tensor.name,
        datatype=BY_NUMBER[tensor.data_type],
        dims=tuple(tensor.dims),
        reshape=tuple(tensor.reshape.shape) if tensor.HasField("reshape") else None,
        is_shape_tensor=tensor.is_shape_tensor,
        labels=_labels(model_dir / tensor.label_filename) if tensor.label_filename else (),
    )


def _labels(path: Path) -> tuple[str, ...]:
    try:
        return tuple(path.read_text("utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: the labels cannot be read: {error}"]) from None


def _instances(config: Any, gpu_count: int) -> tuple[InstanceSpec, ...]:
    """Group by group, number by number, GPU by GPU; those on several GPUs share a name, as in Triton."""
    resolved = type(config)()
    resolved.CopyFrom(config)
    complete_instance_groups(resolved, gpu_count)
    return tuple(
        InstanceSpec(
            f"{group.name}_{number}",
            _KINDS[group.kind],
            device,
            resources=tuple(ResourceSpec(r.name, r.count, getattr(r, "global")) for r in group.rate_limiter.resources),
            priority=group.rate_limiter.priority or 1,
            passive=group.passive,
        )
        for group in resolved.instance_group
        for number in range(group.count)
        for device in (group.gpus if group.kind == group.KIND_GPU else (0,))
    )


def _batching(config: Any) -> BatchingSpec:
    batching = config.dynamic_batching
    policies = batching.priority_queue_policy
    return BatchingSpec(
        preferred_batch_sizes=tuple(batching.preferred_batch_size),
        max_queue_delay_us=batching.max_queue_delay_microseconds,
        preserve_ordering=batching.preserve_ordering,
        priority_levels=batching.priority_levels,
        default_priority_level=batching.default_priority_level,
        default_queue_policy=_policy(batching.default_queue_policy),
        priority_queue_policies={level: _policy(policies[level]) for level in sorted(policies)},
        latency_target_us=latency_target_us(config),
    )


def _policy(policy: Any) -> QueuePolicySpec:
    return QueuePolicySpec(
        timeout_action=TimeoutAction(policy.TimeoutAction.Name(policy.timeout_action)),
        default_timeout_us=policy.default_timeout_microseconds,
        allow_timeout_override=policy.allow_timeout_override,
        max_queue_size=policy.max_queue_size,
    )
