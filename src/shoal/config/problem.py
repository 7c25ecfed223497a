"""A problem found in a model's configuration, and the place in a file that it is about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        file: the file, or the folder when the problem is that something is missing in it.
        line: its line, counted from 1; 0 when there is none.
        field: the path of the field, such as ``input[0].dims``; ``""`` when the problem is not about a field.
        message: what is wrong and what to do.
    """

    file: str
    line: int
    field: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.field}: {self.message}" if self.field else f"{place}: {self.message}"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a configuration came from, so that problems found later can name the line.

    Attributes:
        file: the file, or the model's folder when it has no configuration file.
        lines: the line of each field that stands in the file, by path.
    """

    file: str
    lines: Mapping[str, int] = field(default_factory=dict)

    def line(self, path: str) -> int:
        """The line of a field, or of the nearest message around it that stands in the file; 0 when there is none."""
        while path:
            if path in self.lines:
                return self.lines[path]
            path = parent(path)
        return min(self.lines.values(), default=0)

    def problem(self, path: str, message: str) -> Problem:
        """A problem of the field with this path."""
        return Problem(self.file, self.line(path), path, message)


def parent(path: str) -> str:
    """The path of what holds the field: ``input[0]`` for ``input[0].dims``, ``input`` for ``input[0]``."""
    if path.endswith('"]'):
        return path[: path.rindex('["')]
    return path[: max(path.rfind("."), path.rfind("["), 0)]


def independent(later: Iterable[Problem], earlier: Iterable[Problem]) -> list[Problem]:
    """Those later problems that are not a mere consequence of an earlier one.

    A field that could not be read looks absent afterwards, and so does one whose name was misspelt: a later problem is
    dropped when the same field has an earlier one, or one that stands in the same message below the top.
    """
    spoilt = {problem.field for problem in earlier}
    spoilt |= {parent(path) for path in spoilt} - {""}
    return [problem for problem in later if problem.field not in spoilt and parent(problem.field) not in spoilt]
