"""The batches that the real Triton made of the batch cases, as recorded.

``python tests/conformance/batch_answers.py`` asks the real Triton and records what it does; it takes a few minutes and
a machine with nothing else to do, because it is about time.
"""

from __future__ import annotations

import json
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from admission_cases import Case, http_of, zeros
from batch_cases import CASES, Arrival, BatchCase, spec_of
from triton_peer import post, serving

RECORDED = Path(__file__).with_name("batch_answers.json")

Outcome = int | str
"""How many requests ran in a request's batch, or the text of its refusal."""


def recorded_outcomes() -> dict[str, list[Outcome]]:
    """What became of each case's requests, in the order of their arrival."""
    return dict(json.loads(RECORDED.read_text()))


def ask_triton(folder: Path) -> dict[str, list[Outcome]]:
    """Play every case to the real server."""
    repository = folder / "models"
    repository.mkdir()
    with serving(repository, map(spec_of, CASES)) as address:
        return {case.name: play(f"{address}/v2/models/{spec_of(case).name}/infer", case) for case in CASES}


def play(url: str, case: BatchCase) -> list[Outcome]:
    """Send the case's requests when it is their time."""
    start = time.monotonic() + 0.05
    with ThreadPoolExecutor(len(case.arrivals)) as senders:
        sent = [senders.submit(send, url, each, start, place) for place, each in enumerate(case.arrivals)]
        return [each.result() for each in sent]


def send(url: str, arrival: Arrival, start: float, place: int) -> Outcome:
    parameters = {"priority": arrival.priority, "timeout": arrival.timeout_us}
    given = {name: value for name, value in parameters.items() if value}
    tensors = (zeros("A", "FP32", arrival.rows, arrival.width),)
    headers, body = http_of(Case("", "", tensors, request_id=f"r{place}", parameters=dict(given)))
    time.sleep(max(0.0, start + arrival.at_ms / 1000 - time.monotonic()))
    _, answer = post(url, headers, body)
    message = json.loads(answer)
    return message["error"] if "error" in message else int(message["outputs"][0]["data"][0])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        RECORDED.write_text(json.dumps(ask_triton(Path(folder)), indent=2) + "\n")
