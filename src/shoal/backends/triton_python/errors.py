"""``TritonError`` and ``TritonModelException``: how a Python model says that something failed."""

from __future__ import annotations

from enum import IntEnum

from shoal.errors import Status


class ErrorCode(IntEnum):
    """Triton's error codes, with Triton's numbers."""

    UNKNOWN = 0
    INTERNAL = 1
    NOT_FOUND = 2
    INVALID_ARG = 3
    UNAVAILABLE = 4
    UNSUPPORTED = 5
    ALREADY_EXISTS = 6
    CANCELLED = 7


class TritonModelException(Exception):  # noqa: N818 - Triton's name
    """An error in a call to ``pb_utils``, or one that a model raises itself."""


class TritonError:
    """The error that one response carries; it fails its own request only.

    Args:
        message: what the client reads.
        code: one of the codes below; INTERNAL when left out.
    """

    __slots__ = ("_code", "_message")

    UNKNOWN = ErrorCode.UNKNOWN
    INTERNAL = ErrorCode.INTERNAL
    NOT_FOUND = ErrorCode.NOT_FOUND
    INVALID_ARG = ErrorCode.INVALID_ARG
    UNAVAILABLE = ErrorCode.UNAVAILABLE
    UNSUPPORTED = ErrorCode.UNSUPPORTED
    ALREADY_EXISTS = ErrorCode.ALREADY_EXISTS
    CANCELLED = ErrorCode.CANCELLED

    def __init__(self, message: str, code: ErrorCode = ErrorCode.INTERNAL) -> None:
        if not isinstance(message, str):
            raise TypeError(f"TritonError: the message must be a str, not {type(message).__name__}")
        if not isinstance(code, ErrorCode):
            raise TypeError(f"TritonError: the code must be one such as TritonError.INVALID_ARG, not {code!r}")
        self._message = message
        self._code = code

    def message(self) -> str:
        """The text."""
        return self._message

    def code(self) -> ErrorCode:
        """The code."""
        return self._code


def status_of(error: TritonError) -> Status:
    """The server's status for a model's error."""
    return Status[error.code().name]
