"""Status and text of every refusal are the real Triton's (rules 1 to 22 and 58)."""

from __future__ import annotations

import re

import pytest
from tritonclient.grpc import service_pb2

from shoal.errors import ShoalError
from shoal.protocols import compression, grpc_infer, rest
from shoal.requests import LATEST
from tests.protocols.triton_answers import Answer, recorded_answers
from tests.protocols.triton_cases import MODEL, GrpcCase, RestCase, grpc_cases, rest_cases

RECORDED = recorded_answers()
REST, GRPC = list(rest_cases()), list(grpc_cases())

LATER = re.compile(
    r"\[request id: [^]]*\] (?!.* already exists)|unexpected inference (in|out)put|sending (FP|BF)16"
    r"|class result not|Request for unknown|Unable to find shared memory region"
)
"""What the real server refuses only after the request is decoded: for these, decoding succeeds."""


def rest_answer(case: RestCase) -> Answer:
    try:
        body = compression.decompress(case.headers.get("Content-Encoding"), case.body, 1 << 20)
        nbytes = rest.header_nbytes(case.headers.get(rest.HEADER_LENGTH), len(body))
        head = rest.decode_head(body[:nbytes], MODEL, LATEST)
        rest.split_payload(head, body, nbytes)
    except ShoalError as error:
        return [error.status.http, error.message]
    return [200, None]


def grpc_answer(case: GrpcCase) -> Answer:
    try:
        parts = grpc_infer.split(case.message)
        head = grpc_infer.decode_head(parts.prefix, parts.raw_nbytes())
        parts.payload(case.message, head)
    except ShoalError as error:
        return [error.status.grpc_name, error.message]
    return ["OK", None]


def decoding_part(answer: Answer, success: Answer) -> Answer:
    return success if LATER.match(str(answer[1])) else answer


@pytest.mark.parametrize("case", REST, ids=lambda case: f"rule {case.rule}: {case.name}")
def test_rest_answer_is_tritons(case: RestCase) -> None:
    assert rest_answer(case) == decoding_part(RECORDED["rest"][case.name], [200, None])


@pytest.mark.parametrize("case", GRPC, ids=lambda case: f"rule {case.rule}: {case.name}")
def test_grpc_answer_is_tritons(case: GrpcCase) -> None:
    assert grpc_answer(case) == decoding_part(RECORDED["grpc"][case.name], ["OK", None])


def test_every_case_is_recorded_once() -> None:
    for cases, answers in ((REST, RECORDED["rest"]), (GRPC, RECORDED["grpc"])):
        names = [case.name for case in cases]
        assert len(set(names)) == len(names)
        assert set(names) == set(answers)


def test_every_framing_rule_about_requests_has_cases() -> None:
    assert {case.rule for case in REST} >= {1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13, 15, 16, 21, 58}
    assert {case.rule for case in GRPC} >= {15, 17, 18, 20, 21, 22}


def test_the_cases_are_about_the_service_of_the_client() -> None:
    """The messages are the client library's, not ours."""
    request = service_pb2.ModelInferRequest.FromString(GRPC[0].message)
    assert request.model_name == MODEL
