"""Sequences of a model that is a step of an ensemble: the client's place in a sequence is passed on."""

from __future__ import annotations

import pytest

from tests.clients import infer, tensor
from tests.execution.models import write_model
from tests.execution.sequence_models import sum_model
from tests.frontends.ensemble_lines import write_line
from tests.serving import ShoalProcess


@pytest.fixture(scope="module")
def shoal(tmp_path_factory):
    repository = tmp_path_factory.mktemp("models")
    write_model(repository, "double", max_batch_size=4, dims="1")
    sum_model(repository, "sum")
    write_line(repository, "sum_of_doubles", "double", "sum", max_batch_size=1)
    with ShoalProcess(repository) as server:
        yield server


def ask(shoal, number, sequence, **flags):
    given = {"sequence_id": sequence, **{f"sequence_{name}": True for name in flags}}
    return infer(shoal.http, "sum_of_doubles", tensor("IN", [1, 1], [number]), parameters=given)


def test_interleaved_sequences_go_through_an_ensemble(shoal):
    sums = [
        ask(shoal, number, sequence, **flags).json["outputs"][0]["data"]
        for number, sequence, flags in [
            (1, 5, {"start": True}),
            (10, 6, {"start": True}),
            (2, 5, {}),
            (20, 6, {"end": True}),
            (3, 5, {"end": True}),
        ]
    ]
    assert sums == [[2], [20], [6], [60], [12]]


def test_rule_45_a_sequence_that_ended_needs_a_start_there_too(shoal):
    ask(shoal, 1, 7, start=True, end=True)
    reply = ask(shoal, 1, 7)
    assert reply.status == 400
    assert reply.error.startswith("in ensemble 'sum_of_doubles', step[1] 'sum': inference request for sequence 7 ")
    assert reply.error.endswith("must specify the START flag on the first request of the sequence")
