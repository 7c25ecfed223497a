"""The catalog: every model version that the server knows, its state, and how requests find it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from shoal.caching.content import ModelContent
from shoal.config.model_config_pb2 import ModelConfig
from shoal.config.spec import ModelSpec
from shoal.errors import NotFoundError, UnavailableError
from shoal.execution.contract import Runtime
from shoal.requests import LATEST, Sink


class ModelState(Enum):
    """The states of a model version, as the repository index names them."""

    LOADING = "LOADING"
    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"
    UNLOADING = "UNLOADING"


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What there is of a model version once it is loaded.

    Attributes:
        spec: its frozen configuration.
        config: its completed configuration, for the config endpoint.
        runtime: what runs its requests.
        sink: what takes its requests: the runtime, or what stands before it, such as the response cache.
        load_s: how long loading took.
        content: what it was made from, for the response cache.
    """

    spec: ModelSpec
    config: ModelConfig
    runtime: Runtime
    sink: Sink
    load_s: float
    content: ModelContent


@dataclass(slots=True)
class ModelVersion:
    """One version of a model, loaded or not.

    Attributes:
        name: the model's name.
        version: the version's number.
        state: where it is in its life.
        reason: why it is unavailable.
        served: the loaded model, None when it is not loaded.
    """

    name: str
    version: int
    state: ModelState = ModelState.LOADING
    reason: str = ""
    served: ServedModel | None = None


class Catalog:
    """Model versions by name and number, and the rules by which a request finds one (rule 52)."""

    def __init__(self) -> None:
        self._models: dict[str, dict[int, ModelVersion]] = {}
        self._failures: dict[str, str] = {}

    def add(self, name: str, version: int) -> ModelVersion:
        """A new version, loading."""
        entry = ModelVersion(name, version)
        self._models.setdefault(name, {})[version] = entry
        return entry

    def add_failed(self, name: str, reason: str) -> None:
        """A model that is known but has no version that could be tried, and why."""
        self._models.setdefault(name, {})
        self._failures[name] = reason

    def failure(self, name: str) -> str:
        """Why no version of the model could be tried; empty when versions were tried."""
        return self._failures.get(name, "")

    def __iter__(self) -> Iterator[ModelVersion]:
        """Every version, by name and number."""
        for name in sorted(self._models):
            for version in sorted(self._models[name]):
                yield self._models[name][version]

    def names(self) -> list[str]:
        """Every model, loaded or not, sorted."""
        return sorted(self._models)

    def ready_versions(self, name: str) -> list[int]:
        """The model's READY versions in rising order; none for an unknown model."""
        versions = self._models.get(name, {})
        return sorted(number for number, entry in versions.items() if entry.state is ModelState.READY)

    def find(self, name: str, version: int = LATEST) -> ServedModel:
        """The loaded model that a request names; without a version, the highest that is READY.

        Raises:
            NotFoundError: no such model or version, or no version is READY and none was named.
            UnavailableError: the named version is known but not READY.
        """
        versions = self._models.get(name)
        if versions is None:
            raise NotFoundError(f"Request for unknown model: '{name}' is not found")
        if version == LATEST:
            ready = self.ready_versions(name)
            if not ready:
                raise NotFoundError(f"Request for unknown model: '{name}' has no available versions")
            version = ready[-1]
        entry = versions.get(version)
        if entry is None:
            raise NotFoundError(f"Request for unknown model: '{name}' version {version} is not found")
        if entry.state is not ModelState.READY or entry.served is None:
            raise UnavailableError(f"Request for unknown model: '{name}' version {version} is not at ready state")
        return entry.served
