"""What a sequence model in Python sees is what it sees in the real Triton: controls, ids, flags, runs, first states."""

from __future__ import annotations

import pytest
from sequence_sight_answers import ask, ask_triton, recorded_answers, write_models
from sequence_sight_cases import CASES
from triton_peer import installed

from tests.serving import ShoalProcess

RECORDED = recorded_answers()
DIFFERENCES = {
    "rescheduled with an answer": (
        "the class of a response has another place",
        "<class 'c_python_backend_utils.InferenceResponse'>",
        "<class 'shoal.backends.triton_python.response.InferenceResponse'>",
    ),
}
"""By case: why the answers differ, and the text in Triton's that is another one here."""


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    repository = tmp_path_factory.mktemp("models")
    write_models(repository)
    with ShoalProcess(repository) as shoal:
        return ask(f"http://{shoal.http}")


@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_models_see_what_they_see_in_triton(name, ours):
    expected = RECORDED[name]
    if name in DIFFERENCES:
        _, theirs, here = DIFFERENCES[name]
        assert theirs in expected[0]
        expected = [answer.replace(theirs, here) for answer in expected]
    assert ours[name] == expected


def test_every_case_is_recorded_once():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert set(names) == set(RECORDED)


@pytest.mark.triton
@pytest.mark.skipif(not installed(), reason="the real Triton is not installed")
def test_the_record_is_what_triton_does(tmp_path):
    assert ask_triton(tmp_path) == RECORDED
