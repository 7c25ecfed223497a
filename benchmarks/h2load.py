"""Loads one model of a running server with h2load, which never waits for itself, over HTTP/1.1 or gRPC's HTTP/2."""

import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tritonclient.grpc
import tritonclient.http
from tritonclient.grpc import service_pb2

GRPC_METHOD = "/inference.GRPCInferenceService/ModelInfer"
WARM_UP_MS = 500


@dataclass(frozen=True)
class Load:
    """How a server is loaded: the protocol, the connections, and the requests in flight on each."""

    protocol: str
    connections: int
    streams: int

    @property
    def in_flight(self) -> int:
        """Requests in flight over all connections."""
        return self.connections * self.streams


def http_request(tensor: tritonclient.http.InferInput) -> tuple[bytes, list[str]]:
    """An infer request with one binary tensor: its body, and h2load's options that carry its headers."""
    body, header_nbytes = tritonclient.http.InferenceServerClient.generate_request_body([tensor])
    headers = ["Content-Type: application/octet-stream", f"Inference-Header-Content-Length: {header_nbytes}"]
    return body, ["--h1", *(option for header in headers for option in ("-H", header))]


def grpc_request(model: str, tensor: tritonclient.grpc.InferInput) -> tuple[bytes, list[str]]:
    """The same over gRPC: one length-prefixed message, and h2load's options with wide flow-control windows."""
    request = service_pb2.ModelInferRequest(model_name=model)
    request.inputs.append(tensor._get_tensor())  # noqa: SLF001 - the client has no public way to the message
    request.raw_input_contents.append(tensor._get_content())  # noqa: SLF001
    message = request.SerializeToString()
    headers = ["content-type: application/grpc", "te: trailers"]
    framed = b"\0" + len(message).to_bytes(4, "big") + message
    return framed, ["-w", "24", "-W", "26", *(option for header in headers for option in ("-H", header))]


def requests_per_second(url: str, body: bytes, options: list[str], load: Load, seconds: float) -> float:
    """Run h2load once; ends the program with its words when an answer was not a success."""
    if not shutil.which("h2load"):
        sys.exit("h2load is not on the PATH; Debian has it in nghttp2-client")
    with tempfile.NamedTemporaryFile() as data:
        Path(data.name).write_bytes(body)
        shape = ["-c", str(load.connections), "-m", str(load.streams), "-t", "1"]
        length = ["-D", f"{round(seconds * 1000)}ms", "--warm-up-time", f"{WARM_UP_MS}ms"]
        command = ["h2load", *shape, *length, "-d", data.name, *options, url]
        output = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=True).stdout
    done = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", output)
    rate = re.search(r"finished in [\d.]+s, ([\d.]+) req/s", output)
    if not done or not rate or done[1] != done[2] or not int(done[1]):
        sys.exit(f"h2load against {url} did not succeed:\n{output}")
    return float(rate[1])
