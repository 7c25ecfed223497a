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
    """Run h2load for so long; ends the program with its words when an answer was not a success."""
    shape = ["-c", str(load.connections), "-m", str(load.streams)]
    length = ["-D", f"{round(seconds * 1000)}ms", "--warm-up-time", f"{WARM_UP_MS}ms"]
    output = run(url, body, [*shape, *length, *options], seconds + 30)
    rate = re.search(r"finished in [\d.]+s, ([\d.]+) req/s", output)
    return float(rate[1]) if rate else sys.exit(f"h2load against {url} printed no rate:\n{output}")


def completion_times_s(url: str, body: bytes, options: list[str], connections: int, requests: int) -> list[float]:
    """Send so many requests, one at a time on each connection; when each was answered, in rising order."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        shape = ["-c", str(connections), "-n", str(requests), "--log-file", str(log)]
        run(url, body, [*shape, *options], timeout_s=600)
        lines = [line.split() for line in log.read_text().splitlines()]
    return sorted((int(started_us) + int(took_us)) / 1e6 for started_us, _, took_us in lines)


def run(url: str, body: bytes, options: list[str], timeout_s: float) -> str:
    """Run h2load once and return what it printed; ends the program when an answer was not a success."""
    if not shutil.which("h2load"):
        sys.exit("h2load is not on the PATH; Debian has it in nghttp2-client")
    with tempfile.NamedTemporaryFile() as data:
        Path(data.name).write_bytes(body)
        command = ["h2load", "-t", "1", "-d", data.name, *options, url]
        output = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=True).stdout
    done = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", output)
    if not done or done[1] != done[2] or not int(done[1]):
        sys.exit(f"h2load against {url} did not succeed:\n{output}")
    return output
