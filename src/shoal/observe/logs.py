"""Logging: where the lines of the ``shoal`` loggers go, which of them, and in what shape.

Modules log through ``logging.getLogger("shoal.<part>")`` and give what belongs to a line as ``extra=``: ``model``,
``version``, ``request_id``, ``instance``. Nothing is logged per request unless the access log is on.
"""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass
from enum import Enum
from typing import TextIO

from shoal.errors import InvalidArgumentError
from shoal.observe.log_formats import HumanFormatter, JsonFormatter, TritonFormatter


class LogFormat(Enum):
    """The shape of a line; AUTO is HUMAN on a terminal and JSON elsewhere, the last two are Triton's."""

    AUTO = "auto"
    HUMAN = "human"
    JSON = "json"
    DEFAULT = "default"
    ISO8601 = "ISO8601"


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What is logged and how: Triton's ``--log-*`` options.

    Attributes:
        verbose: verbose level; 0 for none of it.
        info: whether lines of level INFO are written.
        warning: whether lines of level WARNING are written.
        error: whether lines of level ERROR are written.
        format: the shape of a line.
        file: the file to append to; ``""`` for standard error.
        access: whether every request gets a line.
    """

    verbose: int = 0
    info: bool = True
    warning: bool = True
    error: bool = True
    format: LogFormat = LogFormat.AUTO
    file: str = ""
    access: bool = False


_root = logging.getLogger("shoal")
_access = logging.getLogger("shoal.access")


def setup_logging(settings: LogSettings) -> None:
    """Write the ``shoal`` loggers' lines as the settings say; a second call replaces the first.

    Raises:
        InvalidArgumentError: the log file cannot be opened.
    """
    handler = _handler(settings)
    handler.addFilter(_LevelFilter(settings))
    for old in _root.handlers[:]:
        _root.removeHandler(old)
        old.close()
    _root.addHandler(handler)
    _root.setLevel(_lowest_level(settings))
    _root.propagate = False
    _access.setLevel(logging.INFO if settings.access else logging.CRITICAL + 1)


def access(
    *, protocol: str, peer: str, method: str, target: str, status: int, nbytes: int, duration_us: int, **known: object
) -> None:
    """Write the access log's line of one request; call it only when the access log is on.

    Args:
        protocol: ``http`` or ``grpc``.
        peer: the client's address.
        method: the HTTP method; ``POST`` for gRPC.
        target: the path and query.
        status: the HTTP status or the gRPC code.
        nbytes: length of the answer's body.
        duration_us: from the request's arrival to its answer.
        known: what else is known of it: ``model``, ``version``, ``request_id``; left out where it is empty.
    """
    extra = {"protocol": protocol, "peer": peer, "method": method, "target": target, "status": status}
    extra |= {"nbytes": nbytes, "duration_us": duration_us}
    extra |= {name: value for name, value in known.items() if value not in ("", None)}
    _access.info("request", extra=extra)


def _handler(settings: LogSettings) -> logging.Handler:
    if settings.file:
        try:
            handler: logging.Handler = logging.FileHandler(settings.file, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise InvalidArgumentError(
                f"log-file '{settings.file}' cannot be opened for writing: {error.strerror or error}"
            ) from None
        handler.setFormatter(_formatter(settings.format, None))
        return handler
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(settings.format, sys.stderr))
    return handler


def _formatter(shape: LogFormat, stream: TextIO | None) -> logging.Formatter:
    terminal = stream is not None and stream.isatty()
    if shape is LogFormat.AUTO:
        shape = LogFormat.HUMAN if terminal else LogFormat.JSON
    if shape is LogFormat.HUMAN:
        return HumanFormatter(colour=terminal and wants_colour())
    if shape is LogFormat.JSON:
        return JsonFormatter()
    return TritonFormatter(iso8601=shape is LogFormat.ISO8601)


def wants_colour() -> bool:
    """Whether a terminal may be written to in colour: no ``NO_COLOR`` in the environment, and not a dumb terminal."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _lowest_level(settings: LogSettings) -> int:
    switches = (
        (settings.verbose > 0, logging.DEBUG),
        (settings.info, logging.INFO),
        (settings.warning, logging.WARNING),
    )
    return next((level for on, level in switches if on), logging.ERROR)


class _LevelFilter(logging.Filter):
    """Triton's switches: each severity is on or off by itself. The access log has a switch of its own."""

    def __init__(self, settings: LogSettings) -> None:
        super().__init__()
        self._settings = settings

    def filter(self, record: logging.LogRecord) -> bool:
        settings, level = self._settings, record.levelno
        if record.name == _access.name:
            return settings.access
        if level >= logging.ERROR:
            return settings.error
        if level >= logging.WARNING:
            return settings.warning
        return settings.info if level >= logging.INFO else settings.verbose > 0
