"""``pb_utils.Logger``: a model's log lines, on the standard error of its process, in Triton's format."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from enum import IntEnum
from types import FrameType


class LogLevel(IntEnum):
    """Triton's log levels."""

    INFO = 0
    WARNING = 1
    ERROR = 2
    VERBOSE = 3


_LETTERS = {LogLevel.INFO: "I", LogLevel.WARNING: "W", LogLevel.ERROR: "E", LogLevel.VERBOSE: "I"}


class Logger:
    """Writes log lines; its methods are called on the class.

    Attributes:
        verbose: whether verbose lines are written; the server sets it.
    """

    INFO = LogLevel.INFO
    WARNING = LogLevel.WARNING
    ERROR = LogLevel.ERROR
    VERBOSE = LogLevel.VERBOSE

    verbose = False

    @staticmethod
    def log(message: str, level: LogLevel = LogLevel.INFO) -> None:
        """Write a line at a level."""
        _write(message, level, sys._getframe(1))  # noqa: SLF001 - the caller's file and line belong in the line

    @staticmethod
    def log_info(message: str) -> None:
        """Write a line of information."""
        _write(message, LogLevel.INFO, sys._getframe(1))  # noqa: SLF001

    @staticmethod
    def log_warn(message: str) -> None:
        """Write a warning."""
        _write(message, LogLevel.WARNING, sys._getframe(1))  # noqa: SLF001

    @staticmethod
    def log_error(message: str) -> None:
        """Write an error."""
        _write(message, LogLevel.ERROR, sys._getframe(1))  # noqa: SLF001

    @staticmethod
    def log_verbose(message: str) -> None:
        """Write a line for debugging; dropped unless verbose logging is on."""
        _write(message, LogLevel.VERBOSE, sys._getframe(1))  # noqa: SLF001


Logger.LogLevel = LogLevel  # type: ignore[attr-defined]  # inside the class the name would hide the type


def _write(message: str, level: LogLevel, caller: FrameType) -> None:
    if not isinstance(message, str):
        raise TypeError(f"Logger: the message must be a str, not {type(message).__name__}")
    if level is LogLevel.VERBOSE and not Logger.verbose:
        return
    now = datetime.now(UTC)
    place = f"{os.path.basename(caller.f_code.co_filename)}:{caller.f_lineno}"  # noqa: PTH119
    text = json.dumps(message, ensure_ascii=False)
    sys.stderr.write(f"{_LETTERS[level]}{now:%m%d %H:%M:%S.%f} {os.getpid()} {place}] {text}\n")
