"""``--cache-config``: which cache, and its settings, checked and typed.

Triton takes one setting per flag (``--cache-config redis,host=h --cache-config redis,port=6379``); here one flag may
have several (``redis,host=h,port=6379``) as well.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

from shoal.errors import InvalidArgumentError, nearest

LOCAL, REDIS = "local", "redis"
NAMES = (LOCAL, REDIS)

SMALLEST_NBYTES = 1024
LARGEST_NBYTES = (1 << 63) - 1
USERNAME_VARIABLE, PASSWORD_VARIABLE = "TRITONCACHE_REDIS_USERNAME", "TRITONCACHE_REDIS_PASSWORD"
ONLY_ONE = "found multiple cache configurations, but only a single cache is currently supported"

_SETTING = re.compile(r"\s*(?P<name>[^,=\s]+)\s*,(?P<pairs>.*)", re.DOTALL)
_NEXT_PAIR = re.compile(r",(?=\s*[A-Za-z_]+\s*=)")
"""A comma that a key and an equals sign follow; any other belongs to a value, such as a password."""


Number = TypeVar("Number", int, float)


class CacheSetting(NamedTuple):
    """One ``--cache-config``: a cache's name and the settings given for it."""

    cache: str
    pairs: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        return f"CacheSetting({self.cache!r}, {[key for key, _ in self.pairs]})"  # a value may be a password


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """The cache in this process's memory.

    Attributes:
        size_nbytes: what its responses may take.
        ttl_s: how long it keeps a response, in seconds; 0 for as long as there is room.
    """

    size_nbytes: int
    ttl_s: float = 0.0


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """TLS to Redis: a client certificate and its key, what the server's must come from, and the name asked for."""

    cert: str = ""
    key: str = ""
    cacert: str = ""
    cacert_dir: str = ""
    sni: str = ""


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """The cache in Redis.

    Attributes:
        host: where Redis listens.
        port: its port.
        user: who logs in; "" for Redis's default user.
        password: with which password; "" for none.
        db: which of its databases.
        connect_timeout_s: the longest time that connecting may take.
        socket_timeout_s: the longest time for the answer to a command.
        pool_size: connections that are kept.
        wait_timeout_s: the longest time that a lookup waits for one of them.
        ttl_s: how long Redis keeps a response; 0 for as long as its own policy does.
        tls: None for a connection in the clear.
    """

    host: str
    port: int = 6379
    user: str = ""
    password: str = field(default="", repr=False)
    db: int = 0
    connect_timeout_s: float = 1.0
    socket_timeout_s: float = 0.25
    pool_size: int = 4
    wait_timeout_s: float = 0.1
    ttl_s: float = 0.0
    tls: TlsSettings | None = None


CacheSettings = LocalSettings | RedisSettings


def parse_setting(text: str) -> CacheSetting:
    """Take one ``--cache-config`` apart.

    Raises:
        ValueError: it is not NAME,KEY=VALUE.
    """
    match = _SETTING.fullmatch(text)
    if match is None:
        raise ValueError
    pairs = []
    for part in _NEXT_PAIR.split(match["pairs"]):
        key, equals, value = part.partition("=")
        if not (equals and key.strip()):  # can only be the first: the others were found by their equals sign
            raise ValueError
        pairs.append((key.strip(), value))
    return CacheSetting(match["name"], tuple(pairs))


def cache_settings(given: Iterable[CacheSetting], environ: Mapping[str, str] | None = None) -> CacheSettings | None:
    """What the settings together say; None when none is given. A later setting of a key counts before an earlier one.

    Args:
        given: every ``--cache-config``.
        environ: where Redis's user and password stand when they are not given; None for the process's environment.

    Raises:
        InvalidArgumentError: with one line per problem.
    """
    given = list(given)
    if not given:
        return None
    names = {setting.cache for setting in given}
    for name in names.difference(NAMES):
        raise InvalidArgumentError(
            f"--cache-config: there is no cache '{name}', only {LOCAL} and {REDIS}{nearest(name, NAMES)}"
        )
    if len(names) > 1:
        raise InvalidArgumentError(f"--cache-config: {ONLY_ONE}; give the settings of {LOCAL} or of {REDIS}")
    values = dict(pair for setting in given for pair in setting.pairs)
    read = _Reader(given[0].cache, values)
    settings = _local(read) if given[0].cache == LOCAL else _redis(read, os.environ if environ is None else environ)
    read.check()
    return settings


class _Reader:
    """Reads values one by one and gathers what is wrong with them; never shows a value that may be secret."""

    def __init__(self, cache: str, values: dict[str, str]) -> None:
        self._cache = cache
        self._values = values
        self._known: dict[str, None] = {}
        self._problems: list[str] = []

    def text(self, key: str, default: str = "") -> str:
        self._known[key] = None
        return self._values.get(key, default)

    def needed(self, key: str, meaning: str) -> str:
        if not self._values.get(key):
            self.problem(f"needs {key}=..., {meaning}")
        return self.text(key)

    def integer(self, key: str, default: int, minimum: int, maximum: int = 2**31 - 1) -> int:
        def parse(text: str) -> int:
            if not re.fullmatch(r"[0-9]{1,19}", text) or not minimum <= int(text) <= maximum:
                raise ValueError
            return int(text)

        return self._number(key, default, parse, f"an integer from {minimum} to {maximum}")

    def milliseconds(self, key: str, default_s: float) -> float:
        """A time limit in seconds; 0, which is none in Triton, is the default here: no lookup may hang a request."""
        milliseconds = self.integer(key, 0, 0)
        return milliseconds / 1000 if milliseconds else default_s

    def ttl_s(self) -> float:
        def parse(text: str) -> float:
            value = float(text)
            if not (math.isfinite(value) and value >= 0.001):
                raise ValueError
            return value

        return self._number("ttl", 0.0, parse, "a number of seconds of at least 0.001")

    def boolean(self, key: str) -> bool | None:
        text = self.text(key).lower()
        if text and text not in ("yes", "no", "true", "false", "on", "off", "1", "0"):
            self.problem(f"{key}={text} is not valid: it takes yes or no")
        return text in ("yes", "true", "on", "1") if text else None

    def file(self, key: str, *, folder: bool = False) -> str:
        text = self.text(key)
        if text and not (Path(text).is_dir() if folder else Path(text).is_file()):
            self.problem(f"{key}={text} is not valid: there is no such {'folder' if folder else 'file'}")
        return text

    def _number(self, key: str, default: Number, parse: Callable[[str], Number], allowed: str) -> Number:
        text = self.text(key)
        if not text:
            return default
        try:
            return parse(text)
        except ValueError:
            self.problem(f"{key}={text} is not valid: it takes {allowed}")
            return default

    def problem(self, text: str) -> None:
        self._problems.append(f"--cache-config {self._cache}: {text}")

    def check(self) -> None:
        for key in self._values:
            if key not in self._known:
                hint = nearest(key, self._known)
                self.problem(f"there is no setting '{key}', only {', '.join(self._known)}{hint}")
        if self._problems:
            raise InvalidArgumentError("\n".join(self._problems))


def _local(read: _Reader) -> LocalSettings:
    if not read.needed("size", "the bytes that it may use"):
        return LocalSettings(0, read.ttl_s())
    return LocalSettings(read.integer("size", 0, SMALLEST_NBYTES, LARGEST_NBYTES), read.ttl_s())


def _redis(read: _Reader, environ: Mapping[str, str]) -> RedisSettings:
    default = RedisSettings("")
    return RedisSettings(
        host=read.needed("host", "where Redis listens"),
        port=read.integer("port", default.port, 1, 65535),
        user=read.text("user", environ.get(USERNAME_VARIABLE, "")),
        password=read.text("password", environ.get(PASSWORD_VARIABLE, "")),
        db=read.integer("db", default.db, 0),
        connect_timeout_s=read.milliseconds("connect_timeout", default.connect_timeout_s),
        socket_timeout_s=read.milliseconds("socket_timeout", default.socket_timeout_s),
        pool_size=read.integer("pool_size", default.pool_size, 1, 1024),
        wait_timeout_s=read.milliseconds("wait_timeout", default.wait_timeout_s),
        ttl_s=read.ttl_s(),
        tls=_tls(read),
    )


def _tls(read: _Reader) -> TlsSettings | None:
    enabled = read.boolean("tls_enabled")
    tls = TlsSettings(
        cert=read.file("cert"),
        key=read.file("key"),
        cacert=read.file("cacert"),
        cacert_dir=read.file("cacert_dir", folder=True),
        sni=read.text("sni"),
    )
    if tls.key and not tls.cert:
        read.problem("key needs cert, the client's certificate")
    given = tls != TlsSettings()
    if given and enabled is False:
        read.problem("tls_enabled=no does not go with cert, key, cacert, cacert_dir or sni")
    return tls if enabled or given else None
