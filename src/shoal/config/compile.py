"""Compiles a complete, checked configuration into the ModelSpec that the rest of Shoal reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shoal.config.complete import complete_instance_groups
from shoal.config.spec import (
    BatchingSpec,
    InstanceKind,
    InstanceSpec,
    ModelSpec,
    QueuePolicySpec,
    TensorSpec,
    TimeoutAction,
)
from shoal.datatypes import BY_NUMBER
from shoal.errors import ConfigError

_KINDS = {1: InstanceKind.GPU, 2: InstanceKind.CPU, 3: InstanceKind.MODEL}


def compile_spec(config: Any, version: int, model_dir: Path, gpu_count: int) -> ModelSpec:
    """Make the spec of one version of a model.

    Args:
        config: the ``ModelConfig`` message, complete and without problems; it is not changed.
        version: the version.
        model_dir: the model's folder, where its label files are.
        gpu_count: GPUs of this machine, for instance groups that leave the choice to the server.

    Raises:
        ConfigError: a label file cannot be read.
    """
    return ModelSpec(
        name=config.name,
        version=version,
        backend=config.backend,
        platform=config.platform or config.backend,
        max_batch_size=config.max_batch_size,
        inputs=tuple(_input(tensor) for tensor in config.input),
        outputs=tuple(_output(tensor, model_dir) for tensor in config.output),
        instances=_instances(config, gpu_count),
        batching=_batching(config.dynamic_batching) if config.HasField("dynamic_batching") else None,
        parameters={name: config.parameters[name].string_value for name in config.parameters},
        filename=config.default_model_filename,
        metric_tags=dict(config.metric_tags),
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
        InstanceSpec(f"{group.name}_{number}", _KINDS[group.kind], device)
        for group in resolved.instance_group
        for number in range(group.count)
        for device in (group.gpus if group.kind == group.KIND_GPU else (0,))
    )


def _batching(batching: Any) -> BatchingSpec:
    policies = batching.priority_queue_policy
    return BatchingSpec(
        preferred_batch_sizes=tuple(batching.preferred_batch_size),
        max_queue_delay_us=batching.max_queue_delay_microseconds,
        preserve_ordering=batching.preserve_ordering,
        priority_levels=batching.priority_levels,
        default_priority_level=batching.default_priority_level,
        default_queue_policy=_policy(batching.default_queue_policy),
        priority_queue_policies={level: _policy(policies[level]) for level in sorted(policies)},
    )


def _policy(policy: Any) -> QueuePolicySpec:
    return QueuePolicySpec(
        timeout_action=TimeoutAction(policy.TimeoutAction.Name(policy.timeout_action)),
        default_timeout_us=policy.default_timeout_microseconds,
        allow_timeout_override=policy.allow_timeout_override,
        max_queue_size=policy.max_queue_size,
    )
