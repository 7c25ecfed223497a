"""A configuration file as it is written, before anything is known of its fields: names, values and lines.

The three formats (text, JSON, YAML) are parsed into this one tree, so that ``bind`` alone knows what the fields mean.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

DEEPEST = 64
"""Blocks and lists in one another, at most; Triton's messages need a quarter of that."""


class Dialect(Enum):
    """Which format a tree came from; they differ in how lists, maps, names and enum values are written."""

    TEXT = "protobuf text format"
    JSON = "JSON"
    YAML = "YAML"


class ScalarKind(Enum):
    """How a scalar is written."""

    WORD = "a bare word"
    NUMBER = "a number"
    STRING = "a string"
    NULL = "null"


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value; ``text`` is it without quotes and escapes, ``plain`` whether it stood without quotes in YAML."""

    kind: ScalarKind
    text: str
    line: int
    plain: bool = False

    def __str__(self) -> str:
        return f"'{self.text}'" if self.kind is ScalarKind.STRING else self.text


@dataclass(frozen=True, slots=True)
class Block:
    """A message or a map: fields in the order of the file."""

    fields: list[Field] = field(default_factory=list)
    line: int = 0

    def __str__(self) -> str:
        return "a block"


@dataclass(frozen=True, slots=True)
class Listing:
    """A list of values."""

    items: list[Value]
    line: int

    def __str__(self) -> str:
        return "a list"


Value = Scalar | Block | Listing


@dataclass(frozen=True, slots=True)
class Field:
    """A name and its value."""

    name: str
    value: Value
    line: int


class FormatError(Exception):
    """The text is not in its format; everything before this point is in ``partial``."""

    def __init__(self, message: str, line: int, partial: Block | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.partial = partial or Block()
