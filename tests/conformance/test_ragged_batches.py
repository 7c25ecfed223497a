"""Ragged batches of Python models beside the real Triton: which requests meet, and what a model sees of them.

Protects: every request has its own tensor in its own shape; batch inputs and ``batch_output`` are none of a Python
model's business.
"""

from __future__ import annotations

import pytest
import triton_peer
from ragged_answers import ask_triton, recorded_answers
from ragged_cases import CASES, play, write_models

from tests.serving import ShoalProcess

RECORDED = recorded_answers()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    repository = tmp_path_factory.mktemp("models")
    write_models(repository)
    with ShoalProcess(repository) as server:
        yield f"http://{server.http}"


@pytest.mark.parametrize("name", CASES)
def test_the_answers_are_tritons(address, name):
    assert play(address, name) == RECORDED[name]


def test_raggedness_is_what_makes_requests_meet():
    joined = {name: [answer["TOLD"][1][0].split(",")[0] for answer in answers] for name, answers in RECORDED.items()}
    assert joined["not_ragged"] == ["[1"] * 5
    assert all(joined[name] == ["[1", "[4", "[4", "[4", "[4"] for name in CASES if name != "not_ragged")


@pytest.mark.triton
@pytest.mark.skipif(not triton_peer.installed(), reason="the real Triton is not installed")
def test_the_record_is_what_the_real_triton_answers(tmp_path):
    assert ask_triton(tmp_path) == RECORDED
