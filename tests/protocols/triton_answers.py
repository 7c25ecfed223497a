"""The real Triton's answers to ``triton_cases``, as recorded from release 24.10 (2.51).

``python -m tests.protocols.triton_answers HTTP_URL GRPC_ADDRESS`` records them anew from a running server that has the
model that ``triton_cases`` describes.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from pathlib import Path

import grpc

from tests.protocols.triton_cases import MODEL, GrpcCase, RestCase, grpc_cases, rest_cases

RECORDED = Path(__file__).with_name("triton_answers.json")

Answer = list[object]
"""A status (HTTP's number or gRPC's name) and the error text, None of a success."""


def recorded_answers() -> dict[str, dict[str, Answer]]:
    """The answers by protocol and case name."""
    return dict(json.loads(RECORDED.read_text()))


def ask_rest(url: str, case: RestCase) -> Answer:
    """What a server answers to a REST case."""
    request = urllib.request.Request(f"{url}/v2/models/{MODEL}/infer", case.body, case.headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return [answer.status, None]
    except urllib.error.HTTPError as error:
        return [error.code, json.loads(error.read())["error"]]


def ask_grpc(channel: grpc.Channel, case: GrpcCase) -> Answer:
    """What a server answers to a gRPC case."""
    call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    try:
        call(case.message, timeout=10)
    except grpc.RpcError as error:
        return [error.code().name, error.details()]
    return ["OK", None]


def record(url: str, address: str) -> None:
    """Ask a running Triton everything."""
    with grpc.insecure_channel(address) as channel:
        answers = {
            "rest": {case.name: ask_rest(url, case) for case in rest_cases()},
            "grpc": {case.name: ask_grpc(channel, case) for case in grpc_cases()},
        }
    RECORDED.write_text(json.dumps(answers, indent=1) + "\n")


if __name__ == "__main__":
    record(sys.argv[1], sys.argv[2])
