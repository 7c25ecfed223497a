"""Loads a model's batch strategy: the user's class, from a Python file beside the model."""

from __future__ import annotations

import logging
from pathlib import Path
from types import ModuleType
from typing import Any

from shoal.config.batch_strategy import PARAMETER, find_strategy
from shoal.config.render import config_to_dict
from shoal.config.spec import ModelSpec
from shoal.errors import InvalidArgumentError
from shoal.scheduling.batch_rule import BatchRule

CLASS_NAME = "BatchStrategy"

log = logging.getLogger("shoal.model")


def load_batch_rule(spec: ModelSpec, config: Any, model_dir: Path) -> BatchRule | None:
    """The rule for what the model's batches join; None when the model has none.

    Args:
        spec: the model version.
        config: its ``ModelConfig`` message, which the class is given as a dict.
        model_dir: the model's folder.

    Raises:
        InvalidArgumentError: the file has no such class, or its code failed.
    """
    if spec.batching is None or spec.sequence is not None:
        return None
    path = find_strategy(spec.parameters.get(PARAMETER, ""), model_dir, spec.version)
    if path is None:
        return None
    made = _load_class(path, spec)
    try:
        strategy = made(config_to_dict(config))
    except Exception as error:  # the user's own code may raise anything
        raise _failed(path, spec, error) from error
    if not callable(getattr(strategy, "include", None)):
        raise InvalidArgumentError(
            f"model '{spec.name}': class {CLASS_NAME} of {path} has no method 'include'; "
            "add include(self, request) that returns whether the request joins the batch"
        )
    log.info("model '%s': batches are formed by %s", spec.name, path)
    return BatchRule(strategy, spec)


def _load_class(path: Path, spec: ModelSpec) -> Any:
    """The class in the file, which is run for every model anew and leaves no compiled file in the model's folder."""
    module = ModuleType(f"shoal_batch_strategy_{spec.name}_{spec.version}")
    module.__file__ = str(path)
    try:
        exec(compile(path.read_bytes(), path, "exec"), module.__dict__)  # noqa: S102 - the user's own rule
    except (Exception, SystemExit) as error:  # as above
        raise _failed(path, spec, error) from error
    made = getattr(module, CLASS_NAME, None)
    if not isinstance(made, type):
        raise InvalidArgumentError(f"model '{spec.name}': the batch strategy {path} has no class {CLASS_NAME}")
    return made


def _failed(path: Path, spec: ModelSpec, error: BaseException) -> InvalidArgumentError:
    log.error("the batch strategy %s failed while it was loaded", path, exc_info=error)
    return InvalidArgumentError(
        f"model '{spec.name}': the batch strategy {path} failed while it was loaded: {type(error).__name__}: {error}"
    )
