"""Where a batch strategy is looked for, and what is said of Triton's C libraries (custom batching)."""

from __future__ import annotations

import pytest

from shoal.config.batch_strategy import find_strategy
from shoal.config.check import check_tensors
from shoal.config.complete import complete_config
from shoal.config.read import parse_config
from shoal.config.tree import Dialect

BASE = """
backend: "python"
max_batch_size: 8
input { name: "a" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "b" data_type: TYPE_FP32 dims: [ 4 ] }
"""
BATCHING = "dynamic_batching { }"
PATH = 'parameters { key: "TRITON_BATCH_STRATEGY_PATH" value { string_value: "%s" } }'


def problems(tmp_path, text, *files):
    folder = tmp_path / "m"
    (folder / "1").mkdir(parents=True)
    for name in files:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    document = parse_config(BASE + text, Dialect.TEXT, "FILE")
    complete_config(document.config, folder, 0)
    return [str(problem) for problem in check_tensors(document.config, document.source, folder)]


@pytest.mark.parametrize(
    ("text", "files"),
    [
        (BATCHING, []),
        ("", []),
        (BATCHING, ["batchstrategy.py"]),
        (BATCHING, ["1/batchstrategy.py"]),
        (BATCHING, ["batchstrategy.py", "batchstrategy.so"]),
        (BATCHING + PATH % "rules/mine.py", ["rules/mine.py"]),
        (BATCHING + PATH % "mine.so", ["mine.so", "batchstrategy.py"]),
        ("sequence_batching { }", ["batchstrategy.so"]),
    ],
)
def test_what_is_fine(tmp_path, text, files):
    assert problems(tmp_path, text, *files) == []


LIBRARY = "is a C library"
REWRITE = "write the rule in Python, as a class BatchStrategy in batchstrategy.py in the model's folder"


@pytest.mark.parametrize(
    ("text", "files", "parts"),
    [
        (
            "sequence_batching { }" + PATH % "mine.py",
            ["mine.py"],
            ["TRITON_BATCH_STRATEGY_PATH cannot be specified with sequence batcher, using default batching strategy"],
        ),
        (BATCHING + PATH % "mine.so", ["mine.so"], ["'mine.so' is a C library, which Shoal does not load", REWRITE]),
        (BATCHING + PATH % "", [], ["must name a file", REWRITE]),
        (BATCHING + PATH % "no.py", [], ["Batching library path not found: ", "m/no.py"]),
        (BATCHING, ["batchstrategy.so"], ["m/batchstrategy.so is a C library for custom batching", REWRITE]),
        (BATCHING, ["1/batchstrategy.so"], ["m/1/batchstrategy.so is a C library for custom batching", REWRITE]),
        ("", ["batchstrategy.py"], ["dynamic_batching: ", "and needs it: add dynamic_batching { }"]),
        (PATH % "a.py", ["a.py"], ['FILE:6: parameters["TRITON_BATCH_STRATEGY_PATH"]: ', "add dynamic_batching { }"]),
    ],
)
def test_what_is_refused(tmp_path, text, files, parts):
    (found,) = problems(tmp_path, text, *files)
    assert all(part in found for part in parts), found


def test_the_versions_folder_comes_before_the_models(tmp_path):
    (tmp_path / "2").mkdir()
    (tmp_path / "batchstrategy.py").touch()
    (tmp_path / "2" / "batchstrategy.py").touch()
    assert find_strategy("", tmp_path, 1) == tmp_path / "batchstrategy.py"
    assert find_strategy("", tmp_path, 2) == tmp_path / "2" / "batchstrategy.py"
    assert find_strategy("/elsewhere/rule.py", tmp_path, 2).as_posix() == "/elsewhere/rule.py"
