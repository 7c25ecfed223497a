"""Requests to models with response senders, answered as the real Triton does (rules 23 and 24)."""

from __future__ import annotations

import pytest
from decoupled_answers import ask, ask_triton, recorded_answers
from decoupled_cases import STREAMS, UNARY, write_models
from triton_peer import installed

from tests.serving import ShoalProcess

RECORDED = recorded_answers()
CASES = [(way, name) for way, answers in RECORDED.items() for name in answers]


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    repository = tmp_path_factory.mktemp("decoupled")
    write_models(repository)
    with ShoalProcess(repository) as shoal:
        return ask(shoal.http, shoal.grpc, repository)


@pytest.mark.parametrize(("way", "name"), CASES)
def test_rules_23_and_24_the_answer_is_tritons(answers, way, name):
    assert answers[way][name] == RECORDED[way][name]


def test_every_case_is_recorded_once():
    names = [case.name for case in STREAMS]
    assert sorted(names) == sorted(RECORDED["stream"])
    assert set(UNARY) == set(RECORDED["grpc"]) == set(RECORDED["http"])


@pytest.mark.triton
@pytest.mark.skipif(not installed(), reason="the real Triton is not installed")
def test_recorded_answers_are_the_real_ones(tmp_path):
    now = ask_triton(tmp_path)
    differing = {way: [name for name in RECORDED[way] if now[way].get(name) != RECORDED[way][name]] for way in RECORDED}
    assert differing == {way: [] for way in RECORDED}
