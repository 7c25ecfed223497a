"""What the real Triton did with the policy cases, as recorded.

``python tests/conformance/policy_answers.py`` asks the real Triton and records it; it takes a minute, on a machine with
nothing else to do, because it is about time.
"""

from __future__ import annotations

import json
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from admission_cases import Case, http_of, zeros
from batch_cases import Arrival
from policy_cases import CASES, MODEL_CODE, PolicyCase, spec_of
from triton_peer import free_port, post, running, write_model

TOGETHER_S = 0.05
RECORDED = Path(__file__).with_name("policy_answers.json")

Outcome = str | int | list[int]
"""The text of a refusal; a request's batch and how many ran in it; or how many were answered clearly before it."""


def recorded_outcomes() -> dict[str, list[Outcome]]:
    """What became of each case's requests, in the order of their arrival."""
    return dict(json.loads(RECORDED.read_text()))


def ask_triton(folder: Path) -> dict[str, list[Outcome]]:
    """Play every case to the real server."""
    repository = folder / "models"
    repository.mkdir()
    for case in CASES:
        write_model(repository, spec_of(case))
        (repository / spec_of(case).name / "1" / "model.py").write_text(MODEL_CODE)
    with running(repository, free_port()) as address:
        return {case.name: play(f"{address}/v2/models/{spec_of(case).name}/infer", case) for case in CASES}


def play(url: str, case: PolicyCase) -> list[Outcome]:
    """Send the case's requests when it is their time."""
    start = time.monotonic() + 0.05
    with ThreadPoolExecutor(len(case.arrivals)) as senders:
        sent = [senders.submit(send, url, each, start, place) for place, each in enumerate(case.arrivals)]
        answers = [each.result() for each in sent]
    if case.instances == 1:
        return [found for found, _ in answers]
    return places([ended for _, ended in answers])


def places(ended_s: list[float]) -> list[Outcome]:
    """For each answer, how many others clearly came before it: those that are released together race to the client."""
    return [sum(other < own - TOGETHER_S for other in ended_s) for own in ended_s]


def send(url: str, arrival: Arrival, start: float, place: int) -> tuple[Outcome, float]:
    parameters = {"priority": arrival.priority, "timeout": arrival.timeout_us}
    given = {name: value for name, value in parameters.items() if value}
    tensors = (zeros("A", "FP32", arrival.rows, arrival.width),)
    headers, body = http_of(Case("", "", tensors, request_id=f"r{place}", parameters=dict(given)))
    time.sleep(max(0.0, start + arrival.at_ms / 1000 - time.monotonic()))
    _, answer = post(url, headers, body)
    ended = time.monotonic()
    message = json.loads(answer)
    if "error" in message:
        return message["error"], ended
    return list(divmod(int(message["outputs"][0]["data"][0]), 100)), ended


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        RECORDED.write_text(json.dumps(ask_triton(Path(folder)), indent=2) + "\n")
