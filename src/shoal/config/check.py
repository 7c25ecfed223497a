"""Checks a configuration as Triton does, and finds all that is wrong in one go.

Two steps, because inputs and outputs may come from the model itself: ``check_config`` needs the core's completion
only, ``check_tensors`` the backend's as well. The rules are those of ``model_config_utils.cc`` in Triton's core.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shoal.config.batch_strategy import strategy_problems
from shoal.config.check_batch_io import batch_io_problems
from shoal.config.check_ensemble import ensemble_problems
from shoal.config.check_scheduling import cache_problems, dynamic_batching_problems
from shoal.config.check_sequences import sequence_batching_problems, sequence_tensor_problems
from shoal.config.check_tensors import tensor_problems
from shoal.config.latency_target import latency_target_problems
from shoal.config.padding_check import padding_problems
from shoal.config.platforms import BY_BACKEND, BY_PLATFORM, ENSEMBLE, KNOWN, ONE_RESPONSE
from shoal.config.problem import Problem, Source
from shoal.config.unsupported import unsupported_problems
from shoal.errors import nearest


def check_config(config: Any, source: Source, model_dir: Path, gpu_count: int) -> list[Problem]:
    """What is wrong with a configuration that ``complete_config`` has been over, its tensors aside.

    Args:
        config: the ``ModelConfig`` message.
        source: where it came from.
        model_dir: the model's folder.
        gpu_count: GPUs of this machine.
    """
    problems = _identity_problems(config, source, model_dir)
    problems += _version_policy_problems(config, source)
    problems += _instance_group_problems(config, source, gpu_count)
    problems += _decoupled_problems(config, source)
    problems += dynamic_batching_problems(config, source)
    problems += latency_target_problems(config, source)
    problems += cache_problems(config, source)
    problems += sequence_batching_problems(config, source, model_dir)
    problems += ensemble_problems(config, source)
    problems += _metrics_problems(config, source)
    return problems + unsupported_problems(config, source)


def check_tensors(config: Any, source: Source, model_dir: Path) -> list[Problem]:
    """What is wrong with the inputs and outputs of a configuration that the backend has completed."""
    problems = tensor_problems(config, source)
    for index, output in enumerate(config.output):
        if output.label_filename and not (model_dir / output.label_filename).is_file():
            text = f"there is no file {model_dir / output.label_filename}"
            problems.append(source.problem(f"output[{index}].label_filename", text))
    problems += sequence_tensor_problems(config, source)
    problems += batch_io_problems(config, source) + padding_problems(config, source)
    return problems + strategy_problems(config, source, model_dir)


def _identity_problems(config: Any, source: Source, model_dir: Path) -> list[Problem]:
    """Name, backend, platform and batch size."""
    problems = []
    if config.name != model_dir.name:
        text = (
            f"'{config.name}' is not the name of the model's folder, '{model_dir.name}'; leave it out or make it equal"
        )
        problems.append(source.problem("name", text))
    if config.max_batch_size < 0:
        text = f"must be 0 (no batch dimension) or more, found {config.max_batch_size}"
        problems.append(source.problem("max_batch_size", text))
    return problems + _backend_problems(config, source)


def _decoupled_problems(config: Any, source: Source) -> list[Problem]:
    if not config.model_transaction_policy.decoupled or config.backend not in ONE_RESPONSE:
        return []
    text = f"must be false: the backend '{config.backend}' gives each request exactly one response"
    return [source.problem("model_transaction_policy.decoupled", text)]


def _backend_problems(config: Any, source: Source) -> list[Problem]:
    if config.platform == ENSEMBLE:
        if config.backend:
            return [source.problem("backend", "an ensemble has no backend; leave it out")]
        return []
    if not config.backend:
        return [_no_backend(config, source)]
    known = BY_BACKEND.get(config.backend)
    if known and known.platform and config.platform != known.platform:
        text = f"'{config.platform}' does not go with backend '{config.backend}', whose platform is '{known.platform}'"
        return [source.problem("platform", text)]
    return []


def _no_backend(config: Any, source: Source) -> Problem:
    if config.platform:
        allowed = ", ".join((*BY_PLATFORM, ENSEMBLE))
        hint = nearest(config.platform, (*BY_PLATFORM, ENSEMBLE))
        text = f"unknown platform '{config.platform}'; set backend instead, or use one of {allowed}{hint}"
        return source.problem("platform", text)
    files = ", ".join(known.filename for known in KNOWN)
    text = f"neither given nor to be told from the files of the first version; set backend, or add one of {files}"
    return source.problem("backend", text)


def _version_policy_problems(config: Any, source: Source) -> list[Problem]:
    policy = config.version_policy
    if policy.HasField("latest") and policy.latest.num_versions == 0:
        return [source.problem("version_policy.latest.num_versions", "must be 1 or more, or no version is served")]
    if policy.HasField("specific") and not policy.specific.versions:
        return [source.problem("version_policy.specific.versions", "must name at least one version")]
    return [
        source.problem(f"version_policy.specific.versions[{index}]", f"a version is 0 or more, found {version}")
        for index, version in enumerate(policy.specific.versions)
        if version < 0
    ]


def _instance_group_problems(config: Any, source: Source, gpu_count: int) -> list[Problem]:
    if config.HasField("ensemble_scheduling"):
        return []
    problems = []
    for index, group in enumerate(config.instance_group):
        problems += _group_problems(config, group, f"instance_group[{index}]", source, gpu_count)
    if config.instance_group and all(group.passive for group in config.instance_group):
        text = "every instance is passive, so no request would ever be answered; set it to false for one group"
        problems.append(source.problem("instance_group[0].passive", text))
    return problems


def _group_problems(config: Any, group: Any, path: str, source: Source, gpu_count: int) -> list[Problem]:
    problems = []
    if group.count < 1:
        problems.append(source.problem(f"{path}.count", f"must be 1 or more, found {group.count}"))
    if group.profile and config.backend != "tensorrt":
        problems.append(source.problem(f"{path}.profile", "optimization profiles are for TensorRT models only"))
    if group.kind != group.KIND_GPU:
        if group.gpus:
            kind = group.Kind.Name(group.kind)
            problems.append(source.problem(f"{path}.gpus", f"an instance group of {kind} must not list GPUs"))
        return problems
    if gpu_count == 0:
        text = "KIND_GPU, but this machine has no GPU that Shoal can use; use KIND_CPU, or KIND_AUTO for either"
        return [*problems, source.problem(f"{path}.kind", text)]
    present = f"GPU 0 to {gpu_count - 1}" if gpu_count > 1 else "GPU 0"
    return problems + [
        source.problem(f"{path}.gpus[{number}]", f"there is no GPU {gpu} here, only {present}")
        for number, gpu in enumerate(group.gpus)
        if not 0 <= gpu < gpu_count
    ]


def _metrics_problems(config: Any, source: Source) -> list[Problem]:
    problems = []
    for index, control in enumerate(config.model_metrics.metric_control):
        path = f"model_metrics.metric_control[{index}]"
        if not control.metric_identifier.family:
            problems.append(source.problem(f"{path}.metric_identifier.family", "must name the metric"))
        if not control.histogram_options.buckets:
            problems.append(source.problem(f"{path}.histogram_options.buckets", "must have at least one bucket"))
    return problems
