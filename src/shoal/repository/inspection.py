"""Looks through model repositories for everything that would keep a model from being served, without starting any.

A model's own code is not run. An ONNX file is opened, to see whether the configuration fits it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shoal.backends import registry
from shoal.backends.contract import ModelFiles
from shoal.config.check import check_tensors
from shoal.config.complete import complete_config
from shoal.config.prepare import prepare_config
from shoal.config.problem import Problem, Source, independent
from shoal.config.read import Document
from shoal.errors import ConfigError, ShoalError
from shoal.repository.ensemble_inspection import with_ensembles
from shoal.repository.model_report import ModelReport
from shoal.repository.python_source import inspect_python
from shoal.repository.storage import ModelFolder, scan, select_versions


def inspect_repositories(repositories: Sequence[Path], gpu_count: int) -> list[ModelReport]:
    """A report on every model of the repositories, in alphabetical order.

    Raises:
        NotFoundError: a repository does not exist.
        InvalidArgumentError: a repository is not a folder, or cannot be read.
    """
    index = scan(repositories)
    reports = [_inspect_model(folder, gpu_count) for folder in index.models.values()]
    reports += [
        ModelReport(name, (Problem(str(repositories[0] / name), 0, "", reason),))
        for name, reason in index.problems.items()
    ]
    return sorted(with_ensembles(reports), key=lambda report: report.name)


def _inspect_model(folder: ModelFolder, gpu_count: int) -> ModelReport:
    document = prepare_config(folder.path, gpu_count)
    versions = select_versions(document.config.version_policy, folder.versions)
    problems = list(document.problems) + _version_problems(document, folder, versions)
    found = _backend_problems(document, folder, versions, gpu_count)
    problems += independent(found, document.problems)
    return ModelReport(folder.name, tuple(problems), folder.warnings, document.config, tuple(versions), document.source)


def _version_problems(document: Document, folder: ModelFolder, versions: list[int]) -> list[Problem]:
    problems = []
    for index, version in enumerate(document.config.version_policy.specific.versions):
        if version >= 0 and version not in folder.versions:
            path = f"version_policy.specific.versions[{index}]"
            problems.append(document.source.problem(path, f"there is no folder {folder.path / str(version)}"))
    if not folder.versions:
        text = "has no version; put the model's files into a folder named 1 in it"
        problems.append(Problem(str(folder.path), 0, "", text))
    elif not versions and not problems and not document.problems:
        problems.append(document.source.problem("version_policy", "leaves no version to serve"))
    return problems


def _backend_problems(document: Document, folder: ModelFolder, versions: list[int], gpu_count: int) -> list[Problem]:
    """What the backend finds in each version; nothing when it is not known which backend that is."""
    if document.config.HasField("ensemble_scheduling"):
        return check_tensors(document.config, document.source, folder.path)
    if not document.config.backend:
        return []
    try:
        registry.traits(document.config.backend)
    except ShoalError as error:
        return [document.source.problem("backend", error.message)]
    problems: list[Problem] = []
    for version in versions:
        found = _version_backend_problems(document, folder, version, gpu_count)
        problems += [problem for problem in found if problem not in problems]
    return problems


def _version_backend_problems(document: Document, folder: ModelFolder, version: int, gpu_count: int) -> list[Problem]:
    files = ModelFiles(folder.repository, folder.path, folder.path / str(version))
    path = files.version_dir / document.config.default_model_filename
    if not path.exists():
        text = (
            f"there is no file {document.config.default_model_filename}; add it, or name it in default_model_filename"
        )
        return [Problem(str(files.version_dir), 0, "", text)]
    if document.config.backend == "python":
        return _python_problems(document, folder, path)
    return _completed_problems(document, files, gpu_count)


def _python_problems(document: Document, folder: ModelFolder, path: Path) -> list[Problem]:
    source = inspect_python(path)
    if source.completes and _tensors_open(document.config):
        return list(source.problems)
    return [*source.problems, *check_tensors(document.config, document.source, folder.path)]


def _tensors_open(config: Any) -> bool:
    """Whether the configuration leaves something of the inputs and outputs for the model to tell."""
    tensors = [*config.input, *config.output]
    return not config.input or not config.output or any(not (tensor.data_type and tensor.dims) for tensor in tensors)


def _completed_problems(document: Document, files: ModelFiles, gpu_count: int) -> list[Problem]:
    """Let the backend complete a copy of the configuration from the model's file, and check what comes out."""
    config = type(document.config)()
    config.CopyFrom(document.config)
    try:
        registry.get(config.backend).complete(config, files)
    except ConfigError as error:
        return [_as_problem(line, document.source) for line in error.problems]
    except ShoalError as error:
        return [Problem(str(files.version_dir), 0, "", error.message)]
    complete_config(config, files.model_dir, gpu_count)
    problems = check_tensors(config, document.source, files.model_dir)
    document.config.CopyFrom(config)
    return problems


def _as_problem(line: str, source: Source) -> Problem:
    return Problem(source.file, 0, "", line.removeprefix(f"{source.file}: "))
