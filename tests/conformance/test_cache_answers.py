"""The response cache against the real Triton's local cache: answers, statistics and metrics (1.8, 1.9, 2.9)."""

from __future__ import annotations

import pytest
import triton_peer
from cache_answers import SIZE, ask_triton, play, recorded_outcomes
from cache_cases import ANSWERED_WRONGLY, CASES, write_repository

from tests.serving import ShoalProcess

RECORDED = recorded_outcomes()
BY_NAME = {case.name: case for case in CASES}
RIGHT = [case for case in CASES if case.name not in ANSWERED_WRONGLY]


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """What Shoal answers and counts in every case."""
    repository = write_repository(tmp_path_factory.mktemp("cache_cases"))
    with ShoalProcess(repository, SIZE) as shoal:
        return play(f"http://{shoal.http}", f"http://{shoal.metrics}/metrics")


@pytest.mark.parametrize("case", RIGHT, ids=lambda case: case.name)
def test_answers_and_counts_are_tritons(case, ours):
    assert ours[case.name] == RECORDED[case.name]


def test_families_have_tritons_types_and_help_texts(ours):
    assert ours["families"] == RECORDED["families"]


@pytest.mark.parametrize("name", ANSWERED_WRONGLY)
def test_where_triton_is_wrong_every_request_runs(name, ours):
    """Each of these requests differs from the one before it in something that its answer depends on."""
    statistics = ours[name]["statistics"]
    assert statistics["cache_hit"] == 0
    assert statistics["execution"] == statistics["cache_miss"] == len(BY_NAME[name].requests)
    assert RECORDED[name]["statistics"]["cache_hit"] > 0
    assert ours[name]["answers"] != RECORDED[name]["answers"]


def test_errors_are_errors_every_time(ours):
    """Triton 2.51 keeps an error as a response without outputs, and answers the next with that."""
    assert RECORDED["errors"]["answers"] == ["negative numbers are refused", {}]
    assert ours["errors"]["answers"] == ["negative numbers are refused"] * 2


def test_every_case_is_recorded_once():
    assert len(BY_NAME) == len(CASES)
    assert set(RECORDED) == {*BY_NAME, "families"}


@pytest.mark.triton
@pytest.mark.skipif(not triton_peer.installed(), reason="the real Triton is not installed")
def test_triton_still_does_what_was_recorded(tmp_path):
    assert ask_triton(tmp_path) == RECORDED
