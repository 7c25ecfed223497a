"""The real Triton's answers to the admission cases, asked anew or as recorded.

``python tests/conformance/admission_answers.py`` asks the real Triton and records what it says.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from admission_cases import CASES, MODELS, Case, http_of
from triton_peer import post, serving

RECORDED = Path(__file__).with_name("admission_answers.json")

Answer = dict[str, object]
"""``status`` and, of a refusal, ``error``; of a success, the names of the ``outputs`` in their order."""


def recorded_answers() -> dict[str, Answer]:
    """What the real Triton said when the answers were recorded, by case name."""
    return dict(json.loads(RECORDED.read_text()))


def ask_triton(folder: Path) -> dict[str, Answer]:
    """What the real Triton says now."""
    repository = folder / "models"
    repository.mkdir()
    with serving(repository, MODELS.values()) as address:
        return {case.name: ask(address, case) for case in CASES}


def ask(address: str, case: Case) -> Answer:
    """Send one case."""
    status, body = post(f"{address}/v2/models/{case.model}/infer", *http_of(case))
    # A success may have binary tensors behind its JSON.
    message, _ = json.JSONDecoder().raw_decode(body.decode("latin1"))
    if "error" in message:
        return {"status": status, "error": message["error"]}
    return {"status": status, "outputs": [output["name"] for output in message["outputs"]]}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        RECORDED.write_text(json.dumps(ask_triton(Path(folder)), indent=2) + "\n")
