"""What lies in the model repositories: folders and version numbers, found without reading any model.

Layout: ``<repository>/<model>/<version>/<files>``. A version's folder is a whole number without leading zeros; as in
Triton, 0 is one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoal.errors import InvalidArgumentError, NotFoundError

NO_VERSIONS = frozenset({"configs", "warmup", "initial_state", "__pycache__"})
"""Folders of a model that are no versions, and that nobody is warned of."""

LARGEST_VERSION = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model's folder in a repository.

    Attributes:
        name: the folder's name, which is the model's.
        repository: the repository.
        path: the folder itself.
        versions: the numbers of its versions, ascending.
        warnings: what was ignored in it, and why.
    """

    name: str
    repository: Path
    path: Path
    versions: tuple[int, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RepositoryIndex:
    """All models of all repositories.

    Attributes:
        models: those that can be told apart, by name, in alphabetical order.
        problems: the others: the reason why each cannot be served, by name.
    """

    models: dict[str, ModelFolder]
    problems: dict[str, str]


def scan(repositories: Sequence[Path]) -> RepositoryIndex:
    """Look through the repositories.

    Files beside the models and folders whose names start with a dot are passed over.

    Raises:
        NotFoundError: a repository does not exist.
        InvalidArgumentError: a repository is not a folder, or cannot be read.
    """
    found: dict[str, list[Path]] = {}
    for repository in _distinct(repositories):
        for name in _model_names(repository):
            found.setdefault(name, []).append(repository)
    models: dict[str, ModelFolder] = {}
    problems: dict[str, str] = {}
    for name in sorted(found):
        if len(found[name]) > 1:
            problems[name] = _not_unique(name, found[name])
            continue
        try:
            models[name] = scan_model(found[name][0], name)
        except InvalidArgumentError as error:
            problems[name] = error.message
    return RepositoryIndex(models, problems)


def scan_model(repository: Path, name: str) -> ModelFolder:
    """Look through one model's folder.

    Raises:
        NotFoundError: there is no such folder.
        InvalidArgumentError: it cannot be read.
    """
    path = repository / name
    versions: list[int] = []
    warnings: list[str] = []
    for child in _folders(path, f"the folder of model '{name}'"):
        reason = _no_version_because(child)
        if not reason:
            versions.append(int(child))
        elif child not in NO_VERSIONS and not child.startswith("."):
            warnings.append(f"{path / child}: ignored, for {reason}; a version is a whole number such as 1")
    return ModelFolder(name, repository, path, tuple(sorted(versions)), tuple(warnings))


def select_versions(policy: Any, available: Iterable[int]) -> list[int]:
    """The versions to serve, ascending.

    Args:
        policy: a ``ModelVersionPolicy`` message; an empty one means the latest version.
        available: the versions that exist.
    """
    versions = sorted(available)
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return versions
    if choice == "specific":
        wanted = set(policy.specific.versions)
        return [version for version in versions if version in wanted]
    count = policy.latest.num_versions if choice == "latest" else 1
    return versions[-count:] if count else []


def _distinct(repositories: Sequence[Path]) -> list[Path]:
    """The repositories without those that are given twice, under whatever name."""
    # realpath takes links that lead in a circle, which resolve does not in Python 3.11 and 3.12.
    return list({os.path.realpath(repository): repository for repository in reversed(repositories)}.values())[::-1]


def _model_names(repository: Path) -> list[str]:
    names = _folders(repository, "the model repository")
    return [name for name in names if not name.startswith(".")]


def _folders(path: Path, what: str) -> list[str]:
    """The names of the folders in a folder, sorted."""
    try:
        return sorted(entry.name for entry in path.iterdir() if entry.is_dir())
    except FileNotFoundError:
        raise NotFoundError(f"{path}: {what} does not exist") from None
    except NotADirectoryError:
        raise InvalidArgumentError(f"{path}: {what} must be a folder, and this is a file") from None
    except OSError as error:
        raise InvalidArgumentError(f"{path}: {what} cannot be read: {error.strerror}") from None


def _not_unique(name: str, repositories: Sequence[Path]) -> str:
    places = ", ".join(str(repository / name) for repository in repositories)
    return f"model appears in two or more repositories: {places}; rename or remove all but one"


def _no_version_because(name: str) -> str:
    """Why a folder with this name is no version; empty when it is one."""
    if not (name.isascii() and name.isdigit()):
        return "its name is not made of digits"
    if len(name) > 1 and name.startswith("0"):
        return "its name starts with a zero"
    if int(name[:20]) > LARGEST_VERSION:
        return "its number is too large"
    return ""
