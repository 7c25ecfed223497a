"""Where a model's batch strategy stands: a rule in Python, in place of Triton's C library for custom batching.

Triton looks for ``batchstrategy.so`` at ``TRITON_BATCH_STRATEGY_PATH``, or in the version's and the model's folder
(``backend_model.cc``). The same places are looked at for ``batchstrategy.py``. A model may have both, for both servers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shoal.config.problem import Problem, Source

PARAMETER = "TRITON_BATCH_STRATEGY_PATH"
FILE_NAME = "batchstrategy.py"
LIBRARY_NAME = "batchstrategy.so"
_PATH = f'parameters["{PARAMETER}"]'
_REWRITE = f"write the rule in Python, as a class BatchStrategy in {FILE_NAME} in the model's folder"


def find_strategy(parameter: str, model_dir: Path, version: int) -> Path | None:
    """The file with the rule of one version of a model; None when it has none.

    Args:
        parameter: the value of ``TRITON_BATCH_STRATEGY_PATH``, "" when it is not given.
        model_dir: the model's folder, which a relative path starts from.
        version: the version, whose folder comes first.
    """
    if parameter.endswith(".py"):
        return model_dir / parameter
    for folder in (model_dir / str(version), model_dir):
        if (folder / FILE_NAME).is_file():
            return folder / FILE_NAME
    return None


def strategy_problems(config: Any, source: Source, model_dir: Path) -> list[Problem]:
    """What is wrong with the batch strategy of a model whose configuration is complete."""
    if config.HasField("sequence_batching"):
        if PARAMETER not in config.parameters:
            return []
        text = f"{PARAMETER} cannot be specified with sequence batcher, using default batching strategy"
        return [source.problem(_PATH, text)]
    given = PARAMETER in config.parameters
    parameter = config.parameters[PARAMETER].string_value if given else ""
    versions = [folder for folder in model_dir.iterdir() if folder.name.isdecimal()] if model_dir.is_dir() else []
    found = [path for folder in versions if (path := find_strategy(parameter, model_dir, int(folder.name))) is not None]
    if not found:
        return _missing(parameter, given, source, [*versions, model_dir])
    place = _PATH if given else "dynamic_batching"
    if not all(path.is_file() for path in found):
        return [source.problem(_PATH, f"Batching library path not found: {found[0]}")]
    if not config.HasField("dynamic_batching"):
        text = f"{found[0]} chooses what the dynamic batcher joins, and needs it: add dynamic_batching {{ }}"
        return [source.problem(place, text)]
    return []


def _missing(parameter: str, given: bool, source: Source, folders: list[Path]) -> list[Problem]:
    """A library where there is no rule in Python."""
    if given:
        text = f"'{parameter}' is a C library, which Shoal does not load" if parameter else "must name a file"
        return [source.problem(_PATH, f"{text}; {_REWRITE}, and name that file or nothing here")]
    libraries = [folder / LIBRARY_NAME for folder in folders if (folder / LIBRARY_NAME).is_file()]
    return [
        source.problem("", f"{library} is a C library for custom batching, which Shoal does not load; {_REWRITE}")
        for library in libraries[:1]
    ]
