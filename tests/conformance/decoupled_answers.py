"""Answers to the decoupled cases, from any server, in a form that can be compared; and those of the real Triton.

``python tests/conformance/decoupled_answers.py`` asks the real Triton and records what it says.
"""

from __future__ import annotations

import json
import struct
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import grpc
from decoupled_cases import STREAMS, UNARY, Asked, StreamCase, write_models
from google.protobuf import json_format
from triton_peer import free_port, running
from tritonclient.grpc import service_pb2, service_pb2_grpc

RECORDED = Path(__file__).with_name("decoupled_answers.json")
TIMEOUT_S = 30

Answers = dict[str, dict[str, Any]]
"""What came, by way (``stream``, ``grpc`` or ``http``) and case."""


def recorded_answers() -> Answers:
    """What the real Triton said when the answers were recorded."""
    return dict(json.loads(RECORDED.read_text()))


def ask(http: str, address: str, repository: Path) -> Answers:
    """Send every case, one after the other."""
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        answers = {
            "grpc": {name: ask_grpc(stub, asked) for name, asked in UNARY.items()},
            "http": {name: ask_http(http, asked) for name, asked in UNARY.items()},
            "stream": {case.name: ask_stream(stub, case) for case in STREAMS},
        }
    return json.loads(json.dumps(answers).replace(str(repository), "/models"))


def grpc_request(asked: Asked) -> Any:
    """The request as a message."""
    request = service_pb2.ModelInferRequest(model_name=asked.model, model_version=asked.version, id=asked.request_id)
    shape = [asked.rows, 1] if asked.rows else [1]
    request.inputs.add(name=asked.input, datatype="INT32", shape=shape)
    request.raw_input_contents.append(struct.pack("<i", asked.number) * max(1, asked.rows))
    for name, value in asked.parameters.items():
        kind = {bool: "bool_param", int: "int64_param", str: "string_param"}[type(value)]
        setattr(request.parameters[name], kind, value)
    return request


def ask_stream(stub: Any, case: StreamCase) -> dict[str, Any]:
    """All that comes on a stream, and how it ends."""
    metadata = [("triton_grpc_error", "true")] if case.status_errors else None
    messages = []
    try:
        call = stub.ModelStreamInfer(iter(map(grpc_request, case.asked)), timeout=TIMEOUT_S, metadata=metadata)
        messages.extend(json_format.MessageToDict(message) for message in call)
    except grpc.RpcError as error:
        return {"messages": messages, "code": error.code().name, "details": error.details()}
    return {"messages": messages}


def ask_grpc(stub: Any, asked: Asked) -> dict[str, Any]:
    """The answer of ModelInfer."""
    try:
        return dict(json_format.MessageToDict(stub.ModelInfer(grpc_request(asked), timeout=TIMEOUT_S)))
    except grpc.RpcError as error:
        return {"code": error.code().name, "details": error.details()}


def ask_http(address: str, asked: Asked) -> dict[str, Any]:
    """The status and body of the answer over HTTP."""
    shape = [asked.rows, 1] if asked.rows else [1]
    tensor = {"name": asked.input, "datatype": "INT32", "shape": shape, "data": [asked.number] * max(1, asked.rows)}
    body = json.dumps({"id": asked.request_id, "inputs": [tensor]}).encode()
    request = urllib.request.Request(f"http://{address}/v2/models/{asked.model}/infer", body, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return {"status": answer.status, "body": json.loads(answer.read())}
    except urllib.error.HTTPError as error:
        return {"status": error.code, "body": json.loads(error.read())}


def ask_triton(folder: Path) -> Answers:
    """Send every case to the real server."""
    repository = folder / "models"
    write_models(repository)
    http, over_grpc = free_port(), free_port()
    options = ("--allow-grpc=true", f"--grpc-port={over_grpc}")
    with running(repository, http, *options):
        return ask(f"127.0.0.1:{http}", f"127.0.0.1:{over_grpc}", repository)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        RECORDED.write_text(json.dumps(ask_triton(Path(folder)), indent=2) + "\n")
