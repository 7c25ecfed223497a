"""One option, and how a field of ``ServerOptions`` declares it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

from shoal.errors import InvalidArgumentError
from shoal.options.kinds import Kind

T = TypeVar("T")

PREFIX = "SHOAL_"
"""What the environment variables begin with."""


class OptionError(InvalidArgumentError):
    """The options are wrong; one line per problem."""


@dataclass(frozen=True, slots=True)
class Option:
    """A server option.

    Attributes:
        name: as a flag without its dashes, and as a TOML key.
        field: the attribute of ``ServerOptions``.
        kind: what its values may be.
        default: its value when nobody gives one.
        group: the heading that it stands under.
        help: what it does, as a sentence or two.
        repeatable: whether it may be given several times; its value is then a tuple.
        aliases: other names of its flag.
        note: logged as a warning when the option is given: that it has no effect, or that it is deprecated.
    """

    name: str
    field: str
    kind: Kind
    default: object
    group: str
    help: str
    repeatable: bool = False
    aliases: tuple[str, ...] = ()
    note: str = ""

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return PREFIX + self.name.upper().replace("-", "_")

    @property
    def default_text(self) -> str:
        """Its default, as one would write it; empty for none."""
        return "" if self.default in ((), None, "") else self.kind.show(self.default)


@dataclass(frozen=True, slots=True)
class Declaration:
    """What ``option`` puts into a field's metadata, besides the default."""

    kind: Kind
    group: str
    help: str
    name: str
    repeatable: bool
    aliases: tuple[str, ...]
    note: str


def option(
    default: T,
    kind: Kind,
    group: str,
    help: str,  # noqa: A002 - the word that everybody uses for it
    *,
    name: str = "",
    repeatable: bool = False,
    aliases: tuple[str, ...] = (),
    note: str = "",
) -> T:
    """Declare an option as a dataclass field; ``name`` only where the field cannot have the option's name."""
    declaration = Declaration(kind, group, help, name, repeatable, aliases, note)
    declared: T = field(default=default, metadata={"option": declaration})
    return declared
