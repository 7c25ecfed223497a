"""Reading the options: a flag counts before a variable, a variable before the TOML file, that before the default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from shoal.errors import nearest
from shoal.options.checks import check_options
from shoal.options.declare import PREFIX, Option, OptionError
from shoal.options.kinds import PORT, RefusedError
from shoal.options.server import BY_NAME, OPTIONS, ServerOptions
from shoal.options.unsupported import UNSUPPORTED

CONFIG_VARIABLE = f"{PREFIX}CONFIG"
"""The variable that names the TOML file when the flag ``--config`` does not."""

SEPARATOR = ";"
"""Stands between the values of an option that may be given several times, in a variable."""

_SERVICE_LINKS = ("tcp://", "udp://", "sctp://")


class Given(NamedTuple):
    """What was given for an option, and where."""

    texts: Sequence[str]
    source: str


def read_options(
    flags: Mapping[str, Sequence[str]], environ: Mapping[str, str], config: str | None = None
) -> ServerOptions:
    """Read every option from wherever it was given.

    Args:
        flags: the texts given by flags, by option name without dashes.
        environ: the environment.
        config: the TOML file; None for the one that ``SHOAL_CONFIG`` names, if any.

    Raises:
        OptionError: with one line per problem.
    """
    path = config or environ.get(CONFIG_VARIABLE)
    given = _from_file(Path(path)) if path else {}
    given |= _from_environment(environ)
    given |= {name: Given(texts, "the command line") for name, texts in flags.items() if texts}
    options = ServerOptions(**_values(given), notes=(*_notes(given), *_misspelt_variables(environ)))
    check_options(options)
    return options


def unknown_option(name: str) -> str:
    """What to say of a name that is no option's: Triton's options are explained, for others the nearest is named."""
    plain = name.lstrip("-").replace("_", "-")
    if plain in UNSUPPORTED:
        return f"'{name}' is an option of Triton that Shoal does not have: {UNSUPPORTED[plain]}"
    dashes = "--" if name.startswith("-") else ""
    return f"there is no option '{name}'{nearest(dashes + plain, [dashes + known for known in (*BY_NAME, 'config')])}"


def _values(given: Mapping[str, Given]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    problems = []
    for name, one in given.items():
        option = BY_NAME[name]
        try:
            parsed = [_parse(option, text, one.source) for text in one.texts]
        except OptionError as error:
            problems.append(error.message)
            continue
        values[option.field] = tuple(parsed) if option.repeatable else parsed[-1]
    if problems:
        raise OptionError("\n".join(problems))
    return values


def _parse(option: Option, text: str, source: str) -> object:
    try:
        return option.kind.parse(text)
    except ValueError as error:
        why = str(error) if isinstance(error, RefusedError) else f"it takes {option.kind.allowed}"
        raise OptionError(f"option '{option.name}': '{text}' from {source} is not valid: {why}") from None


def _from_environment(environ: Mapping[str, str]) -> dict[str, Given]:
    given = {}
    for option in OPTIONS:
        text = environ.get(option.variable, "")
        # Kubernetes sets such variables in every pod beside a service that is named shoal or shoal-http.
        service_link = option.kind is PORT and text.startswith(_SERVICE_LINKS)
        if text and not service_link:
            texts = [part for part in text.split(SEPARATOR) if part] if option.repeatable else [text]
            given[option.name] = Given(texts, f"the variable {option.variable}")
    return given


def _from_file(path: Path) -> dict[str, Given]:
    import tomllib  # noqa: PLC0415 - only where there is a file

    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(f"the configuration file '{path}' cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OptionError(f"the configuration file '{path}' is not valid TOML: {error}") from None
    given: dict[str, Given] = {}
    problems = []
    for key, value in document.items():
        try:
            name, one = _from_key(path, key, value)
        except OptionError as error:
            problems.append(error.message)
            continue
        if name in given:
            problems.append(f"option '{name}' is given twice, by {given[name].source} and by {one.source}")
        given[name] = one
    if problems:
        raise OptionError("\n".join(problems))
    return given


def _from_key(path: Path, key: str, value: object) -> tuple[str, Given]:
    option = BY_NAME.get(key.replace("_", "-"))
    source = f"the key '{key}' in {path}"
    if option is None:
        raise OptionError(f"{source}: {unknown_option(key)}")
    items = value if isinstance(value, list) and option.repeatable else [value]
    return option.name, Given([_toml_text(option, item, source) for item in items], source)


def _toml_text(option: Option, value: object, source: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise OptionError(f"option '{option.name}': {value!r} from {source} is not valid: it takes {option.kind.allowed}")


def _notes(given: Mapping[str, Given]) -> list[str]:
    named = [BY_NAME[name] for name in given]
    notes = [f"the option '{option.name}' {option.note}" for option in named if option.note]
    if "port" in given:
        notes += [
            f"the option '{name}' has no effect, because 'port' is given"
            for name in ("http-port", "grpc-port", "metrics-port")
            if name in given
        ]
    if "rate-limit-resource" in given and "rate-limit" not in given:
        notes.append("the option 'rate-limit-resource' has no effect without --rate-limit=execution_count")
    return notes


def _misspelt_variables(environ: Mapping[str, str]) -> list[str]:
    """A warning for each variable that is nearly, but not quite, one of the options': it would do nothing silently."""
    known = [CONFIG_VARIABLE, *(option.variable for option in OPTIONS)]
    notes = []
    for name in environ:
        if name.startswith(PREFIX) and name not in known:
            near = get_close_matches(name, known, n=1, cutoff=0.9)
            if near:
                notes.append(f"the variable {name} is none of the server's; did you mean {near[0]}?")
    return notes
