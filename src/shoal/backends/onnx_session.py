"""Opens an ONNX model as an ONNX Runtime session, and says in one line why that is not possible."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from shoal.backends.contract import ModelFiles
from shoal.errors import InvalidArgumentError, NotFoundError, UnsupportedError, nearest

DEFAULT_FILENAME = "model.onnx"
_CODE = re.compile(r"^\[ONNXRuntimeError\] : (\d+) : \w+ : ")


def find_model_file(model: str, files: ModelFiles, filename: str) -> Path:
    """The ONNX file of a model version.

    Args:
        model: the model's name.
        files: where the model lies.
        filename: the configuration's ``default_model_filename``; empty for ``model.onnx``. It may be a directory, which
            then holds ``model.onnx`` and the files of its weights.

    Raises:
        NotFoundError: there is no such file.
    """
    path = files.version_dir / (filename or DEFAULT_FILENAME)
    if path.is_dir():
        path /= DEFAULT_FILENAME
    if not path.is_file():
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise NotFoundError(f"model '{model}': there is no file '{path}'{nearest(path.name, beside)}")
    return path


def open_session(model: str, path: Path, options: Any, providers: list[tuple[str, dict[str, str]]]) -> Any:
    """An ``InferenceSession`` of a file.

    Args:
        model: the model's name.
        path: the ONNX file.
        options: ``SessionOptions``.
        providers: execution providers with their options.

    Raises:
        InvalidArgumentError: ONNX Runtime cannot load the file.
        UnsupportedError: ONNX Runtime cannot use the provider that was asked for.
    """
    import onnxruntime  # noqa: PLC0415 - heavy: only workers that run ONNX models import it

    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # ONNX Runtime's errors have no common class
        raise InvalidArgumentError(f"model '{model}': ONNX Runtime cannot load '{path}': {describe(error)}") from error
    wanted = providers[0][0]
    if wanted not in session.get_providers():
        raise UnsupportedError(
            f"model '{model}': ONNX Runtime has {wanted}, but cannot use it on this machine (driver or libraries are "
            f"missing); it would run on {', '.join(session.get_providers())}"
        )
    return session


def describe(error: Exception) -> str:
    """ONNX Runtime's message in Triton's form, ``onnx runtime error 2: ...``, on one line."""
    text = " ".join(str(error).split())
    match = _CODE.match(text)
    return f"onnx runtime error {match[1]}: {text[match.end() :]}" if match else f"onnx runtime error: {text}"
