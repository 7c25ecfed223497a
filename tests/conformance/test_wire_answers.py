"""Shoal beside the real Triton, on the wire: both serve the same Python models and get the same requests.

Status, headers and body must be the same but for what stands in ``DIFFERENCES``, each with its reason. What Triton said
is recorded, so that it need not be there.
"""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import pytest
import wire_grpc_cases
import wire_http_cases
from triton_peer import installed
from wire_answers import WRITERS, Answer, ask, ask_triton, recorded_answers
from wire_http_cases import BROKEN

from shoal import __version__
from shoal.server import EXTENSIONS
from tests.serving import ShoalProcess

RECORDED = recorded_answers()
HTTP = {case.name: case for case in wire_http_cases.CASES}
GRPC = {case.name: case for case in wire_grpc_cases.CASES}


class Difference(NamedTuple):
    """Why an answer differs from Triton's, and in what."""

    reason: str
    ours: Answer


def error(reason: str, status: int, text: str) -> Difference:
    """Another error over HTTP."""
    ours = {"status": status, "headers": {"content-type": "application/json"}, "json": {"error": text}}
    return Difference(reason, ours)


SELF = {"name": "shoal", "version": __version__, "extensions": EXTENSIONS}
WHO = "each server says who it is"
TWICE = "rule 15: Triton refuses this since a later release"
TYPE = "a type that is not the configured one is refused, with both in the message; Triton sends it as it is"
FP64 = "model 'answers' returned output 'B' with data type FP64, but its configuration says FP32"
DAMAGED = "damaged data is refused; Triton takes what it could decompress for the request"
INFLATE = "unable to decompress the request body as"
NO_NUMBER = "rule 1: a length that is no number is named; Triton takes it for 0, a raw request"
NO_HASH = "the names come in an order of their own, in Triton in that of a hash table"
MORE_INPUTS = "Got input(s) ['C','B','A'], but missing required input(s) ]. Please provide all required input(s)."
UNIMPLEMENTED = "the answer names the method; Triton gives the code alone"
STRICT = "rule 23: a client that asks for a status gets one; Triton gives it for errors of the model alone"


def strict(code: str, details: str) -> Difference:
    """A stream that ends with a status where Triton's goes on."""
    return Difference(STRICT, {"code": code, "details": details, "messages": []})


HTTP_DIFFERENCES = {
    **{name: Difference(WHO, {"json": SELF}) for name in ("GET /v2", "GET /v2 (broken)", "GET /v2?x=1")},
    "GET /v2/models/add%5Fsub/ready": Difference(
        "a path is percent-decoded (RFC 3986 section 2.3)",
        {"status": 200, "headers": {"content-type": "text/plain"}, "json": None},
    ),
    "JSON, an output twice": error(TWICE, 400, "[request id: <id_unknown>] output 'SUM' already exists in request"),
    "the model answers 22": error(TYPE, 500, FP64),
    "accept GZIP": Difference(
        "content codings have no case (RFC 9110 section 8.4.1)",
        {"headers": {"content-type": "application/json", "content-encoding": "gzip"}},
    ),
    "body b'[[[[[[[[[[[[[[[[[[[['": error(
        "rule 7: nesting is limited, in Triton since a later release",
        400,
        "JSON nesting depth exceeds the maximum of 100",
    ),
    **{
        f"{encoding} damaged": error(DAMAGED, 400, f"{INFLATE} {encoding}: the data is cut off")
        for encoding in ("gzip", "deflate")
    },
    **{
        f"{encoding} is not": error(
            DAMAGED, 400, f"{INFLATE} {encoding}: Error -3 while decompressing data: incorrect header check"
        )
        for encoding in ("gzip", "deflate")
    },
    **{
        f"header length {text!r}": error(
            NO_NUMBER, 400, f"Unable to parse Inference-Header-Content-Length, got: {text}"
        )
        for text in ("", "x", "0x10")
    },
    "too many inputs": error(
        NO_HASH,
        400,
        "[request id: <id_unknown>] expected number of inputs between 1 and 2 but got 3 inputs for model 'seen'. "
        + MORE_INPUTS,
    ),
    "unknown input": error(
        NO_HASH,
        400,
        "[request id: <id_unknown>] expected 2 inputs but got 3 inputs for model 'add_sub'. " + MORE_INPUTS,
    ),
    "two types": Difference(
        "the order in which a model sees its inputs, and here answers: the configuration's, in Triton the request's",
        {
            "json": {
                "model_name": "types",
                "model_version": "1",
                "outputs": [
                    {"name": "BOOL_OUT", "datatype": "BOOL", "shape": [1, 1], "data": [True]},
                    {"name": "INT8_OUT", "datatype": "INT8", "shape": [1, 1], "data": [3]},
                ],
            }
        },
    ),
}

GRPC_DIFFERENCES = {
    "ServerMetadata()": Difference(WHO, {"messages": [SELF]}),
    "Health/Watch": Difference(UNIMPLEMENTED, {"details": "unknown method '/grpc.health.v1.Health/Watch'"}),
    "an unknown service": Difference(UNIMPLEMENTED, {"details": "unknown method '/a.B/C'"}),
    "an unknown method": Difference(
        UNIMPLEMENTED, {"details": "unknown method '/inference.GRPCInferenceService/Nothing'"}
    ),
    "an output twice": Difference(
        TWICE,
        {
            "code": "INVALID_ARGUMENT",
            "messages": [],
            "details": "[request id: <id_unknown>] output 'SUM' already exists in request",
        },
    ),
    "classes, none": Difference(
        "the text says what is wanted; Triton's says that 0 would do",
        {"details": "invalid value for 'classification' parameter, expected >= 1"},
    ),
    "negative dimension": Difference(
        "the negative dimension is named; Triton compares it with those of other inputs",
        {"details": "input 'A' has a negative dimension in its shape [-1, 16]"},
    ),
    "unknown type": Difference(
        "the text is that of HTTP; Triton compares an unknown type with the configured one",
        {"details": "invalid datatype for input A"},
    ),
    "the model answers 22": Difference(TYPE, {"code": "INTERNAL", "messages": [], "details": FP64}),
    "stream that ends with its error: unknown": strict("NOT_FOUND", "Request for unknown model: 'absent' is not found"),
    "stream that ends with its error: wrong": strict(
        "INVALID_ARGUMENT",
        "[request id: wrong] input byte size mismatch for input 'A' for model 'whole'. Expected 12, got 8",
    ),
    "stream that ends with its error: malformed": strict(
        "INVALID_ARGUMENT",
        "contents field must not be specified when using raw_input_contents for 'A' for model 'whole'",
    ),
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What Shoal answers."""
    with contextlib.ExitStack() as stack:
        addresses = {}
        for name, write in WRITERS.items():
            repository = tmp_path_factory.mktemp("models") / name
            repository.mkdir()
            write(repository)
            options = ["--exit-on-error=false"] if name == BROKEN else []
            shoal = stack.enter_context(ShoalProcess(repository, *options))
            addresses[name] = (shoal.http, shoal.grpc)
        yield ask(addresses)


def expected_http(name: str) -> Answer:
    """Triton's answer, or ours where it is meant to differ.

    An error's body is JSON and is always called so; Triton calls it text/plain on some of its ways. A wrong verb is
    told the right one (RFC 9110 section 15.5.6).
    """
    recorded = RECORDED["http"][name]
    is_error = "error" in (recorded.get("json") or {}) or HTTP[name].method == "HEAD"
    if recorded["status"] >= 400 and is_error:
        more = {"content-type": "application/json"}
        if recorded["status"] == 405:
            more["allow"] = "POST" if HTTP[name].path.endswith("/infer") else "GET"
        recorded = recorded | {"headers": recorded["headers"] | more}
    return overridden(recorded, HTTP_DIFFERENCES.get(name))


def overridden(recorded: Answer, difference: Difference | None) -> Answer:
    """The answer with what differs; what is None is not there."""
    merged = recorded | (difference.ours if difference else {})
    return {key: value for key, value in merged.items() if value is not None}


@pytest.mark.parametrize("name", HTTP)
def test_http_answer_is_tritons(answers, name):
    assert answers["http"][name] == expected_http(name)


@pytest.mark.parametrize("name", GRPC)
def test_grpc_answer_is_tritons(answers, name):
    assert answers["grpc"][name] == overridden(RECORDED["grpc"][name], GRPC_DIFFERENCES.get(name))


def test_every_case_is_recorded_once():
    for cases, made, recorded in (
        (wire_http_cases.CASES, HTTP, RECORDED["http"]),
        (wire_grpc_cases.CASES, GRPC, RECORDED["grpc"]),
    ):
        assert len(cases) == len(made)
        assert set(made) == set(recorded)


def test_differences_are_differences():
    """None of them stays in the table when it is gone."""
    for differences, recorded in ((HTTP_DIFFERENCES, RECORDED["http"]), (GRPC_DIFFERENCES, RECORDED["grpc"])):
        assert [name for name, each in differences.items() if overridden(recorded[name], each) == recorded[name]] == []


@pytest.mark.triton
@pytest.mark.skipif(not installed(), reason="the real Triton is not installed")
def test_recorded_answers_are_the_real_ones(tmp_path):
    now = ask_triton(tmp_path)
    for protocol, recorded in RECORDED.items():
        assert now[protocol].keys() == recorded.keys()
        assert {name: now[protocol][name] for name, answer in recorded.items() if now[protocol][name] != answer} == {}
