"""Imports a Python model's ``model.py`` so that everything in it works as under Triton.

Triton puts the version's and the model's directory at the end of ``sys.path`` and imports ``<version>.model`` from
there (``pb_stub.cc``): both ``import helper`` and ``from . import helper`` find a ``helper.py`` beside ``model.py``.
Here the package has a name of its own, so that several models can live in one process.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

from shoal.backends.contract import ModelFiles
from shoal.backends.python_failure import describe_load
from shoal.backends.triton_python import server
from shoal.errors import InternalError, InvalidArgumentError, NotFoundError

CLASS_NAME = "TritonPythonModel"
_DEFAULT_FILENAME = "model.py"
_PACKAGE_PREFIX = "shoal_python_model_"
_numbers = count()
_model_dirs: set[str] = set()


def load_model_class(name: str, files: ModelFiles, filename: str) -> type[Any]:
    """The ``TritonPythonModel`` class of a model, its module freshly imported.

    Args:
        name: the model's name.
        files: where the model lies.
        filename: the configuration's ``default_model_filename``; empty for ``model.py``.

    Raises:
        NotFoundError: there is no such file.
        InternalError: importing it failed.
        InvalidArgumentError: it has no such class.
    """
    path = (files.version_dir / (filename or _DEFAULT_FILENAME)).absolute()
    if not path.is_file():
        raise NotFoundError(f"model '{name}': there is no file '{path}'")
    _make_importable(files)
    server.set_model_dir(str(files.version_dir))
    try:
        module = _execute(path)
    except (Exception, SystemExit) as error:  # the model's own code may raise anything
        raise InternalError(f"failed to import '{path}' of model '{name}': {describe_load(error)}") from error
    found = getattr(module, CLASS_NAME, None)
    if not isinstance(found, type):
        raise InvalidArgumentError(f"model '{name}': '{path}' does not define a class '{CLASS_NAME}'")
    return found


def _make_importable(files: ModelFiles) -> None:
    """Let the model import its own files by name, and not those of the same name that another model has imported."""
    own = [str(files.version_dir.absolute()), str(files.model_dir.absolute())]
    others = _model_dirs - set(own)
    for name, module in list(sys.modules.items()):
        directory = os.path.dirname(getattr(module, "__file__", None) or "")  # noqa: PTH120
        if directory in others and not name.startswith(_PACKAGE_PREFIX):
            del sys.modules[name]
    sys.path[:] = [place for place in sys.path if place not in own]
    position = next((index for index, place in enumerate(sys.path) if place in others), len(sys.path))
    sys.path[position:position] = own
    _model_dirs.update(own)


def _execute(path: Path) -> ModuleType:
    package = f"{_PACKAGE_PREFIX}{next(_numbers)}"
    parent = ModuleSpec(package, None, is_package=True)
    parent.submodule_search_locations = [str(path.parent)]
    sys.modules[package] = importlib.util.module_from_spec(parent)
    spec = importlib.util.spec_from_file_location(f"{package}.{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
