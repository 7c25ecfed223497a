"""Reads a model's configuration file, in any of its formats, into the one message."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoal.config.bind import Binder
from shoal.config.problem import Problem, Source
from shoal.config.tree import Block, Dialect, FormatError

FILE_NAMES = {
    "config.pbtxt": Dialect.TEXT,
    "config.json": Dialect.JSON,
    "config.yaml": Dialect.YAML,
    "config.yml": Dialect.YAML,
}
"""The names of a configuration file, the one that wins first."""


@dataclass(frozen=True, slots=True)
class Document:
    """A configuration as it was read.

    Attributes:
        config: the ``ModelConfig`` message, without what could not be read.
        source: the file and the lines of its fields.
        problems: what could not be read; empty when all is well.
    """

    config: Any
    source: Source
    problems: tuple[Problem, ...] = ()


def read_config(model_dir: Path) -> Document:
    """Read the configuration of the model in this folder; an empty one when the folder has no configuration file."""
    found = [name for name in FILE_NAMES if (model_dir / name).is_file()]
    if not found:
        return Document(_new_config(), Source(str(model_dir)))
    path = model_dir / found[0]
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        problem = Problem(str(path), 0, "", f"cannot be read: {error}")
        return Document(_new_config(), Source(str(path)), (problem,))
    document = parse_config(text, FILE_NAMES[found[0]], str(path))
    return Document(document.config, document.source, document.problems + _others(model_dir, found))


def parse_config(text: str, dialect: Dialect, file: str) -> Document:
    """Read a configuration from text; ``file`` is the name that problems are to carry."""
    binder = Binder(file, dialect)
    config = _new_config()
    syntax: tuple[Problem, ...] = ()
    try:
        tree = _parser(dialect)(text)
    except FormatError as problem:
        tree = problem.partial
        syntax = (Problem(file, problem.line, "", problem.message),)
    binder.fill(config, tree)
    return Document(config, Source(file, binder.lines), (*binder.problems, *syntax))


def _others(model_dir: Path, found: list[str]) -> tuple[Problem, ...]:
    return tuple(
        Problem(str(model_dir / name), 0, "", f"a second configuration beside {found[0]}, which wins; keep one of them")
        for name in found[1:]
    )


def _parser(dialect: Dialect) -> Callable[[str], Block]:
    """The format's parser; imported when needed, for most repositories hold one format only."""
    if dialect is Dialect.TEXT:
        from shoal.config.text_format import parse_text_format as parse  # noqa: PLC0415
    elif dialect is Dialect.JSON:
        from shoal.config.json_format import parse_json as parse  # noqa: PLC0415
    else:
        from shoal.config.yaml_format import parse_yaml as parse  # noqa: PLC0415
    return parse


def _new_config() -> Any:
    from shoal.config import model_config_pb2  # noqa: PLC0415 - protobuf is slow to import

    return model_config_pb2.ModelConfig()
