"""Loads one model version: completes its configuration, starts its workers, gives what serves it.

A configuration is completed in three steps: what the files tell (here), what the model tells (in its first worker, for
a model's code never runs in the server), and Triton's defaults for what is still open (here again). It is checked after
the first step and, its tensors included, after the last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shoal.backends import registry
from shoal.caching.content import ModelContent
from shoal.caching.make import ResponseCaching, caching_sink
from shoal.config.check import check_config, check_tensors
from shoal.config.compile import compile_spec
from shoal.config.complete import complete_config
from shoal.config.model_config_pb2 import ModelConfig
from shoal.config.prepare import prepare_config
from shoal.config.problem import Problem
from shoal.config.read import Document
from shoal.config.spec import ModelSpec
from shoal.errors import ConfigError
from shoal.execution.arena import Arena
from shoal.execution.fork_client import ForkClient
from shoal.execution.messages import LoadModel
from shoal.execution.recorder import Recorder
from shoal.execution.runtime import ModelRuntime, RuntimeSettings
from shoal.execution.worker_group import WorkerOrder
from shoal.execution.worker_process import WorkerProcess
from shoal.repository.batch_strategy import load_batch_rule
from shoal.repository.catalog import ServedModel
from shoal.requests import Sink
from shoal.scheduling.make import make_scheduler


@dataclass(frozen=True, slots=True)
class LoaderSettings:
    """What is the same for every model that a server loads.

    Attributes:
        client: the fork server.
        runtime: settings of every runtime.
        recorder: makes the recorder of a new model version.
        gpu_count: GPUs of this machine.
        auto_complete: whether models complete their configurations.
        backend_settings: the ``--backend-config`` settings by backend; those of "" hold for every backend.
        caching: the response cache, None when the server has none.
    """

    client: ForkClient
    runtime: RuntimeSettings
    recorder: Callable[[ModelSpec], Recorder]
    gpu_count: int = 0
    auto_complete: bool = True
    backend_settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    caching: ResponseCaching | None = None


def read_model(model_dir: Path, gpu_count: int) -> Document:
    """A model's configuration, completed from its files and checked as far as the files go.

    Raises:
        ConfigError: something is wrong; every problem is named.
    """
    document = prepare_config(model_dir, gpu_count)
    _raise_if(document.problems)
    return document


@dataclass(frozen=True, slots=True)
class VersionSource:
    """Where a model version comes from: the model's configuration, its folder, and the version's number."""

    document: Document
    model_dir: Path
    version: int


async def load_version(source: VersionSource, settings: LoaderSettings) -> ServedModel:
    """Load one version of a model and start its instances.

    Raises:
        ShoalError: it cannot be loaded; nothing of it is left behind.
    """
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    registry.traits(source.document.config.backend)  # an unknown backend is told before anything is started
    arena = Arena()
    worker = WorkerProcess(source.document.config.name)
    try:
        runtime, config, sink, content = await _start(source, settings, arena, worker)
    except BaseException:
        worker.abandon()
        arena.close()
        raise
    return ServedModel(runtime.spec, config, runtime, sink, loop.time() - started_s, content)


async def _start(
    source: VersionSource, settings: LoaderSettings, arena: Arena, worker: WorkerProcess
) -> tuple[ModelRuntime, Any, Sink, ModelContent]:
    document, model_dir = source.document, source.model_dir
    traits = registry.traits(document.config.backend)
    modules = list(traits.preload)
    load = _load_message(source, settings, arena)
    await worker.start(settings.client, modules, arena)
    config = ModelConfig.FromString(await worker.load(load))
    complete_config(config, model_dir, settings.gpu_count)
    _raise_if(check_config(config, document.source, model_dir, settings.gpu_count))
    _raise_if(check_tensors(config, document.source, model_dir))
    spec = compile_spec(config, source.version, model_dir, settings.gpu_count)
    load.config, load.complete = config.SerializeToString(), False
    order = WorkerOrder(settings.client, arena, modules, load, traits.takes_pieces)
    recorder = settings.recorder(spec)
    scheduler = make_scheduler(spec, load_batch_rule(spec, config, model_dir))
    runtime = ModelRuntime(spec, scheduler, recorder, order, settings.runtime)
    content = ModelContent(model_dir, source.version, config.SerializeToString(deterministic=True), load.options)
    sink = await caching_sink(settings.caching, spec, runtime, recorder, content)
    await runtime.start(share_worker=not traits.process_per_instance, loaded=worker)
    return runtime, config, sink, content


def _load_message(source: VersionSource, settings: LoaderSettings, arena: Arena) -> LoadModel:
    config = source.document.config
    backend = config.backend
    return LoadModel(
        backend=backend,
        config=config.SerializeToString(),
        complete=settings.auto_complete,
        repository=str(source.model_dir.parent),
        model_dir=str(source.model_dir),
        version=source.version,
        gpu_count=settings.gpu_count,
        arena_nbytes=arena.mapping.nbytes,
        options={**settings.backend_settings.get("", {}), **settings.backend_settings.get(backend, {})},
    )


def _raise_if(problems: list[Problem] | tuple[Problem, ...]) -> None:
    if problems:
        raise ConfigError(map(str, problems))
