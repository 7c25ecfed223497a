"""Which backends there are, and what the server must know of them before one is imported.

The server process asks ``traits`` only, which imports nothing; a worker asks ``get``, which imports the backend.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, cast

from shoal.errors import NotFoundError, UnsupportedError, nearest

if TYPE_CHECKING:
    from shoal.backends.contract import Backend


@dataclass(frozen=True, slots=True)
class BackendTraits:
    """What is known of a backend without importing it.

    Attributes:
        name: the configuration's ``backend``.
        platforms: values of the configuration's ``platform`` that mean this backend.
        process_per_instance: each instance has a worker process of its own.
        takes_pieces: large inputs need not be gathered, because the model gets its requests one by one.
        preload: modules that the fork server imports once for all workers of this backend.
        requires: the module that must be installed, and the extra of the package that installs it.
        home: the module and class of the backend.
    """

    name: str
    platforms: tuple[str, ...]
    process_per_instance: bool
    takes_pieces: bool
    preload: tuple[str, ...]
    requires: tuple[str, str] | None
    home: tuple[str, str]


TRAITS = {
    "onnxruntime": BackendTraits(
        name="onnxruntime",
        platforms=("onnxruntime_onnx",),
        process_per_instance=False,
        takes_pieces=False,
        preload=("numpy", "onnxruntime", "shoal.backends.onnxruntime"),
        requires=("onnxruntime", "onnx"),
        home=("shoal.backends.onnxruntime", "OnnxRuntimeBackend"),
    ),
    "python": BackendTraits(
        name="python",
        platforms=(),
        process_per_instance=True,
        takes_pieces=True,
        preload=("numpy", "shoal.backends.python", "triton_python_backend_utils"),
        requires=None,
        home=("shoal.backends.python", "PythonBackend"),
    ),
}
"""Every backend, by its name."""

_NAMES = {name: traits for traits in TRAITS.values() for name in (traits.name, *traits.platforms)}


def names() -> tuple[str, ...]:
    """Every backend's name."""
    return tuple(TRAITS)


def traits(name: str) -> BackendTraits:
    """What is known of a backend before it is imported.

    Args:
        name: the configuration's ``backend`` or ``platform``.

    Raises:
        NotFoundError: there is no such backend.
        UnsupportedError: the package that it needs is not installed.
    """
    found = _NAMES.get(name)
    if found is None:
        raise NotFoundError(f"there is no backend '{name}'{nearest(name, _NAMES)}; known: {', '.join(TRAITS)}")
    if found.requires is not None and find_spec(found.requires[0]) is None:
        module, extra = found.requires
        raise UnsupportedError(
            f"backend '{found.name}' needs the package '{module}', which is not installed; "
            f"install it with: pip install 'shoal[{extra}]'"
        )
    return found


def get(name: str, settings: Mapping[str, str] | None = None) -> Backend:
    """The backend of this name, imported now.

    Args:
        name: the configuration's ``backend`` or ``platform``.
        settings: the backend's server-wide settings (``--backend-config``), such as ``default-max-batch-size``.

    Raises:
        NotFoundError: there is no such backend.
        UnsupportedError: the package that it needs is not installed.
    """
    module, attribute = traits(name).home
    return cast("Backend", getattr(import_module(module), attribute)(settings or {}))
