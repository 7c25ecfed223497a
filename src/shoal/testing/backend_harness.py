"""Loads a model and runs requests through it as a worker does, in this process and without a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from shoal.backends.contract import (
    Array,
    Backend,
    BatchResult,
    Instance,
    LoadContext,
    Model,
    ModelBatch,
    ModelFiles,
    OutputRoom,
    RequestInfo,
    RequestResult,
)
from shoal.config.check import check_config, check_tensors
from shoal.config.compile import compile_spec
from shoal.config.complete import complete_config
from shoal.config.read import read_config
from shoal.config.render import config_to_json
from shoal.config.spec import ModelSpec
from shoal.errors import ConfigError

Tensors = Mapping[str, Array]
"""A request's inputs or a response's outputs, by name."""


class NoRoom:
    """An output room that never has any: the backend must bring its own memory."""

    def array(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array | None:  # noqa: ARG002
        """None."""
        return None


class PlentyOfRoom:
    """An output room that always has some, filled with 0xAB so that what is not written shows.

    Attributes:
        given: the arrays handed out, by output name.
    """

    def __init__(self) -> None:
        self.given: dict[str, Array] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array | None:
        """A fresh array, or None for a type without a fixed size."""
        if dtype.hasobject:
            return None
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        self.given[name] = np.full(nbytes, 0xAB, np.uint8).view(dtype).reshape(shape)
        return self.given[name]


@dataclass(slots=True)
class Loaded:
    """A loaded model and what it was loaded with.

    Attributes:
        spec: its spec.
        config: the completed ``ModelConfig`` message.
        model: the model.
        outputs: the names of its outputs, those that the server keeps (states) included.
        public: the names of those that clients may ask for.
        states: the names of those that the server needs of every run.
    """

    spec: ModelSpec
    config: Any
    model: Model
    outputs: tuple[str, ...] = field(init=False)
    public: tuple[str, ...] = field(init=False)
    states: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.outputs = tuple(tensor.name for tensor in self.spec.all_outputs)
        self.public = tuple(tensor.name for tensor in self.spec.outputs)
        states = self.spec.sequence.states if self.spec.sequence is not None else ()
        self.states = frozenset(self.outputs[state.output] for state in states)

    def instance(self, number: int = 0) -> Instance:
        """A new instance, like the model's first one but with a name of its own."""
        first = self.spec.instances[0]
        return self.model.instance(replace(first, name=f"{first.name}_{number}") if number else first)

    def batch(self, requests: Sequence[Tensors]) -> ModelBatch:
        """The requests gathered as the server gathers them."""
        batched = self.spec.max_batch_size > 0
        rows = [len(next(iter(request.values()))) if batched else 1 for request in requests]
        inputs = dict(requests[0])
        if len(requests) > 1:
            inputs = {name: np.concatenate([request[name] for request in requests]) for name in inputs}
        return ModelBatch(inputs, rows, [RequestInfo(outputs=self.public)] * len(requests), batched)


def load(backend: Backend, model_dir: Path, version: int = 1, cores: float = 2.0) -> Loaded:
    """Load a model as a worker does: read its configuration, complete and check it, load it.

    Args:
        backend: the backend.
        model_dir: the model's folder.
        version: the version to load.
        cores: the cores that the model is told it may use.

    Raises:
        ConfigError: the configuration is wrong.
        ShoalError: the backend cannot load the model.
    """
    document = read_config(model_dir)
    config, source = document.config, document.source
    problems = list(document.problems)
    files = ModelFiles(model_dir.parent, model_dir, model_dir / str(version))
    if not problems:
        complete_config(config, model_dir, 0)
        backend.complete(config, files)
        complete_config(config, model_dir, 0)
        problems = [*check_config(config, source, model_dir, 0), *check_tensors(config, source, model_dir)]
    if problems:
        raise ConfigError(map(str, problems))
    spec = compile_spec(config, version, model_dir, 0)
    return Loaded(spec, config, backend.load(LoadContext(spec, config_to_json(config), files, cores)))


def run(loaded: Loaded, instance: Instance, requests: Sequence[Tensors], room: OutputRoom) -> list[RequestResult]:
    """Run requests as one batch.

    Returns:
        One result per request, whichever way the backend answered.
    """
    batch = loaded.batch(requests)
    result = instance.execute(batch, room)
    one_is_set = (result.gathered is None) != (result.per_request is None)
    assert one_is_set, "exactly one of BatchResult.gathered and BatchResult.per_request must be set"
    if result.per_request is not None:
        assert len(result.per_request) == len(requests), "per_request must have one result per request"
        return result.per_request
    return _scatter(result, batch)


def _scatter(result: BatchResult, batch: ModelBatch) -> list[RequestResult]:
    assert result.gathered is not None
    if not batch.batched:
        return [RequestResult(result.gathered)]
    total = sum(batch.rows)
    for name, array in result.gathered.items():
        assert array.shape[:1] == (total,), f"gathered output '{name}' has shape {array.shape}, but {total} rows"
    results, start = [], 0
    for count in batch.rows:
        results.append(RequestResult({n: array[start : start + count] for n, array in result.gathered.items()}))
        start += count
    return results
