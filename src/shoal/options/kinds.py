"""What an option's value may be: how it is written, how it is read, and how a message describes it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from shoal.caching.settings import LARGEST_NBYTES, SMALLEST_NBYTES, parse_setting
from shoal.scheduling.rate_limiter import ResourceLimit

TRUE_WORDS = ("true", "on", "1")
FALSE_WORDS = ("false", "off", "0")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value.

    Attributes:
        metavar: stands for the value in the help.
        allowed: what is allowed, to end a sentence such as "it takes an integer of at least 0".
        parse: makes the value from its text; raises ValueError, or RefusedError when there is more to say.
        show: writes a default for the documentation.
    """

    metavar: str
    allowed: str
    parse: Callable[[str], object]
    show: Callable[[object], str] = str


class RefusedError(ValueError):
    """A value cannot be taken, and the text says why, in place of the kind's ``allowed``."""


class BackendSetting(NamedTuple):
    """One ``--backend-config``: ``backend`` is ``""`` for a setting that holds for every backend."""

    backend: str
    key: str
    value: str


def _boolean(text: str) -> bool:
    word = text.lower()
    if word in TRUE_WORDS or word in FALSE_WORDS:
        return word in TRUE_WORDS
    raise ValueError


BOOLEAN = Kind("BOOLEAN", "true, on, 1, false, off or 0", _boolean, lambda value: str(value).lower())
TEXT = Kind("TEXT", "any text", str, str)


def integer(minimum: int, maximum: int | None = None) -> Kind:
    """Whole numbers from ``minimum`` to ``maximum``."""
    allowed = f"an integer of at least {minimum}" if maximum is None else f"an integer from {minimum} to {maximum}"

    def parse(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,19}", text):
            raise ValueError
        value = int(text)
        if value < minimum or (maximum is not None and value > maximum):
            raise ValueError
        return value

    return Kind("INTEGER", allowed, parse)


PORT = integer(0, 65535)


def _seconds(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or value < 0:
        raise ValueError
    return value


SECONDS = Kind("SECONDS", "a number of seconds of at least 0", _seconds, lambda value: f"{value:g}")


def choice(*words: str, refused: Mapping[str, str] | None = None) -> Kind:
    """One of some words, in any case; ``refused`` says of other words that are known why they are not taken."""

    def parse(text: str) -> str:
        for word in words:
            if word.lower() == text.lower():
                return word
        if refused and text.lower() in refused:
            raise RefusedError(refused[text.lower()])
        raise ValueError

    return Kind("|".join(words), _listed(words), parse)


def choice_of(members: type[Enum]) -> Kind:
    """A member of an enum, named by its value."""
    words = choice(*(str(member.value) for member in members))
    return Kind(
        words.metavar,
        words.allowed,
        lambda text: members(words.parse(text)),
        lambda value: str(value.value) if isinstance(value, Enum) else str(value),
    )


def _listed(words: tuple[str, ...]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise RefusedError(f"it takes a regular expression, and this one is wrong: {error}") from None
    return text


REGEX = Kind("REGEX", "a regular expression", _regex)


def _file(text: str) -> str:
    if not Path(text).is_file():
        raise RefusedError("it takes the path of a file, and there is none here")
    return text


FILE = Kind("FILE", "the path of a file that exists", _file)

_BACKEND_SETTING = re.compile(r"(?:(?P<backend>[^,=]*),)?(?P<key>[^,=]+)=(?P<value>.*)", re.DOTALL)


def _backend_setting(text: str) -> BackendSetting:
    match = _BACKEND_SETTING.fullmatch(text)
    if match is None:
        raise ValueError
    return BackendSetting(match["backend"] or "", match["key"], match["value"])


BACKEND_SETTING = Kind("BACKEND,KEY=VALUE", "BACKEND,KEY=VALUE, or KEY=VALUE for every backend", _backend_setting)

CACHE_SETTING = Kind("NAME,KEY=VALUE", "NAME,KEY=VALUE, with further ,KEY=VALUE behind it or not", parse_setting)
CACHE_NBYTES = integer(SMALLEST_NBYTES, LARGEST_NBYTES)

_RESOURCE_LIMIT = re.compile(r"(?P<name>[^:]+):(?P<count>[0-9]{1,9})(?::(?P<device>[0-9]{1,9}))?")


def _resource_limit(text: str) -> ResourceLimit:
    match = _RESOURCE_LIMIT.fullmatch(text)
    if match is None:
        raise ValueError
    device = match["device"]
    return ResourceLimit(match["name"], int(match["count"]), None if device is None else int(device))


RESOURCE_LIMIT = Kind("NAME:COUNT[:DEVICE]", "NAME:COUNT, or NAME:COUNT:DEVICE", _resource_limit)
