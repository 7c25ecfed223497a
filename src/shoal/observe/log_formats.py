"""The shapes of a log line: for people, for programs, and as Triton writes it."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record has; whatever else a record has was given as ``extra=``."""

_COLOURS = {"D": "\x1b[2m", "I": "\x1b[36m", "W": "\x1b[33m", "E": "\x1b[31m"}
_FAINT, _PLAIN = "\x1b[2m", "\x1b[0m"


def _letter(record: logging.LogRecord) -> str:
    """The severity as Triton abbreviates it; verbose lines are I there, and D here, to tell them apart."""
    if record.levelno >= logging.ERROR:
        return "E"
    if record.levelno >= logging.WARNING:
        return "W"
    return "I" if record.levelno >= logging.INFO else "D"


def _extras(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _trouble(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """The traceback and stack that came with the record, as text; empty when none did."""
    texts = []
    if record.exc_info:
        texts.append(formatter.formatException(record.exc_info))
    if record.stack_info:
        texts.append(formatter.formatStack(record.stack_info))
    return "\n".join(texts)


def _one_line(text: str) -> str:
    """The text with control characters escaped, so that nothing a client sends can forge a line or move a cursor."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _lines(text: str) -> str:
    """The same for a text that may have several lines: those after the first are indented."""
    return "\n    ".join(_one_line(line) for line in text.split("\n"))


class HumanFormatter(logging.Formatter):
    """``12:00:00.000 I shoal.server: message  model=m version=1``, the severity coloured on a terminal."""

    def __init__(self, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback below it when there is one."""
        when = datetime.fromtimestamp(record.created).astimezone()
        letter = _letter(record)
        severity, faint, plain = (_COLOURS[letter], _FAINT, _PLAIN) if self._colour else ("", "", "")
        extras = "".join(f" {name}={_one_line(str(value))}" for name, value in _extras(record).items())
        time = f"{when:%H:%M:%S}.{when.microsecond // 1000:03}"
        head = f"{faint}{time}{plain} {severity}{letter}{plain} {faint}{record.name}:{plain}"
        line = f"{head} {_lines(record.getMessage())}"
        trouble = _trouble(self, record)
        return line + (f" {faint}{extras}{plain}" if extras else "") + (f"\n{trouble}" if trouble else "")


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time (UTC), level, logger, message, the extras by their names, and any traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        when = datetime.fromtimestamp(record.created, UTC)
        entry: dict[str, object] = {
            "time": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": "verbose" if record.levelno < logging.INFO else record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in _extras(record).items():
            entry.setdefault(name, value)
        trouble = _trouble(self, record)
        if trouble:
            entry["exception"] = trouble
        return json.dumps(entry, default=str, ensure_ascii=False).translate(_LINE_BREAKS)


_LINE_BREAKS = {0x2028: "\\u2028", 0x2029: "\\u2029", 0x85: "\\u0085"}
"""What some readers take for the end of a line although JSON allows it in a string."""


class TritonFormatter(logging.Formatter):
    """Triton's two forms (section 1.12), for log readers that know them.

    ``I0721 12:00:00.000000 41 server.py:17] "message"``, or with ISO 8601 time
    ``2026-07-21T12:00:00Z I 41 server.py:17] "message"``.
    """

    def __init__(self, iso8601: bool) -> None:
        super().__init__()
        self._iso8601 = iso8601

    def format(self, record: logging.LogRecord) -> str:
        """One line; the message is a JSON string, extras and traceback included."""
        when = datetime.fromtimestamp(record.created, UTC)
        letter = _letter(record).replace("D", "I")
        head = f"{when:%Y-%m-%dT%H:%M:%SZ} {letter}" if self._iso8601 else f"{letter}{when:%m%d %H:%M:%S.%f}"
        extras = "".join(f" {name}={value}" for name, value in _extras(record).items())
        trouble = _trouble(self, record)
        message = record.getMessage() + extras + (f"\n{trouble}" if trouble else "")
        return f"{head} {record.process} {record.filename}:{record.lineno}] {json.dumps(message)}"
