"""What a user reads when the code of a Python model fails: Triton's wording, and places in the model's own files."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

_OWN_FILES = str(Path(__file__).parent)
_MACHINERY = ("<frozen importlib", str(Path(traceback.__file__).parent / "asyncio"))


def describe(error: BaseException) -> str:
    """The error's type and message, and the lines that led to it, innermost first.

    The form is that of Triton's Python backend::

        KeyError: 'nokey'

        At:
          /models/m/1/model.py(4): helper
          /models/m/1/model.py(11): execute
    """
    text = f"{type(error).__name__}: {error}"
    frames = [
        f"  {frame.filename}({frame.lineno}): {frame.name}\n"
        for frame in reversed(traceback.extract_tb(error.__traceback__))
        if not frame.filename.startswith((_OWN_FILES, *_MACHINERY))
    ]
    return f"{text}\n\nAt:\n{''.join(frames)}" if frames else text


def describe_load(error: BaseException) -> str:
    """The same for an error that kept a model from loading, and for those that caused it.

    It takes the place of a traceback: whoever starts the server reads this one message.
    """
    text = describe(error)
    while (cause := error.__cause__ or (None if error.__suppress_context__ else error.__context__)) is not None:
        text = f"{text.rstrip()}\n\nCaused by {describe(cause)}"
        error = cause
    return text


def log(error: BaseException) -> None:
    """Write the error with its whole traceback to standard error, where the server's log takes it up."""
    traceback.print_exception(error, file=sys.stderr)
