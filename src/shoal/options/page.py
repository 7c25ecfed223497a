"""The page of the documentation that lists every option."""

from __future__ import annotations

from shoal.options.declare import Option
from shoal.options.kinds import BOOLEAN, TEXT
from shoal.options.read import CONFIG_VARIABLE, SEPARATOR
from shoal.options.server import OPTIONS
from shoal.options.unsupported import UNSUPPORTED

_INTRODUCTION = f"""\
# Server options

Every option can be given in three ways. A flag counts before a variable, a variable before the TOML file:

- as a flag of `shoal serve`: `--http-port 8000` or `--http-port=8000`;
- as an environment variable: `SHOAL_HTTP_PORT=8000`;
- as a key of a TOML file that `--config FILE` or `{CONFIG_VARIABLE}` names: `http-port = 8000`, or `http_port`.

Booleans are `true`, `on` or `1`, and `false`, `off` or `0`; a flag alone means `true`. An option that may be given
several times is a flag several times over, one variable with `{SEPARATOR}` between the values, or a TOML list; the
source that counts replaces the others' values, it does not add to them.

<!-- Made from the declarations in src/shoal/options by scripts/options-page. -->
"""


def markdown() -> str:
    """The whole page, as Markdown."""
    groups: dict[str, list[Option]] = {}
    for option in OPTIONS:
        groups.setdefault(option.group, []).append(option)
    sections = [f"## {group}\n\n{_table(options)}" for group, options in groups.items()]
    return "\n".join([_INTRODUCTION, *sections, _unsupported()])


def _table(options: list[Option]) -> str:
    rows = ["| Flag | Variable | TOML key | Default | Meaning |", "|---|---|---|---|---|"]
    for option in options:
        flags = ", ".join(f"`--{name}`" for name in (option.name, *option.aliases))
        default = f"`{option.default_text}`" if option.default_text else ""
        meaning = option.help if option.kind in (BOOLEAN, TEXT) else f"{option.help} Takes {option.kind.allowed}."
        rows.append(f"| {flags} | `{option.variable}` | `{option.name}` | {default} | {_cell(meaning)} |")
    return "\n".join(rows) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("*", r"\*")


def _unsupported() -> str:
    rows = "\n".join(f"| `--{name}` | {_cell(reason)} |" for name, reason in UNSUPPORTED.items())
    return f"## Options of Triton that Shoal does not have\n\n| Flag | What to know |\n|---|---|\n{rows}\n"
