"""Answers to the wire cases, from any server, in a form that can be compared; and those of the real Triton, recorded.

``python tests/conformance/wire_answers.py`` asks the real Triton and records what it says.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import re
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import wire_grpc_cases
import wire_http_cases
from google.protobuf import json_format
from grpc_health.v1 import health_pb2
from triton_peer import free_port, running
from tritonclient.grpc import service_pb2
from wire_grpc_cases import HEALTH, SERVICE, GrpcCase
from wire_http_cases import BROKEN, WELL, HttpCase
from wire_models import write_all, write_broken

RECORDED = Path(__file__).with_name("wire_answers.json")
TIMEOUT_S = 30
WRITERS = {WELL: write_all, BROKEN: write_broken}

Answer = dict[str, Any]
Answers = dict[str, dict[str, Answer]]
"""Answers by protocol and case name."""

Addresses = dict[str, tuple[str, str]]
"""Where HTTP and gRPC are served, by server."""


def recorded_answers() -> Answers:
    """What the real Triton said when the answers were recorded."""
    return dict(json.loads(RECORDED.read_text()))


def ask(addresses: Addresses) -> Answers:
    """Send every case, one after the other."""
    over_http = {case.name: ask_http(addresses[case.server][0], case) for case in wire_http_cases.CASES}
    with contextlib.ExitStack() as stack:
        channels = {name: stack.enter_context(grpc.insecure_channel(pair[1])) for name, pair in addresses.items()}
        over_grpc = {case.name: ask_grpc(channels[case.server], case) for case in wire_grpc_cases.CASES}
    return {"http": over_http, "grpc": over_grpc}


# --- HTTP -----------------------------------------------------------------------------------------------------------


def ask_http(address: str, case: HttpCase) -> Answer:
    """Send one HTTP request on a connection of its own."""
    connection = http.client.HTTPConnection(address, timeout=TIMEOUT_S)
    try:
        connection.putrequest(case.method, case.path, skip_accept_encoding=True)
        headers = case.headers | ({"Content-Length": str(len(case.body))} if case.body or case.method == "POST" else {})
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders(case.body)
        response = connection.getresponse()
        body = response.read()
        headers = {name.lower(): value for name, value in response.getheaders()}
        assert case.method == "HEAD" or int(headers["content-length"]) == len(body)
        return {"status": response.status} | http_body(headers, body)
    except http.client.HTTPException as error:
        return {"broken": type(error).__name__}
    finally:
        connection.close()


def http_body(headers: dict[str, str], body: bytes) -> Answer:
    """The headers that say something, and the body: its JSON part parsed, the rest as it is."""
    for name in ("content-length", "date"):
        headers.pop(name, None)
    encoding = headers.get("content-encoding")
    if encoding and body:
        body = gzip.decompress(body) if encoding == "gzip" else zlib.decompress(body)
    length = headers.pop("inference-header-content-length", None)
    json_nbytes = len(body) if length is None else int(length)
    answer: Answer = {"headers": headers}
    if body[:json_nbytes]:
        answer["json"] = normalise(parse(body[:json_nbytes]))
    if length is not None:
        answer["binary"] = body[json_nbytes:].decode("latin1")
    return answer


def parse(text: bytes) -> Any:
    """JSON; text that is none as it is."""
    try:
        return json.loads(text)
    except ValueError:
        return text.decode("latin1")


def normalise(value: Any, key: str = "") -> Any:
    """Leave out what differs from run to run: durations and moments become whether there are any.

    What Shoal's statistics have beside Triton's fields is left out, too.
    """
    if isinstance(value, dict):
        return {name: normalise(each, name) for name, each in value.items() if name != "batching"}
    if isinstance(value, list):
        return [normalise(each) for each in value]
    if key in {"ns", "last_inference"}:
        return "some" if int(value) else "none"
    if isinstance(value, float) and value != value:  # noqa: PLR0124 # NaN does not equal itself
        return "NaN"
    return re.sub(r"/tmp/\S*?/(well|broken)/", r"/\1/", value) if isinstance(value, str) else value


# --- gRPC -----------------------------------------------------------------------------------------------------------


def ask_grpc(channel: grpc.Channel, case: GrpcCase) -> Answer:
    """Make one call."""
    made = channel.stream_stream(case.path)(iter(case.messages), timeout=TIMEOUT_S, metadata=case.metadata)
    answers: list[Any] = []
    with contextlib.suppress(grpc.RpcError):
        answers.extend(normalise(grpc_message(case.path, each)) for each in made)
    answer: Answer = {"code": made.code().name, "messages": answers}
    return answer | ({"details": normalise(made.details())} if made.details() else {})


def grpc_message(path: str, text: bytes) -> Any:
    """A response as JSON has it; tensors as the text of their bytes."""
    method = path.rpartition("/")[2]
    if path.startswith(HEALTH):
        kind = health_pb2.HealthCheckResponse
    else:
        assert path.startswith(SERVICE)
        kind = getattr(service_pb2, f"{method}Response")
    message = kind.FromString(text)
    raw = message.infer_response if method == "ModelStreamInfer" else message
    contents = [each.decode("latin1") for each in getattr(raw, "raw_output_contents", ())]
    if contents:
        raw.ClearField("raw_output_contents")
    shown = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return {"message": shown, "raw": contents} if contents else shown


# --- the real Triton ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def both_tritons(folder: Path) -> Iterator[Addresses]:
    """The real Triton, twice."""
    with contextlib.ExitStack() as stack:
        addresses = {}
        for name, write in WRITERS.items():
            (folder / name).mkdir()
            write(folder / name)
            ports = free_port(), free_port()
            more = ["--allow-grpc=true", f"--grpc-port={ports[1]}", "--exit-on-error=false"]
            path = "/v2/health/ready" if name == WELL else "/v2/health/live"
            stack.enter_context(running(folder / name, ports[0], *more, path=path))
            addresses[name] = (f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}")
        yield addresses


def ask_triton(folder: Path) -> Answers:
    """What the real Triton says now."""
    with both_tritons(folder) as addresses:
        return ask(addresses)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        RECORDED.write_text(json.dumps(ask_triton(Path(scratch)), indent=1, sort_keys=True) + "\n")
