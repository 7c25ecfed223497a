"""What the real Triton answers and counts in the cache cases, as recorded.

``python tests/conformance/cache_answers.py`` asks the real Triton and records what it does.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from cache_cases import CASES, CacheCase, write_repository
from triton_peer import free_port, post, running

RECORDED = Path(__file__).with_name("cache_answers.json")
SIZE = "--cache-config=local,size=16777216"
SETTLING_LOOKS, SETTLING_S = 100, 0.05
PER_MODEL = re.compile(
    r"^(nv_cache_num_\w+_per_model|nv_inference_\w*count|nv_inference_request_success)\{(.*)\} (\S+)$"
)
FAMILY = re.compile(r"^# (?:HELP|TYPE) nv_cache\w+ .*$", re.MULTILINE)

Outcome = dict[str, Any]
"""``answers``: outputs or error of each request; ``statistics``, ``member`` and ``metrics``: counts by name."""


def recorded_outcomes() -> dict[str, Any]:
    """What became of each case, and under ``families`` the help texts and types of the cache's metrics."""
    return dict(json.loads(RECORDED.read_text()))


def play(address: str, metrics: str) -> dict[str, Any]:
    """Send every case's requests to a server and read what it counted.

    Args:
        address: of the server's HTTP port, with its scheme.
        metrics: of its metrics page.
    """
    outcomes: dict[str, Any] = {case.name: play_case(address, case) for case in CASES}
    page = read(metrics).decode()
    for case in CASES:
        outcomes[case.name]["metrics"] = metrics_of(page, case.model)
    outcomes["families"] = sorted(FAMILY.findall(page))
    return outcomes


def play_case(address: str, case: CacheCase) -> Outcome:
    """One case's requests, one after the other, and its counts after the last."""
    url = f"{address}/v2/models/{case.model}/infer"
    answers = [answer_of(json.loads(post(url, {}, json.dumps(body).encode())[1])) for body in case.requests]
    outcome = {"answers": answers, "statistics": settled_statistics(address, case.model, len(answers))}
    if case.member:
        outcome["member"] = settled_statistics(address, f"{case.model}_member", 0)
    return outcome


def settled_statistics(address: str, model: str, requests: int) -> dict[str, int]:
    """A model's counts when they stand still: Triton counts a request a moment after it was answered."""
    before: dict[str, int] = {}
    for _ in range(SETTLING_LOOKS):
        found = statistics_of(address, model)
        if found == before and found["success"] + found["fail"] >= requests:
            return found
        before = found
        time.sleep(SETTLING_S)
    raise AssertionError(f"{model} did not count its {requests} requests: {before}")


def answer_of(message: dict[str, Any]) -> Any:
    """What matters of an answer."""
    if "error" in message:
        return message["error"]
    return {one["name"]: [one["shape"], one["data"]] for one in message["outputs"]}


def statistics_of(address: str, model: str) -> dict[str, int]:
    """The counts of a model."""
    (told,) = json.loads(read(f"{address}/v2/models/{model}/stats"))["model_stats"]
    found = {name: each["count"] for name, each in told["inference_stats"].items()}
    batches = {f"batch of {each['batch_size']}": each["compute_infer"]["count"] for each in told["batch_stats"]}
    return found | batches | {"inference": told["inference_count"], "execution": told["execution_count"]}


def metrics_of(page: str, model: str) -> dict[str, float]:
    """The counts of a model on the metrics page."""
    found = [match.groups() for match in map(PER_MODEL.match, page.splitlines()) if match]
    return {name: float(value) for name, labels, value in sorted(found) if f'model="{model}"' in labels}


def read(url: str) -> bytes:
    """What a GET gives."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        return bytes(answer.read())


def ask_triton(folder: Path) -> dict[str, Any]:
    """Play every case to the real server."""
    repository, port = write_repository(folder), free_port()
    options = ("--allow-metrics=true", f"--metrics-port={port}", "--metrics-interval-ms=100", SIZE)
    with running(repository, free_port(), *options) as address:
        return play(address, f"http://127.0.0.1:{port}/metrics")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        told = ask_triton(Path(folder))
        lines = [f"{json.dumps(name)}: {json.dumps(told[name], sort_keys=True)}" for name in sorted(told)]
        RECORDED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
