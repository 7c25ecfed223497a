"""Loads ensembles, after the models of their steps: checks them against those, and starts nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from shoal.caching.content import ModelContent
from shoal.caching.make import caching_sink
from shoal.config.check import check_config, check_tensors
from shoal.config.check_members import is_decoupled, member_problems
from shoal.config.compile import compile_spec
from shoal.config.model_config_pb2 import ModelConfig
from shoal.config.problem import Problem, Source
from shoal.config.spec import ModelSpec
from shoal.errors import ConfigError, ShoalError, nearest
from shoal.execution.ensemble import EnsembleRuntime
from shoal.repository.catalog import Catalog, ModelState, ServedModel
from shoal.repository.loader import LoaderSettings, VersionSource
from shoal.requests import LATEST


async def load_ensemble(source: VersionSource, settings: LoaderSettings, catalog: Catalog) -> ServedModel:
    """Load one version of an ensemble, whose models were tried to be loaded before.

    Raises:
        ShoalError: it does not fit them, or one of them is not there.
    """
    started_s = asyncio.get_running_loop().time()
    origin, model_dir = source.document.source, source.model_dir
    config = ModelConfig()
    config.CopyFrom(source.document.config)
    _raise_if(check_tensors(config, origin, model_dir))
    members = _members(config, origin, catalog)
    _raise_if(member_problems(config, origin, members))
    config.model_transaction_policy.decoupled = is_decoupled(config, members)
    _raise_if(check_config(config, origin, model_dir, settings.gpu_count))
    spec = compile_spec(config, source.version, model_dir, settings.gpu_count)
    recorder = settings.recorder(spec)
    runtime = EnsembleRuntime(spec, catalog.find, recorder, settings.runtime.clock, settings.runtime.queued)
    content = ModelContent(model_dir, source.version, config.SerializeToString(deterministic=True), {})
    sink = await caching_sink(
        settings.caching, spec, runtime, recorder, content, members=lambda: _contents(spec, catalog)
    )
    return ServedModel(spec, config, runtime, sink, asyncio.get_running_loop().time() - started_s, content)


def _raise_if(problems: Sequence[Problem]) -> None:
    if problems:
        raise ConfigError(map(str, problems))


def _contents(spec: ModelSpec, catalog: Catalog) -> list[ModelContent]:
    """What all models below an ensemble were made from; those that are not loaded now are left out."""
    contents: list[ModelContent] = []
    assert spec.ensemble is not None
    for step in spec.ensemble.steps:
        try:
            served = catalog.find(step.model_name, step.model_version)
        except ShoalError:
            continue
        contents.append(served.content)
        if served.spec.ensemble is not None:
            contents += _contents(served.spec, catalog)
    return contents


# --- the models of its steps ----------------------------------------------------------------------------------------


def _members(config: Any, source: Source, catalog: Catalog) -> dict[str, Any]:
    """The configuration of every step's model, by name.

    Raises:
        ConfigError: one is not loaded; every step that lacks its model is named.
    """
    members: dict[str, Any] = {}
    problems: list[Problem] = []
    for index, step in enumerate(config.ensemble_scheduling.step):
        path = f"ensemble_scheduling.step[{index}]"
        version = step.model_version or LATEST
        try:
            members[step.model_name] = catalog.find(step.model_name, version).config
        except ShoalError:
            problems.append(source.problem(*_absent(config.name, path, step.model_name, version, catalog)))
    _raise_if(problems)
    return members


def _absent(ensemble: str, path: str, name: str, version: int, catalog: Catalog) -> tuple[str, str]:
    """Which field names a model that is not loaded, and why it is not."""
    if name not in catalog.names():
        text = f"ensemble {ensemble} contains models that are not available or ambiguous: {name}"
        return f"{path}.model_name", text + nearest(name, catalog.names())
    ready = catalog.ready_versions(name)
    if ready and version != LATEST:
        text = f"ensemble '{ensemble}' depends on '{name}' whose required version {version} is not loaded."
        return f"{path}.model_version", f"{text} Loaded: {', '.join(map(str, ready))}; -1 is the latest"
    return f"{path}.model_name", (
        f"ensemble '{ensemble}' depends on '{name}' which has no loaded version. "
        f"Model '{name}' loading failed with error: {_failure(name, catalog)}"
    )


def _failure(name: str, catalog: Catalog) -> str:
    versions = [
        f"version {entry.version} is at UNAVAILABLE state: {entry.reason}"
        for entry in catalog
        if entry.name == name and entry.state is ModelState.UNAVAILABLE
    ]
    return "; ".join(filter(None, [catalog.failure(name), *versions]))


# --- in which order -------------------------------------------------------------------------------------------------


def load_order(ensembles: Mapping[str, Any]) -> tuple[list[str], dict[str, str]]:
    """The order in which ensembles can be loaded, each after those that are steps of it.

    Args:
        ensembles: their ``ModelConfig`` messages by name.

    Returns:
        Those that can be loaded, in order; and for each of those that depend on themselves the circle, as text.
    """
    steps = {
        name: {step.model_name for step in config.ensemble_scheduling.step} & ensembles.keys()
        for name, config in ensembles.items()
    }
    circles = {name: " -> ".join(circle) for name in steps if (circle := list(_circle(name, steps)))}
    order: list[str] = []
    waiting = {name: found - circles.keys() for name, found in steps.items() if name not in circles}
    while waiting:
        ready = [name for name, found in waiting.items() if found <= set(order)]
        order += ready
        for name in ready:
            del waiting[name]
    return order, circles


def _circle(name: str, steps: Mapping[str, set[str]]) -> Iterator[str]:
    """The shortest way from an ensemble over its steps back to it, both ends included; nothing if there is none."""
    came_from: dict[str, str] = {}
    front = [name]
    while front:
        found: list[str] = []
        for one in front:
            for step in sorted(steps[one]):
                if step not in came_from:
                    came_from[step] = one
                    found.append(step)
        if name in found:
            break
        front = found
    if name not in came_from:
        return
    way = [name]
    while (before := came_from[way[-1]]) != name:
        way.append(before)
    yield from [name, *reversed(way)]


def circle_problem(source: Source, circle: str) -> Problem:
    """The problem of an ensemble that depends on itself."""
    return source.problem("ensemble_scheduling.step", f"circular dependency between ensembles: {circle}")
