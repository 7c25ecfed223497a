"""The page about Triton's scheduling names tests that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PAGE = (TESTS.parent / "docs" / "conformance.md").read_text()


def test_every_test_on_the_page_exists():
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)
    assert len(named) == PAGE.count("::") - 1  # that of the sentence which explains it
    missing = [f"{file}::{name}" for file, name in named if name not in functions_of(file)]
    assert missing == []


def functions_of(file: str) -> set[str]:
    path = TESTS / file
    tree = ast.parse(path.read_text()) if path.exists() else ast.Module([], [])
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_a_line_without_a_test_says_that_something_is_not_there():
    """Of what is the same as in Triton, each line has its test."""
    lines = [line.split("|")[1:-1] for line in PAGE.splitlines() if line.startswith("| ")]
    bare = [
        first.strip() for first, here, test in lines if "::" not in test and here.strip() not in ("here", "see below")
    ]
    assert [first for first in bare if "sequence_*" not in first and "GPU" not in first] == []
