"""What the real Triton answered to the sequence cases, and what its models saw, as recorded.

``python tests/conformance/sequence_answers.py`` asks the real Triton and records what it does; it takes a minute and a
machine with nothing else to do, because half of it is about time.
"""

from __future__ import annotations

import json
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sequence_cases import IN_TURN, TIMED, Send, SequenceCase
from triton_peer import free_port, post, running

RECORDED = Path(__file__).with_name("sequence_answers.json")

Answer = str
"""The rows of the request's batch, or the status and text of its refusal."""


def recorded_answers() -> dict[str, list[Answer]]:
    """The answers to each case's requests, in their order."""
    return dict(json.loads(RECORDED.read_text()))


def write_models(repository: Path, cases: tuple[SequenceCase, ...]) -> dict[str, str]:
    """Write the models of these cases; gives their names by those of the cases."""
    names = {case.name: f"case_{place}" for place, case in enumerate(cases)}
    for case in cases:
        case.model.write(repository, names[case.name])
    return names


def ask_in_turn(address: str, model: str, case: SequenceCase) -> list[Answer]:
    """Send the case's requests, each when the one before it is answered."""
    return [ask(address, model, case, each) for each in case.sends]


def ask_timed(address: str, model: str, case: SequenceCase) -> list[Answer]:
    """Send the case's requests when it is their time."""
    start = time.monotonic() + 0.05

    def send(each: Send) -> Answer:
        time.sleep(max(0.0, start + each.at_ms / 1000 - time.monotonic()))
        return ask(address, model, case, each)

    with ThreadPoolExecutor(len(case.sends)) as senders:
        return list(senders.map(send, case.sends))


def ask(address: str, model: str, case: SequenceCase, send: Send) -> Answer:
    """Send one request."""
    url = f"{address}/v2/models/{model}/infer"
    status, body = post(url, {}, send.body(batched=case.model.max_batch_size > 0))
    message = json.loads(body)
    if "error" in message:
        return f"{status} {message['error'].replace(model, 'MODEL')}"
    return " | ".join(json.loads(message["outputs"][0]["data"][0])["rows"])


def ask_triton(folder: Path) -> dict[str, list[Answer]]:
    """What the real Triton does now."""
    repository = folder / "models"
    repository.mkdir()
    cases = IN_TURN + TIMED
    names = write_models(repository, cases)
    with running(repository, free_port()) as address:
        answers = {case.name: ask_in_turn(address, names[case.name], case) for case in IN_TURN}
        return answers | {case.name: ask_timed(address, names[case.name], case) for case in TIMED}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        RECORDED.write_text(json.dumps(ask_triton(Path(folder)), indent=2) + "\n")
