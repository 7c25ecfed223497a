"""Ensembles against the real Triton: the same are refused, for the same reasons, and the others answer alike."""

from __future__ import annotations

import re

import ensemble_answers
import pytest
from ensemble_infer_cases import CASES, ENSEMBLES, MODELS, STREAMED, ensemble_names
from ensemble_load_cases import BAD, GOOD
from ensemble_models import BROKEN_MEMBER, MEMBERS, REPEATER, write
from triton_peer import installed

from shoal.testing.in_process import InProcessServer
from tests.in_process import ServingThread

RECORDED = ensemble_answers.recorded()
STEP = re.compile(r"step\[\d+\] '\w+': ")
LATEST_BY_DEFAULT = {"good_version_zero"}
"""A step that names no version means the latest here; Triton reads it as version 0."""
SAFER = {"bad_input_written"}
"""Triton loads an ensemble that writes its own input, and runs it round and round."""
PRUNED = {"the first output", "the last output", "classes"}
"""Triton prunes an output that is not asked for although another step reads it, and then reports a deadlock."""
PARSED_BY_TRITON = {
    *("bad_output_name_too", "bad_no_source", "bad_unused_tensor", "bad_unused_input", "bad_unset_output"),
    *("bad_written_twice", "bad_own_input", "bad_circle", "bad_no_step", "bad_no_input_map", "bad_no_output_map"),
    *("bad_no_model", "bad_instances", "bad_platform", "bad_backend", "bad_backend_too", "bad_no_platform"),
    *("bad_no_versions", "bad_input_written"),
}
"""What one configuration tells: Shoal names the field and the line, in words of its own."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    repository = tmp_path_factory.mktemp("models")
    write(repository, MODELS)
    with ServingThread(repository) as server:
        yield server


@pytest.fixture(scope="module")
def address(server):
    return f"http://{server.http}"


@pytest.mark.parametrize("case", STREAMED, ids=lambda case: case.name)
def test_decoupled_ensembles_answer_as_tritons(server, case):
    """Section 1.6: a decoupled step makes the ensemble decoupled; each of its responses runs what is behind it."""
    ours, theirs = ensemble_answers.ask_stream(server.grpc, case), RECORDED["streamed"][case.name]
    if "error" in ours:
        ours["error"] = STEP.sub("", ours["error"])
    assert ours == theirs


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_answers_are_tritons(address, case):
    """Rules of section 1.6: data flow, optional inputs, shapes between models, what steps are told, errors."""
    ours, theirs = ensemble_answers.ask(address, case), RECORDED["answers"][case.name]
    if case.name in PRUNED:
        assert ours["status"] == 200
        assert list(ours["outputs"]) == list(case.outputs)
        assert "unexpected deadlock" in theirs["error"]
        return
    if "error" in ours:
        ours["error"] = STEP.sub("", ours["error"])
    assert ours == theirs


def test_the_step_that_failed_is_named(address):
    case = next(case for case in CASES if case.name == "a step of an inner ensemble fails")
    error = ensemble_answers.ask(address, case)["error"]
    assert error.startswith("in ensemble 'fails_inside', step[0] 'fails': in ensemble 'fails', step[1] 'fail': ")


def test_statistics_count_as_tritons(tmp_path):
    """Section 2.9: an ensemble's row counts whole requests. Triton counts each failure twice, which is left out."""
    repository = tmp_path / "models"
    repository.mkdir()
    write(repository, MODELS)
    with ServingThread(repository) as server:
        fresh = f"http://{server.http}"
        for case in CASES:
            if case.name not in PRUNED:
                ensemble_answers.ask(fresh, case)
        for name in ensemble_names():
            if name in LATEST_BY_DEFAULT:
                continue
            ours, theirs = ensemble_answers.statistics(fresh, name), RECORDED["statistics"][name]
            assert (name, ours) == (name, theirs)


@pytest.fixture(scope="module")
def failures(tmp_path_factory):
    repository = tmp_path_factory.mktemp("refused")
    write(repository, (*MEMBERS, REPEATER, BROKEN_MEMBER, *GOOD, *BAD))
    with InProcessServer(repository, exit_on_error=False) as server:
        yield dict(server.server.failures)


def test_the_same_ensembles_are_refused(failures):
    theirs = {name for name, reason in RECORDED["reasons"].items() if reason}
    ours = failures.keys() - {"broken"}
    assert ours - theirs == SAFER
    assert theirs - ours == LATEST_BY_DEFAULT


@pytest.mark.parametrize(
    "name", sorted({each.name for each in BAD} - PARSED_BY_TRITON - {"bad_itself", "bad_circle_one", "bad_circle_two"})
)
def test_reasons_are_tritons(failures, name):
    """What only the models of the steps tell is told in Triton's words, with the line of the configuration."""
    theirs = RECORDED["reasons"][name].split(" loading failed")[0].split("step of model")[0]
    if name == "bad_depends_on_bad":
        theirs = "ensemble 'bad_depends_on_bad' depends on 'bad_type_in' which"
    assert theirs in failures[name]
    assert re.search(rf"{name}/config\.pbtxt:\d+: ", failures[name])


@pytest.mark.parametrize("name", ["bad_itself", "bad_circle_one", "bad_circle_two"])
def test_circles_are_written_out(failures, name):
    assert re.search(rf"circular dependency between ensembles: {name} -> (\w+ -> )?{name}$", failures[name])


def test_a_model_that_failed_fails_its_ensemble_which_says_why(failures):
    assert (
        "Model 'broken' loading failed with error: version 1 is at UNAVAILABLE state: " in failures["bad_broken_model"]
    )
    assert "cannot start" in failures["bad_broken_model"]


def test_every_case_is_recorded_once():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert set(names) == set(RECORDED["answers"])
    assert {case.name for case in STREAMED} == set(RECORDED["streamed"])
    assert {each.name for each in (*GOOD, *BAD)} == set(RECORDED["reasons"])
    assert {each.name for each in ENSEMBLES} - LATEST_BY_DEFAULT == set(RECORDED["statistics"])


@pytest.mark.triton
@pytest.mark.skipif(not installed(), reason="the real Triton is not installed")
def test_recorded_reasons_still_hold(tmp_path):
    assert ensemble_answers.ask_for_reasons(tmp_path) == RECORDED["reasons"]


@pytest.mark.triton
@pytest.mark.skipif(not installed(), reason="the real Triton is not installed")
def test_recorded_answers_still_hold(tmp_path):
    assert ensemble_answers.ask_for_answers(tmp_path) == {
        key: RECORDED[key] for key in ("answers", "streamed", "statistics")
    }
