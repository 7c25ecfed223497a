"""What the real Triton's Python models see of ragged batches, as recorded.

``python tests/conformance/ragged_answers.py`` asks the real Triton and records what it answers.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from ragged_cases import CASES, play, write_models
from triton_peer import free_port, running

RECORDED = Path(__file__).with_name("ragged_answers.json")


def recorded_answers() -> dict[str, list[object]]:
    """The answers to each case's requests."""
    return dict(json.loads(RECORDED.read_text()))


def ask_triton(folder: Path) -> dict[str, list[object]]:
    """Play every case to the real server."""
    repository = folder / "models"
    repository.mkdir()
    write_models(repository)
    with running(repository, free_port()) as address:
        return {name: play(address, name) for name in CASES}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        lines = [f"{json.dumps(name)}: {json.dumps(answers)}" for name, answers in ask_triton(Path(made)).items()]
        RECORDED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
