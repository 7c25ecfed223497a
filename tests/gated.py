"""A model that runs for as long as a test wants, and tells which batches it got."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tests.execution.models import write_model

PATIENCE_S = 20.0

CODE = """
from pathlib import Path

FOLDER = Path(__file__).parent

class TritonPythonModel:
    def execute(self, requests):
        rows = [str(len(value(request))) for request in requests]
        with open(FOLDER / "batches", "a") as file:
            file.write(" ".join(rows) + "\\n")
        while not (FOLDER / "open").exists():
            time.sleep(0.002)
        return [answer(value(request)) for request in requests]
"""


def wait_until(holds: Callable[[], object], what: str) -> None:
    """Look until it holds; what happens in another process gives no other sign."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.002)


class Gate:
    """The model ``name`` in a repository: its batches run until the gate is open.

    Args:
        repository: where to write it.
        name: the model's name.
        config: arguments of ``write_model``.
    """

    def __init__(self, repository: Path, name: str = "gated", **config: object) -> None:
        self._folder = write_model(repository, name, CODE, **config) / "1"

    def open(self) -> None:
        """Let batches through, those that run and those to come."""
        (self._folder / "open").touch()

    def close(self) -> None:
        """Hold the batches to come."""
        (self._folder / "open").unlink(missing_ok=True)

    @property
    def batches(self) -> list[list[int]]:
        """The batches that began: for each the rows of its requests."""
        try:
            text = (self._folder / "batches").read_text()
        except FileNotFoundError:
            return []
        return [[int(rows) for rows in line.split()] for line in text.splitlines()]

    def wait_for_batches(self, count: int) -> None:
        """Wait until so many batches have begun."""
        wait_until(lambda: len(self.batches) >= count, f"batch {count} of a gated model")

    def forget(self) -> None:
        """Count batches anew."""
        (self._folder / "batches").unlink(missing_ok=True)
