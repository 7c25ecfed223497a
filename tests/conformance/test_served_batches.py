"""Shoal as a server against the real Triton: the same traffic at the same Python models makes the same batches (36-42).

What the schedulers do with every case is simulated in ``test_batch_formation`` and ``test_policy_answers``, exactly and
on a clock of their own. Here requests go over HTTP and models take real time, so only cases are played that allow for
many milliseconds.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import batch_answers
import batch_cases
import policy_answers
import policy_cases
import pytest
from triton_peer import free_port, installed, running, write_model

from tests.serving import ShoalProcess

AT_A_TIME = 4
BATCHES = (
    "no delay: six behind a busy instance",
    "no delay: ten behind a busy instance",
    "no delay: two shapes behind a busy instance",
    "delay: three at a free instance",
    "prefer 4, delay: five at a free instance",
    "levels: low, low, high, low, high",
    "limit 2",
    "timeout",
    "timeout, overridden",
)
POLICIES = (
    "three levels, full batches",
    "no priority and one beyond the levels are the default",
    "a limit for level 1 only",
    "a timeout for level 2 only",
    "REJECT",
    "DELAY",
    "DELAY in level 1 stays above level 2",
    "delayed requests count for the limit",
    "a timeout of its own does not count without a default",
    "two instances, order kept",
    "two instances, order not kept",
)
CASES = {
    **{case.name: case for case in batch_cases.CASES if case.name in BATCHES},
    **{case.name: case for case in policy_cases.CASES if case.name in POLICIES},
}
RECORDED = batch_answers.recorded_outcomes() | policy_answers.recorded_outcomes()


def write_models(repository: Path) -> None:
    """The model of every case."""
    repository.mkdir()
    for name, case in CASES.items():
        spec = (batch_cases if name in BATCHES else policy_cases).spec_of(case)
        write_model(repository, spec)
        if name in POLICIES:
            (repository / spec.name / "1" / "model.py").write_text(policy_cases.MODEL_CODE)


def play_all(address: str) -> dict[str, list[batch_answers.Outcome | policy_answers.Outcome]]:
    """What became of the requests of every case."""

    def play(name: str):
        cases, answers = (batch_cases, batch_answers) if name in BATCHES else (policy_cases, policy_answers)
        url = f"{address}/v2/models/{cases.spec_of(CASES[name]).name}/infer"
        return answers.play(url, CASES[name])

    with ThreadPoolExecutor(AT_A_TIME) as players:
        return dict(zip(CASES, players.map(play, CASES), strict=True))


def test_every_case_is_there():
    assert set(CASES) == {*BATCHES, *POLICIES}
    assert set(CASES) <= set(RECORDED)


def test_served_models_make_tritons_batches(tmp_path):
    write_models(tmp_path / "models")
    with ShoalProcess(tmp_path / "models") as server:
        assert play_all(f"http://{server.http}") == {name: RECORDED[name] for name in CASES}


@pytest.mark.triton
@pytest.mark.skipif(not installed(), reason="the real Triton is not installed")
def test_recorded_batches_are_still_tritons(tmp_path):
    write_models(tmp_path / "models")
    with running(tmp_path / "models", free_port()) as address:
        assert play_all(address) == {name: RECORDED[name] for name in CASES}
