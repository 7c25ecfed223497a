"""Looks at a Python model's source without running it: does it parse, and does it have what the backend will call?"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from shoal.config.problem import Problem

MODEL_CLASS = "TritonPythonModel"


@dataclass(frozen=True, slots=True)
class PythonSource:
    """What was found.

    Attributes:
        problems: what will keep the model from loading or running.
        completes: whether the model may have an ``auto_complete_config``: it has one, or that cannot be told.
    """

    problems: tuple[Problem, ...] = ()
    completes: bool = True


def inspect_python(path: Path) -> PythonSource:
    """Look at a ``model.py``."""
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except SyntaxError as error:
        return PythonSource((Problem(str(path), error.lineno or 0, "", f"not Python: {error.msg}"),))
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        return PythonSource((Problem(str(path), 0, "", f"cannot be read as Python: {error}"),))
    statements = list(_module_level(tree.body))
    classes = [node for node in statements if isinstance(node, ast.ClassDef)]
    model = next((node for node in reversed(classes) if node.name == MODEL_CLASS), None)
    if model is not None:
        return _inspect_class(path, model)
    if MODEL_CLASS in _other_names(statements) or "*" in _other_names(statements):
        return PythonSource()
    text = f"has no class {MODEL_CLASS}{_instead(node.name for node in classes)}"
    return PythonSource((Problem(str(path), 0, "", text),))


def _inspect_class(path: Path, model: ast.ClassDef) -> PythonSource:
    members = _members(model)
    if model.bases or model.decorator_list or model.keywords:
        return PythonSource()  # what it inherits or is given cannot be seen without running it
    problems: tuple[Problem, ...] = ()
    if "execute" not in members:
        text = f"class {MODEL_CLASS} has no method execute(self, requests){_instead(members)}"
        problems = (Problem(str(path), model.lineno, "", text),)
    return PythonSource(problems, "auto_complete_config" in members)


def _instead(names: Iterable[str]) -> str:
    listed = ", ".join(names)
    return f"; it has: {listed}" if listed else ""


def _members(model: ast.ClassDef) -> list[str]:
    statements = list(_module_level(model.body))
    functions = [node.name for node in statements if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [*functions, *_other_names(statements)]


def _module_level(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a body and of the branches in it, but not of the functions and classes in it."""
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try | ast.With | ast.For | ast.While):
            for name in ("body", "orelse", "finalbody"):
                yield from _module_level(getattr(node, name, ()))
            for handler in getattr(node, "handlers", ()):
                yield from _module_level(handler.body)


def _other_names(statements: Sequence[ast.stmt]) -> set[str]:
    """Names that imports and assignments make."""
    names: set[str] = set()
    for node in statements:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names.update(target.id for target in targets if isinstance(target, ast.Name))
    return names
