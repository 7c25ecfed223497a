"""The life of the models in the repositories: all are loaded at the start, all are stopped at the end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from shoal.config.read import Document
from shoal.errors import ShoalError
from shoal.execution.contract import ensembles_first
from shoal.repository.catalog import Catalog, ModelState, ModelVersion, ServedModel
from shoal.repository.ensembles import circle_problem, load_ensemble, load_order
from shoal.repository.loader import LoaderSettings, VersionSource, load_version, read_model
from shoal.repository.storage import ModelFolder, scan, select_versions

log = logging.getLogger("shoal.repository")


class ModelLifecycle:
    """Loads models into a catalog and stops them.

    Args:
        catalog: where their states are kept.
        loader: the settings of every load.
        load_threads: models that load at the same time.
        load_retries: how often a failed load is tried again.
    """

    def __init__(self, catalog: Catalog, loader: LoaderSettings, load_threads: int, load_retries: int) -> None:
        self._catalog = catalog
        self._loader = loader
        self._load_retries = load_retries
        self._turns = asyncio.Semaphore(load_threads)

    async def load_all(self, repositories: Sequence[Path]) -> dict[str, str]:
        """Load every model of the repositories.

        Returns:
            Why each model that failed did, by name.

        Raises:
            ShoalError: a repository cannot be read.
        """
        index = scan(repositories)
        for name, reason in index.problems.items():
            self._catalog.add_failed(name, reason)
        read = [(folder, document) for folder in index.models.values() if (document := self._read(folder)) is not None]
        models = [pair for pair in read if not pair[1].config.HasField("ensemble_scheduling")]
        await asyncio.gather(*(self._load_model(*pair) for pair in models))
        await self._load_ensembles({pair[0].name: pair for pair in read if pair not in models})
        return self.failures()

    async def _load_ensembles(self, ensembles: Mapping[str, tuple[ModelFolder, Document]]) -> None:
        """Load ensembles one by one, each after the models of its steps; it takes no time."""
        order, circles = load_order({name: document.config for name, (_, document) in ensembles.items()})
        for name, circle in circles.items():
            self._catalog.add_failed(name, str(circle_problem(ensembles[name][1].source, circle)))
        for name in order:
            await self._load_model(*ensembles[name])

    def failures(self) -> dict[str, str]:
        """Why each model that is not served is not, by name."""
        failures = {name: self._catalog.failure(name) for name in self._catalog.names() if self._catalog.failure(name)}
        for entry in self._catalog:
            if entry.state is ModelState.UNAVAILABLE:
                reason = f"version {entry.version} is at UNAVAILABLE state: {entry.reason}"
                failures[entry.name] = "\n".join(filter(None, [failures.get(entry.name), reason]))
        return failures

    def _read(self, folder: ModelFolder) -> Document | None:
        """A model's configuration; None, and a failed model, when something is wrong with it."""
        for warning in folder.warnings:
            log.warning("model '%s': %s", folder.name, warning)
        try:
            return read_model(folder.path, self._loader.gpu_count)
        except ShoalError as error:
            self._catalog.add_failed(folder.name, error.message)
            return None

    async def _load_model(self, folder: ModelFolder, document: Document) -> None:
        versions = select_versions(document.config.version_policy, folder.versions)
        if not versions:
            has = f"it has {', '.join(map(str, folder.versions))}" if folder.versions else "it has no version folder"
            self._catalog.add_failed(folder.name, f"no version of the model is to be served: {has} ({folder.path})")
            return
        entries = [self._catalog.add(folder.name, version) for version in versions]
        await asyncio.gather(*(self._load_version(document, folder.path, entry) for entry in entries))

    async def _load_version(self, document: Document, model_dir: Path, entry: ModelVersion) -> None:
        async with self._turns:
            source = VersionSource(document, model_dir, entry.version)
            for attempt in range(self._load_retries + 1):
                try:
                    entry.served = await self._load(source)
                except Exception as error:  # such as no more descriptors: it fails this model, not the others
                    entry.state = ModelState.UNAVAILABLE
                    entry.reason = (
                        error.message if isinstance(error, ShoalError) else f"{type(error).__name__}: {error}"
                    )
                    if attempt < self._load_retries:
                        log.warning("model '%s' failed to load and is tried again: %s", entry.name, entry.reason)
                else:
                    entry.state, entry.reason = ModelState.READY, ""
                    return

    async def _load(self, source: VersionSource) -> ServedModel:
        if source.document.config.HasField("ensemble_scheduling"):
            return await load_ensemble(source, self._loader, self._catalog)
        return await load_version(source, self._loader)

    async def stop_all(self, timeout_s: float) -> None:
        """Stop every model: no new requests, those that wait are refused, the workers end. Ensembles stop first."""
        loaded = [entry for entry in self._catalog if entry.served is not None]
        for entry in loaded:
            entry.state = ModelState.UNLOADING
        for group in ensembles_first(entry.served.runtime for entry in loaded if entry.served is not None):
            await asyncio.gather(*(runtime.stop(timeout_s) for runtime in group))
        for entry in loaded:
            entry.state, entry.reason, entry.served = ModelState.UNAVAILABLE, "unloaded", None
