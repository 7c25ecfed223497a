"""What sequence models see in the real Triton, as recorded.

``python tests/conformance/sequence_sight_answers.py`` asks the real Triton and records what its models tell.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from sequence_sight_cases import CASES
from triton_peer import free_port, post, running

RECORDED = Path(__file__).with_name("sequence_sight_answers.json")

Answers = dict[str, list[Any]]
"""For each case and request what the model told: of each row of the batch, or the status and text of a refusal."""


def recorded_answers() -> Answers:
    """What the real Triton's models told when it was recorded."""
    return dict(json.loads(RECORDED.read_text()))


def write_models(repository: Path) -> None:
    """Write the model of each case, named by its place."""
    for place, case in enumerate(CASES):
        case.model.write(repository, f"case_{place}")


def ask(address: str) -> Answers:
    """Send the requests of every case, each when the one before it is answered."""
    answers: Answers = {}
    for place, case in enumerate(CASES):
        model = f"case_{place}"
        url = f"{address}/v2/models/{model}/infer"
        answers[case.name] = [
            told(model, *post(url, {}, each.body(batched=case.model.max_batch_size > 0))) for each in case.asks
        ]
    return answers


def told(model: str, status: int, body: bytes) -> Any:
    """What an answer says."""
    message = json.loads(body)
    if "error" in message:
        return f"{status} {message['error'].replace(model, 'MODEL')}"
    return json.loads(message["outputs"][0]["data"][0])


def ask_triton(folder: Path) -> Answers:
    """What the real Triton does now."""
    repository = folder / "models"
    repository.mkdir()
    write_models(repository)
    with running(repository, free_port()) as address:
        return ask(address)


def one_answer_per_line(answers: Answers) -> str:
    """The answers in JSON, laid out so that a change can be read."""
    cases = []
    for name, told_each in answers.items():
        lines = ",\n  ".join(json.dumps(each, ensure_ascii=False, sort_keys=True) for each in told_each)
        cases.append(f"{json.dumps(name)}: [\n  {lines}\n ]")
    return "{\n " + ",\n ".join(cases) + "\n}\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        RECORDED.write_text(one_answer_per_line(ask_triton(Path(folder))))
