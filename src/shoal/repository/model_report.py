"""What looking through a repository finds out about one model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shoal.config.problem import Problem, Source


@dataclass(frozen=True, slots=True)
class ModelReport:
    """What was found out about one model.

    Attributes:
        name: the model's name.
        problems: everything that is wrong with it.
        warnings: what was ignored in its folder.
        config: its configuration as far as it could be completed; None when there was nothing to read.
        versions: the versions that would be served.
        source: where its configuration came from.
    """

    name: str
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...] = ()
    config: Any = None
    versions: tuple[int, ...] = ()
    source: Source | None = None
