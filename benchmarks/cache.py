"""Requests per second of a model of one millisecond, nine of ten requests being repeated, with and without a cache.

The clients ask for tensors of which 90 % (``--hit-rate``) come from a small set that the cache gets to know, and the
others are new each time. The same traffic goes to Shoal without a cache, with the local one, with one in Redis (where
``redis-server`` is installed), and to the real Triton without and with its local cache (``--peer``), in turn.

The clients are in this process, one event loop for all; they keep up with some thousand requests per second, so a
cache that answers faster than that is faster than it looks here. The hit rate printed is what the server counted.
"""

import argparse
import asyncio
import json
import random
import shlex
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import grpc.aio
import numpy as np
import tritonclient.grpc
import tritonclient.http
from demo_server import SHOAL, DemoServer, DemoServerError
from h2load import GRPC_METHOD, grpc_request, http_request

MODEL = "one_millisecond"
CONFIG = """
backend: "python"
max_batch_size: 8
input { name: "IN" data_type: TYPE_FP32 dims: [ 64 ] }
output { name: "OUT" data_type: TYPE_FP32 dims: [ 64 ] }
instance_group { kind: KIND_CPU count: 1 }
response_cache { enable: true }
"""
CODE = """
import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        time.sleep(0.001 * len(requests))
        inputs = [pb_utils.get_input_tensor_by_name(request, "IN").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", array)]) for array in inputs]
"""
REPEATED = 200
LOCAL = "--cache-config=local,size=67108864"
START_S = 10.0

Ask = Callable[[bytes], Awaitable[None]]
"""Sends one request with these bytes as its tensor and waits for the answer."""


class Result(NamedTuple):
    """Requests per second, the part of them that hit, and the time that half of them took at most."""

    rate: float
    hits: float
    median_us: float


def main() -> None:
    """Serve, measure case by case, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="the command that starts the real Triton, such as tritonserver")
    parser.add_argument("--hit-rate", type=float, default=0.9, help="the part of requests that is repeated")
    parser.add_argument("--in-flight", type=int, default=16, help="requests in flight")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="the length of one measurement")
    args = parser.parse_args()
    with ExitStack() as stack:
        servers = serve(stack, args.peer)
        for protocol in ("http", "grpc"):
            results: dict[str, list[Result]] = {name: [] for name in servers}
            for _ in range(args.rounds):
                for name, server in servers.items():
                    load = Load(args.hit_rate, args.in_flight, args.seconds)
                    results[name].append(asyncio.run(measure(server, protocol, load)))
            report(protocol, {name: median(values) for name, values in results.items()})


def serve(stack: ExitStack, peer: str | None) -> dict[str, DemoServer]:
    """The servers by name, all with the same repository."""
    repository = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    (repository / MODEL / "1").mkdir(parents=True)
    (repository / MODEL / "config.pbtxt").write_text(CONFIG)
    (repository / MODEL / "1" / "model.py").write_text(CODE)
    options = {"shoal, no cache": [], "shoal, local": [LOCAL]}
    if shutil.which("redis-server"):
        port = stack.enter_context(redis_server())
        options["shoal, redis"] = [f"--cache-config=redis,host=127.0.0.1,port={port}"]
    commands = {name: [*SHOAL, *more] for name, more in options.items()}
    if peer:
        commands |= {"triton, no cache": shlex.split(peer), "triton, local": [*shlex.split(peer), LOCAL]}
    return {name: stack.enter_context(DemoServer(repository, command)) for name, command in commands.items()}


@contextmanager
def redis_server() -> Iterator[int]:
    """A Redis that writes nothing to disk; gives its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + START_S
            while not answers(port):
                if time.monotonic() > deadline:
                    sys.exit("redis-server does not listen")
                time.sleep(0.02)
            yield port
        finally:
            process.kill()


def answers(port: int) -> bool:
    """Whether something listens."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


# --- load -----------------------------------------------------------------------------------------------------------


class Load(NamedTuple):
    """How a server is loaded."""

    hit_rate: float
    in_flight: int
    seconds: float


async def measure(server: DemoServer, protocol: str, load: Load) -> Result:
    """One measurement; every answer must be a success."""
    async with AsyncExitStack() as stack:
        make = http_client if protocol == "http" else grpc_client
        clients = [await make(server, stack) for _ in range(load.in_flight)]
        repeated = [tensor_bytes() for _ in range(REPEATED)]
        for data in repeated:
            await clients[0](data)
        before = counts(server)
        started_s = time.perf_counter()
        times = await asyncio.gather(*(send(ask, repeated, load) for ask in clients))
        took_s = time.perf_counter() - started_s
    hits, count = (after - earlier for after, earlier in zip(counts(server), before, strict=True))
    every = [one for each in times for one in each]
    if len(every) != count:
        sys.exit(f"{len(every)} answers came, the server counts {count}")
    return Result(count / took_s, hits / count, statistics.median(every) * 1e6)


def tensor_bytes() -> bytes:
    """A tensor that nobody asked for before."""
    return random.randbytes(256)


async def send(ask: Ask, repeated: list[bytes], load: Load) -> list[float]:
    """Ask one after the other until the time is up; gives how long each took, in seconds."""
    end_s = time.perf_counter() + load.seconds
    times = []
    while (started_s := time.perf_counter()) < end_s:
        data = random.choice(repeated) if random.random() < load.hit_rate else tensor_bytes()
        await ask(data)
        times.append(time.perf_counter() - started_s)
    return times


async def http_client(server: DemoServer, stack: AsyncExitStack) -> Ask:
    """A client with a connection of its own; the tensor's bytes are the end of the body."""
    tensor = tritonclient.http.InferInput("IN", [1, 64], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 64), np.float32))
    body, options = http_request(tensor)
    headers = "".join(f"{line}\r\n" for line in options if ":" in line)
    head = f"POST /v2/models/{MODEL}/infer HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    beginning = head.encode() + body[:-256]
    reader, writer = await asyncio.open_connection("127.0.0.1", server.http_port)
    stack.callback(writer.close)

    async def ask(data: bytes) -> None:
        writer.write(beginning + data)
        answer = await reader.readuntil(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 200"):
            sys.exit(answer.decode())
        length = answer.lower().partition(b"\ncontent-length:")[2].partition(b"\r")[0]
        await reader.readexactly(int(length))

    return ask


async def grpc_client(server: DemoServer, stack: AsyncExitStack) -> Ask:
    """The same; the raw contents are the end of the message."""
    tensor = tritonclient.grpc.InferInput("IN", [1, 64], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 64), np.float32))
    beginning = grpc_request(MODEL, tensor)[0][5:-256]
    options = [("grpc.use_local_subchannel_pool", 1)]
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}", options=options)
    call = (await stack.enter_async_context(channel)).unary_unary(GRPC_METHOD)

    async def ask(data: bytes) -> None:
        await call(beginning + data)

    return ask


def counts(server: DemoServer) -> tuple[int, int]:
    """The server's hits and successes."""
    (found,) = json.loads(server.get(f"/v2/models/{MODEL}/stats"))["model_stats"]
    numbers = found["inference_stats"]
    return numbers["cache_hit"]["count"], numbers["success"]["count"]


# --- what came of it ------------------------------------------------------------------------------------------------


def median(results: list[Result]) -> Result:
    """The median of each number."""
    return Result(*(statistics.median(values) for values in zip(*results, strict=True)))


def report(protocol: str, medians: dict[str, Result]) -> None:
    """Print a line for each server."""
    without = medians["shoal, no cache"].rate
    for name, result in medians.items():
        print(
            f"{protocol}  {name:18} {result.rate:8.0f}/s  x{result.rate / without:5.2f}",
            f"{result.hits:6.1%} hits  half within {result.median_us:7.0f} us",
            sep="  ",
            flush=True,
        )


if __name__ == "__main__":
    try:
        main()
    except DemoServerError as error:
        sys.exit(str(error))
