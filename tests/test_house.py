"""The house rules that a machine can check; docs/contributing.md has them in words."""

import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "shoal"
MOST_LINES_IN_A_FILE = 600
MOST_LINES_IN_A_FUNCTION = 60
PYTHON_FOLDERS = ("src", "tests", "examples", "benchmarks")
PYTHON_FILES = sorted(
    path for folder in PYTHON_FOLDERS for path in (ROOT / folder).rglob("*.py") if not path.name.endswith("_pb2.py")
)
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")])
SHELL_FILES = sorted([*(ROOT / "scripts").iterdir(), ROOT / ".ci" / "run", *(ROOT / "examples").glob("*.sh")])
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FRAGMENT = re.compile(r"(\+[a-z0-9-]+|\d+)\.(added|changed|fixed|removed)\.md")


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function of a file, methods and inner functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_files_are_short() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in PYTHON_FILES}
    assert lengths
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES_IN_A_FILE} == {}


def test_functions_are_short() -> None:
    lengths = {
        f"{path.relative_to(ROOT)}:{function.lineno} {function.name}": function.end_lineno - function.lineno + 1
        for path in PYTHON_FILES
        for function in functions(path)
    }
    assert lengths
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES_IN_A_FUNCTION} == {}


def test_nothing_is_left_for_later() -> None:
    """No marker of unfinished work stands in the source."""
    marker = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}" for path in PYTHON_FILES for match in marker.finditer(path.read_text())
    ]
    assert found == []


def test_imports_go_down_only() -> None:
    """The contracts in pyproject.toml hold; import-linter's words say which import broke one."""
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def test_every_module_imports_and_exports_what_it_says() -> None:
    """No module is broken on its own, and each name in an ``__all__`` is there."""
    missing = []
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        if parts[-1] == "__main__":
            continue
        module = importlib.import_module(".".join(part for part in parts if part != "__init__"))
        missing += [f"{module.__name__}.{name}" for name in getattr(module, "__all__", ()) if not hasattr(module, name)]
    assert missing == []


def test_the_command_exists() -> None:
    """Each command that the package installs points at a function."""
    for target in PYPROJECT["project"]["scripts"].values():
        module, _, name = target.partition(":")
        assert callable(getattr(importlib.import_module(module), name))


def test_test_files_outside_packages_have_names_of_their_own() -> None:
    """pytest cannot tell two files of one name apart, unless their folders are packages."""
    loose = [path for path in (ROOT / "tests").rglob("test_*.py") if not (path.parent / "__init__.py").is_file()]
    assert sorted(path.name for path in loose) == sorted({path.name for path in loose})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """A link to a file of the repository names one that is there."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    targets = [target for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", text) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_every_page_is_in_the_navigation() -> None:
    """No page of the docs can only be found by its address, and none is missing."""
    navigation = set(re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert navigation == {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}


def test_docs_load_nothing_from_elsewhere() -> None:
    """The pages work without a network: no fonts, no plugin and no diagram that loads a script from elsewhere."""
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert site["theme"]["font"] is False
    assert site["plugins"] == ["search"]
    assert [page.name for page in (ROOT / "docs").rglob("*.md") if "```mermaid" in page.read_text()] == []


def test_every_dependency_has_its_reason() -> None:
    """docs/dependencies.md names each package of pyproject.toml, and no other."""
    project = PYPROJECT["project"]
    required = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    names = {re.match(r"[\w.-]+", line)[0] for line in required} - {project["name"]}
    page = (ROOT / "docs" / "dependencies.md").read_text()
    first_columns = re.findall(r"^\| ((?:`[^`|]+`(?:, )?)+) \| (?:((?:`[^`|]+`(?:, )?)+) \|)?", page, re.MULTILINE)
    written = {
        re.match(r"[\w.-]+", name)[0]
        for first, second in first_columns
        for name in re.findall(r"`([^`]+)`", second or first)
    }
    assert names == written


def test_changelog_entries_are_well_formed() -> None:
    """Each waiting entry has a name that towncrier knows, and is a sentence."""
    entries = [path for path in (ROOT / "changelog.d").iterdir() if path.name != "README.md"]
    assert [path.name for path in entries if not FRAGMENT.fullmatch(path.name)] == []
    assert [path.name for path in entries if not re.fullmatch(r"[A-Z`].*\.", path.read_text().strip(), re.DOTALL)] == []


@pytest.mark.parametrize("path", SHELL_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_shell_files_run_and_stop_at_errors(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert "set -euo pipefail" in lines
    assert os.access(path, os.X_OK)
    subprocess.run(["bash", "-n", path], check=True, timeout=10)
