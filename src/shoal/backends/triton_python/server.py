"""What a model may ask of the server it runs in: where its files are, and the other models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

from shoal.backends.triton_python.errors import TritonModelException

_model_dirs: list[str] = []


def set_model_dir(directory: str) -> None:
    """Say where the model of this process lies; the backend does so when it loads one."""
    _model_dirs[:] = [directory]


def get_model_dir() -> str:
    """The directory of the model version that this process runs.

    Raises:
        TritonModelException: no model runs here: the module was imported outside a server.
    """
    if not _model_dirs:
        raise TritonModelException("get_model_dir: no model is loaded in this process")
    return _model_dirs[0]


def load_model(model_name: str, config: str = "", files: Mapping[str, bytes] | None = None) -> NoReturn:  # noqa: ARG001
    """Not supported yet.

    Raises:
        TritonModelException: always.
    """
    raise _unsupported("load_model", model_name)


def unload_model(model_name: str, unload_dependents: bool = False) -> NoReturn:  # noqa: ARG001
    """Not supported yet.

    Raises:
        TritonModelException: always.
    """
    raise _unsupported("unload_model", model_name)


def is_model_ready(model_name: str, model_version: str = "") -> NoReturn:  # noqa: ARG001
    """Not supported yet.

    Raises:
        TritonModelException: always.
    """
    raise _unsupported("is_model_ready", model_name)


def _unsupported(function: str, model_name: str) -> TritonModelException:
    return TritonModelException(
        f"{function}('{model_name}'): controlling models from a model is not supported in this version; "
        "use the server's repository API"
    )
