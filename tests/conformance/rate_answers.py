"""The order in which the real Triton runs the models of the rate cases, as recorded.

``python tests/conformance/rate_answers.py`` asks the real Triton and records what it does; it takes a few minutes.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from admission_cases import Case, http_of, zeros
from rate_cases import CASES, EXECUTION_MS, HOLD, HOLD_MS, Contender, RateCase
from triton_peer import free_port, post, running

RECORDED = Path(__file__).with_name("rate_answers.json")
GAP_S = 0.005
HELD_S = 20

Outcome = dict[str, Any]
"""``order``: the models as they ran one after the other; ``at_once``: most that ran at once; ``error``: the refusal."""

CODE = """
import os
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.name = args["model_name"]

    def note(self, what):
        with open({log!r}, "a") as log:
            log.write(f"{what} {self.name}\\n")

    def execute(self, requests):
        self.note("start")
        time.sleep({seconds})
        self.note("end")
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.zeros(1, np.float32))]) for _ in requests]
""".replace("{what} {self.name}", "{{what}} {{self.name}}")


def recorded_outcomes() -> dict[str, Outcome]:
    """What became of each case."""
    return dict(json.loads(RECORDED.read_text()))


def write_repository(folder: Path, case: RateCase) -> Path:
    """Write the case's models; gives the repository. They note their executions in the file ``log`` next to it."""
    repository = folder / "models"
    for contender in case.all:
        code = repository / contender.name / "1" / "model.py"
        code.parent.mkdir(parents=True)
        seconds = (HOLD_MS if contender.name == HOLD else EXECUTION_MS) / 1000
        code.write_text(CODE.format(log=str(folder / "log"), seconds=seconds))
        (repository / contender.name / "config.pbtxt").write_text(config_text(contender))
    return repository


def config_text(contender: Contender) -> str:
    """The contender's ``config.pbtxt``."""
    needs = " ".join(
        f'resources {{ name: "{need.name}" count: {need.count} global: {str(need.is_global).lower()} }}'
        for need in contender.needs
    )
    groups = [
        f"instance_group {{ kind: KIND_CPU count: 1 rate_limiter {{ {needs} priority: {priority} }} }}"
        for priority in contender.priorities
    ]
    tensors = [
        'input { name: "A" data_type: TYPE_FP32 dims: 1 }',
        'output { name: "OUT" data_type: TYPE_FP32 dims: 1 }',
    ]
    return "\n".join([f'name: "{contender.name}" backend: "python"', *tensors, *groups])


def play(address: str, folder: Path, case: RateCase) -> Outcome:
    """Send the case's requests to a server that has its models, and read in which order they ran."""
    headers, body = http_of(Case("", "", (zeros("A", "FP32", 1),)))
    senders = ThreadPoolExecutor(1 + sum(each.requests for each in case.contenders))
    with senders:
        held = senders.submit(post, f"{address}/v2/models/{HOLD}/infer", headers, body)
        wait_for(folder / "log")
        sent = [held]
        for contender in case.contenders:
            for _ in range(contender.requests):
                sent.append(senders.submit(post, f"{address}/v2/models/{contender.name}/infer", headers, body))
                time.sleep(GAP_S)
        assert [answer.result()[0] for answer in sent] == [200] * len(sent)
    return outcome_of((folder / "log").read_text(), ordered=case.ordered)


def wait_for(log: Path) -> None:
    """Return when the first execution has begun."""
    deadline = time.monotonic() + HELD_S
    while not log.exists():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def outcome_of(log: str, *, ordered: bool) -> Outcome:
    """What a log of executions shows."""
    lines = [line.split() for line in log.splitlines() if not line.endswith(HOLD)]
    running = most = 0
    for what, _ in lines:
        running += 1 if what == "start" else -1
        most = max(most, running)
    order = [model for what, model in lines if what == "start"]
    return {"at_once": most, "order": order if ordered else sorted(order)}


def ask_triton(case: RateCase) -> Outcome:
    """Play a case to the real server."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        repository = write_repository(folder, case)
        options = ["--rate-limit=execution_count", *(f"--rate-limit-resource={limit}" for limit in case.limits)]
        try:
            with running(repository, free_port(), *options) as address:
                return play(address, folder, case)
        except AssertionError:
            log = (folder / "models.log").read_text()
            found = re.search(r'Failed to create instance: (Resource [^\n]*[^"\n])"?\n', log)
            if found is None:
                raise
            return {"error": found[1].replace('\\"', '"')}


if __name__ == "__main__":
    RECORDED.write_text(json.dumps({case.name: ask_triton(case) for case in CASES}, indent=1) + "\n")
