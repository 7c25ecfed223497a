"""``shoal check`` and the order of loading: ensembles against the other models of a repository."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from google.protobuf import text_format

from shoal.config.model_config_pb2 import ModelConfig
from shoal.repository.ensembles import load_order
from shoal.repository.inspection import inspect_repositories
from shoal.testing.in_process import InProcessServer

sys.path.insert(0, str(Path(__file__).parents[1] / "conformance"))

import ensemble_load_cases as cases
import ensemble_models

BROKEN_AT_LOAD = {"bad_broken_model"}
"""What only starting the model tells."""


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    repository = tmp_path_factory.mktemp("models")
    members = (*ensemble_models.MEMBERS, ensemble_models.REPEATER, ensemble_models.BROKEN_MEMBER)
    ensemble_models.write(repository, (*members, *cases.GOOD, *cases.BAD))
    return {report.name: report for report in inspect_repositories([repository], 0)}


@pytest.mark.parametrize("name", [each.name for each in cases.GOOD])
def test_a_good_ensemble_has_no_problem(reports, name):
    assert reports[name].problems == ()


@pytest.mark.parametrize("name", sorted({each.name for each in cases.BAD} - BROKEN_AT_LOAD))
def test_a_bad_ensemble_has_problems_with_a_place(reports, name):
    """Everything that loading refuses is found without starting a model, in a file and on a line."""
    assert reports[name].problems
    assert all(name in problem.file for problem in reports[name].problems)
    if name != "bad_no_versions":
        assert all(problem.line for problem in reports[name].problems)


def test_every_problem_of_an_ensemble_is_named(tmp_path):
    steps = (("add", {"A": "X", "Z": "X"}, {"SUM": "m"}), ("ints", {"IN": "m"}, {"OUTT": "Y"}))
    ensemble_models.write(tmp_path, (*ensemble_models.MEMBERS, cases.chain("many", *steps)))
    problems = next(report for report in inspect_repositories([tmp_path], 0) if report.name == "many").problems
    texts = [problem.message for problem in problems]
    assert len(texts) == 4
    assert "mapping to non-existing input Z in model add" in texts[0]
    assert "input B in model add is not mapped" in texts[1]
    assert "TYPE_FP32 is inferred from model add while TYPE_INT32 is inferred from model ints" in texts[2]
    assert "is mapped from non-existing output OUTT in model ints; did you mean 'OUT'?" in texts[3]


def config(*steps: str) -> ModelConfig:
    return text_format.Parse(
        "ensemble_scheduling {" + "".join(f'step {{ model_name: "{step}" }}' for step in steps) + "}", ModelConfig()
    )


def test_ensembles_load_after_those_that_are_steps_of_them():
    order, circles = load_order({"a": config("b", "c", "m"), "b": config("c"), "c": config("m")})
    assert (order, circles) == (["c", "b", "a"], {})


def test_circles_are_found_and_leave_the_others():
    found = {
        "a": config("b"),
        "b": config("c", "m"),
        "c": config("a"),
        "d": config("a"),
        "e": config("m"),
        "f": config("f"),
    }
    order, circles = load_order(found)
    assert circles == {"a": "a -> b -> c -> a", "b": "b -> c -> a -> b", "c": "c -> a -> b -> c", "f": "f -> f"}
    assert sorted(order) == ["d", "e"]


def test_names_decide_nothing_about_the_order_of_loading(tmp_path):
    """An ensemble whose name comes first, of ensembles whose names come later."""
    through = cases.through
    ensembles = (
        cases.chain("aa", ("zz", {"X": "X"}, {"Y": "Y"})),
        cases.chain("zz", ("mm", {"X": "X"}, {"Y": "Y"}), versions=(1, 4)),
        cases.chain("mm", through("negate")),
    )
    ensemble_models.write(tmp_path, (*ensemble_models.MEMBERS, *ensembles))
    with InProcessServer(tmp_path) as server:
        found = server.server
        assert found.model_metadata("aa")["platform"] == "ensemble"
        assert found.catalog.ready_versions("zz") == [4]
        assert found.model_config("aa").model_transaction_policy.decoupled is False
        assert found.ready
