"""Goodput when clients ask for far more than a model can do, and how soon those who find no place are told.

A Python model sleeps for a fixed time per batch, so its peak is known: batch size over that time. It is measured with
as many clients as keep it busy; then requests are offered at a multiple of it, at fixed times, whether or not earlier
ones are answered (an open loop). What counts is the share of the peak that is still answered with a result.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tritonclient.http
import uvloop
from demo_server import DemoServer, DemoServerError

CODE = """
import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        time.sleep({seconds})
        inputs = [pb_utils.get_input_tensor_by_name(request, "IN").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", array)]) for array in inputs]
"""
CONFIG = """
backend: "python"
max_batch_size: {batch_size}
input {{ name: "IN" data_type: TYPE_FP32 dims: 16 }}
output {{ name: "OUT" data_type: TYPE_FP32 dims: 16 }}
instance_group {{ count: 1 kind: KIND_CPU }}
dynamic_batching {{ default_queue_policy {{ max_queue_size: {queue_size} }} }}
"""
TICK_S = 0.001
LAST_ANSWERS_S = 2.0
OK, UNAVAILABLE = b"HTTP/1.1 200", b"HTTP/1.1 503"


def main() -> None:
    """Serve, measure the peak and the overload, and print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--service-ms", type=float, default=5.0, help="how long one batch takes")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--queue-size", type=int, default=32)
    parser.add_argument("--factor", type=float, default=3.0, help="what is offered, in multiples of the peak")
    parser.add_argument("--connections", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=5.0, help="the length of each measurement")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder) / "sleeper", args.service_ms / 1000, args.batch_size, args.queue_size)
        with DemoServer(Path(folder)) as server:
            uvloop.run(measure(server.http_port, args))


def write_model(folder: Path, seconds: float, batch_size: int, queue_size: int) -> None:
    """A model with this service time, batch size and queue."""
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.py").write_text(CODE.format(seconds=seconds))
    (folder / "config.pbtxt").write_text(CONFIG.format(batch_size=batch_size, queue_size=queue_size))


async def measure(port: int, args: argparse.Namespace) -> None:
    """Measure the peak, then the overload."""
    request = infer_request()
    busy = 2 * args.batch_size
    await closed_loop(port, request, busy, 1.0)
    peak = await closed_loop(port, request, busy, args.seconds)
    theory = args.batch_size / args.service_ms * 1000
    print(f"peak     {peak:8.0f} requests/s with {busy} in flight, {peak / theory:.0%} of the model's own {theory:.0f}")
    offered = args.factor * peak
    seen = await open_loop(port, request, offered, args.connections, args.seconds)
    report(seen, peak, offered, args.seconds)


def infer_request() -> bytes:
    """One infer request as it goes over the wire."""
    tensor = tritonclient.http.InferInput("IN", [1, 16], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 16), np.float32))
    body, header_nbytes = tritonclient.http.InferenceServerClient.generate_request_body([tensor])
    head = (
        f"POST /v2/models/sleeper/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        f"Inference-Header-Content-Length: {header_nbytes}\r\n\r\n"
    )
    return head.encode() + body


@dataclass
class Seen:
    """What became of the requests of a measurement; times in seconds.

    Attributes:
        answered: the latencies of those answered with a result.
        refused: the latencies of those refused with 503.
        other: the answers that were neither.
        unsent: requests that no connection was free for.
        retry_after: how many refusals said when to come back.
    """

    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    other: int = 0
    unsent: int = 0
    retry_after: int = 0


class Client(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, request: bytes, seen: Seen, done: deque["Client"] | None) -> None:
        self._request = request
        self._seen = seen
        self._done = done
        self._received = b""
        self._sent_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Be ready."""
        self.transport = transport

    def send(self) -> None:
        """Send the request."""
        self._sent_s = time.perf_counter()
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Take the answer when it is whole; then send the next request, or wait for the next turn."""
        received = self._received = self._received + data
        end = received.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        start = received.find(b"Content-Length: ") + 16
        if len(received) < end + int(received[start : received.find(b"\r", start)]):
            return
        self._received = b""
        self._count(received, time.perf_counter() - self._sent_s)
        if self._done is None:
            self.send()
        else:
            self._done.append(self)

    def _count(self, answer: bytes, took_s: float) -> None:
        if answer.startswith(OK):
            self._seen.answered.append(took_s)
        elif answer.startswith(UNAVAILABLE):
            self._seen.refused.append(took_s)
            self._seen.retry_after += b"Retry-After: " in answer
        else:
            self._seen.other += 1


async def connect(port: int, request: bytes, seen: Seen, count: int, done: deque[Client] | None) -> list[Client]:
    """Open connections."""
    loop = asyncio.get_running_loop()
    made = [loop.create_connection(lambda: Client(request, seen, done), "127.0.0.1", port) for _ in range(count)]
    return [client for _, client in await asyncio.gather(*made)]


async def closed_loop(port: int, request: bytes, in_flight: int, seconds: float) -> float:
    """Requests per second of so many clients, each of which asks again when it is answered."""
    seen = Seen()
    clients = await connect(port, request, seen, in_flight, None)
    for client in clients:
        client.send()
    await asyncio.sleep(seconds)
    answered = len(seen.answered)
    for client in clients:
        client.transport.close()
    if seen.refused or seen.other:
        sys.exit(f"{len(seen.refused)} requests were refused and {seen.other} failed at the peak; raise --queue-size")
    return answered / seconds


async def open_loop(port: int, request: bytes, per_second: float, connections: int, seconds: float) -> Seen:
    """Send so many requests per second, however long their answers take."""
    seen = Seen()
    free: deque[Client] = deque()
    free.extend(await connect(port, request, seen, connections, free))
    started_s = time.perf_counter()
    sent = 0
    while (passed_s := time.perf_counter() - started_s) < seconds:
        due = int(passed_s * per_second) - sent
        sent += due
        for _ in range(due):
            if free:
                free.popleft().send()
            else:
                seen.unsent += 1
        await asyncio.sleep(TICK_S)
    await asyncio.sleep(LAST_ANSWERS_S)
    return seen


def report(seen: Seen, peak: float, offered: float, seconds: float) -> None:
    """Print what became of the requests."""
    goodput = len(seen.answered) / seconds
    print(f"offered  {offered:8.0f} requests/s, {offered / peak:.1f} times the peak")
    print(f"goodput  {goodput:8.0f} requests/s, {goodput / peak:.0%} of the peak")
    for name, times in (("answered", seen.answered), ("refused", seen.refused)):
        if times:
            p50, p99 = np.percentile(times, [50, 99]) * 1000
            print(f"{name:8} {len(times) / seconds:8.0f} requests/s, p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    print(f"{seen.retry_after} of {len(seen.refused)} refusals say when to come back")
    if seen.other or seen.unsent:
        print(f"{seen.other} other answers; {seen.unsent} requests not sent, for no connection was free")


if __name__ == "__main__":
    try:
        main()
    except DemoServerError as error:
        sys.exit(str(error))
