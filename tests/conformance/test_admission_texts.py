"""Admission against the real Triton: the same requests get the same status, text and outputs (rules 2, 15, 27-35)."""

from __future__ import annotations

import pytest
from admission_answers import Answer, ask_triton, recorded_answers
from admission_cases import CASES, MODELS, Case, head_of
from triton_peer import installed

from shoal.errors import ShoalError
from shoal.requests import InferRequest, RequestPlan
from shoal.scheduling.admission import check_payload, plan_raw_request, plan_request, raw_payload

RECORDED = recorded_answers()


class NoSink:
    """Planning only keeps the sink."""

    def submit(self, request):
        raise AssertionError

    def cancel(self, request):
        raise AssertionError


class NoResponder:
    """Checking a payload answers nothing by itself."""

    def completed(self, request, response):
        raise AssertionError

    def failed(self, request, error):
        raise AssertionError


def admit(case: Case) -> RequestPlan:
    """Take the case through all of admission."""
    spec, head = MODELS[case.model], head_of(case)
    if case.raw is None:
        plan = plan_request(head, spec, NoSink())
        payload = [tensor.data for tensor in case.inputs]
    else:
        plan = plan_raw_request(head, len(case.raw), spec, NoSink())
        payload = list(raw_payload(plan, case.raw))
    assert tuple(map(len, payload)) == plan.payload_nbytes
    check_payload(InferRequest(plan, payload, NoResponder(), None, 0))
    return plan


def our_answer(case: Case) -> Answer:
    """What a front end would answer."""
    try:
        plan = admit(case)
    except ShoalError as error:
        return {"status": error.status.http, "error": error.message}
    return {"status": 200, "outputs": [MODELS[case.model].outputs[index].name for index in plan.outputs]}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_answer_is_tritons(case):
    assert our_answer(case) == RECORDED[case.name]


def test_every_case_is_recorded_once():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert set(names) == set(RECORDED)


@pytest.mark.triton
@pytest.mark.skipif(not installed(), reason="the real Triton is not installed")
def test_recorded_answers_are_the_real_ones(tmp_path):
    assert ask_triton(tmp_path) == RECORDED
