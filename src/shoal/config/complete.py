"""The core's part of completing a configuration: what the model's folder and Triton's defaults say.

The backend's part (inputs, outputs and batching, read from the model itself) comes after it and is
``Backend.complete``; then ``complete_config`` is called once more, for what the backend switched on. Completing what is
complete changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from shoal.config.platforms import BY_BACKEND, BY_FILENAME, BY_PLATFORM, ENSEMBLE, KNOWN

SEQUENCE_IDLE_US = 1_000_000
"""``max_sequence_idle_microseconds`` when the configuration does not say."""

_CPU_INSTANCES = {"onnxruntime": 2}


def complete_config(config: Any, model_dir: Path, gpu_count: int) -> None:
    """Fill in what a ``ModelConfig`` leaves out, in place; nothing that it says is changed.

    Args:
        config: the message.
        model_dir: the model's folder; its name is the model's.
        gpu_count: GPUs of this machine; they are numbered from 0.
    """
    if not config.name:
        config.name = model_dir.name
    _complete_backend(config, _version_files(model_dir))
    _complete_policies(config)
    complete_instance_groups(config, gpu_count)


def complete_instance_groups(config: Any, gpu_count: int) -> None:
    """Give every instance group its name, kind, count and GPUs, and the model one group if it has none."""
    if config.HasField("ensemble_scheduling"):
        return
    if not config.instance_group:
        config.instance_group.add(name=config.name)
    for number, group in enumerate(config.instance_group):
        _complete_group(group, config, number, gpu_count)


def _version_files(model_dir: Path) -> frozenset[str]:
    """The names of what lies in the first version's folder."""
    try:
        versions = [entry for entry in model_dir.iterdir() if entry.is_dir() and _is_version(entry.name)]
        if not versions:
            return frozenset()
        first = min(versions, key=lambda entry: int(entry.name))
        return frozenset(entry.name for entry in first.iterdir())
    except OSError:
        return frozenset()  # the scan of the repository reports it


def _is_version(name: str) -> bool:
    return name == "0" or (name.isascii() and name.isdigit() and not name.startswith("0"))


def _complete_backend(config: Any, files: Iterable[str]) -> None:
    """Backend, platform and file name, each from the others or from the files (``model_config_utils.cc:1051-1230``)."""
    if config.platform == ENSEMBLE:
        return
    if not config.backend:
        config.backend = _backend(config, files)
    known = BY_BACKEND.get(config.backend)
    if known is None:
        return
    if not config.platform:
        config.platform = known.platform
    if not config.default_model_filename:
        config.default_model_filename = known.filename


def _backend(config: Any, files: Iterable[str]) -> str:
    if config.platform in BY_PLATFORM:
        return BY_PLATFORM[config.platform].backend
    if config.default_model_filename in BY_FILENAME:
        return BY_FILENAME[config.default_model_filename].backend
    if config.platform or config.default_model_filename:
        return ""
    found = [known.backend for known in KNOWN if known.filename in files]
    if found:
        return found[0]
    return _backend_in_name(config)


def _backend_in_name(config: Any) -> str:
    """A model named ``<name>.<backend>`` is of that backend, and its file is ``model.<backend>``."""
    backend = config.name.partition(".")[2]
    if backend:
        config.default_model_filename = f"model.{backend}"
    return str(backend)


def _complete_policies(config: Any) -> None:
    if config.version_policy.WhichOneof("policy_choice") is None:
        config.version_policy.latest.num_versions = 1
    if config.HasField("dynamic_batching"):
        _prefer_full_batches(config.dynamic_batching, config.max_batch_size)
    if config.HasField("sequence_batching"):
        _complete_sequences(config.sequence_batching, config.max_batch_size)
    if not config.HasField("ensemble_scheduling"):
        for buffer in ("input_pinned_memory", "output_pinned_memory"):
            if not config.optimization.HasField(buffer):
                getattr(config.optimization, buffer).enable = True


def _complete_sequences(batching: Any, max_batch_size: int) -> None:
    if batching.max_sequence_idle_microseconds == 0:
        batching.max_sequence_idle_microseconds = SEQUENCE_IDLE_US
    if batching.HasField("oldest"):
        _prefer_full_batches(batching.oldest, max_batch_size)


def _prefer_full_batches(batching: Any, max_batch_size: int) -> None:
    if not batching.preferred_batch_size and max_batch_size > 0:
        batching.preferred_batch_size.append(max_batch_size)


def _complete_group(group: Any, config: Any, number: int, gpu_count: int) -> None:
    if not group.name:
        group.name = f"{config.name}_{number}"
    if group.kind == group.KIND_AUTO:
        present = gpu_count > 0 and all(0 <= gpu < gpu_count for gpu in group.gpus)
        group.kind = group.KIND_GPU if present else group.KIND_CPU
    if group.count == 0:
        group.count = _CPU_INSTANCES.get(config.backend, 1) if group.kind == group.KIND_CPU else 1
    if group.kind == group.KIND_GPU and not group.gpus:
        group.gpus.extend(range(gpu_count))
