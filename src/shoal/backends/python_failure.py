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


def log(error: BaseException) -> None:
    """Write the error with its whole traceback to standard error, where the server's log takes it up."""
    traceback.print_exception(error, file=sys.stderr)
