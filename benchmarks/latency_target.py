"""A latency target beside settings that a user would have guessed: simulated, or on the real server.

The model costs 10 ms for each batch and 0.2 ms for each row (a Python model that sleeps), its batches hold 32 rows, and
its target is 40 ms. Loads are parts of what one instance can do with full batches. On the real server an open-loop
client sends at the moments that the load names and counts from those moments.

    ./scripts/bench latency_target               simulated, some seconds
    ./scripts/bench latency_target --real        on the real server; close what else runs on the machine first
"""

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop
from open_loop import Outcome, Player

from shoal.config.spec import BatchingSpec, InstanceKind, InstanceSpec, ModelSpec
from shoal.testing.arrivals import Arrival, bursts, poisson, rising, steady
from shoal.testing.execution_times import affine, noisy
from shoal.testing.simulation import simulate_model

FIXED_US, ROW_US, SIZE, TARGET_US = 10_000, 200, 32, 40_000
CAPACITY = SIZE / (FIXED_US + SIZE * ROW_US) * 1e6
SEED = 1
SETTINGS = {
    "delay_0": BatchingSpec(),
    "delay_1ms": BatchingSpec(max_queue_delay_us=1_000),
    "delay_5ms": BatchingSpec(max_queue_delay_us=5_000),
    "prefer_16": BatchingSpec(preferred_batch_sizes=(16,)),
    "prefer_8_16_5ms": BatchingSpec(preferred_batch_sizes=(8, 16), max_queue_delay_us=5_000),
    "target": BatchingSpec(latency_target_us=TARGET_US),
}
LOADS: dict[str, Callable[[float], Iterator[Arrival]]] = {
    "steady, 50 %": lambda seconds: steady(CAPACITY / 2, seconds),
    "random, 5 %": lambda seconds: poisson(CAPACITY / 20, seconds, seed=SEED),
    "random, 50 %": lambda seconds: poisson(CAPACITY / 2, seconds, seed=SEED),
    "random, 80 %": lambda seconds: poisson(0.8 * CAPACITY, seconds, seed=SEED),
    "bursts": lambda seconds: bursts(CAPACITY, 0.05, 0.15, seconds, seed=SEED),
    "bunches": lambda seconds: bursts(3 * CAPACITY, 0.004, 0.096, seconds, seed=SEED),
    "rising to 90 %": lambda seconds: rising(0.05 * CAPACITY, 0.9 * CAPACITY, seconds, seed=SEED),
    "overload, 130 %": lambda seconds: poisson(1.3 * CAPACITY, seconds, seed=SEED),
}
MODEL = f"""
import time
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        rows = [pb_utils.get_input_tensor_by_name(request, "A").as_numpy() for request in requests]
        time.sleep(({FIXED_US} + {ROW_US} * sum(len(each) for each in rows)) / 1e6)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("B", each)]) for each in rows]
"""
CONFIG = """
backend: "python"
max_batch_size: %d
input { name: "A" data_type: TYPE_FP32 dims: 1 }
output { name: "B" data_type: TYPE_FP32 dims: 1 }
%s
"""
TARGET = f'parameters {{ key: "latency_target_us" value {{ string_value: "{TARGET_US}" }} }}'
HEADER = f"{'load':<18}{'setting':<18}{'answers/s':>10}{'mean ms':>10}{'p50':>8}{'p99':>8}{'in time':>9}"


def line(load: str, setting: str, *numbers: float) -> str:
    """A line of the table."""
    per_second, mean_ms, p50_ms, p99_ms, in_time = numbers
    values = f"{per_second:>10.0f}{mean_ms:>10.1f}{p50_ms:>8.1f}{p99_ms:>8.1f}{in_time:>9.1%}"
    return f"{load:<18}{setting:<18}{values}"


def simulated(seconds: float, warm_up_s: float, loads: list[str]) -> None:
    """The table by the simulator, with execution times that scatter by 5 %."""
    print(HEADER)
    instance = InstanceSpec("m_0", InstanceKind.CPU, 0)
    for load in loads:
        for setting, batching in SETTINGS.items():
            spec = ModelSpec("m", 1, "python", "python", SIZE, (), (), (instance,), batching)
            execution_ns = noisy(affine(FIXED_US, ROW_US), seed=SEED, spread=0.05)
            report = simulate_model(spec, LOADS[load](seconds), execution_ns, warm_up_s=warm_up_s)
            p50_ms, p99_ms = report.percentile_us(50) / 1e3, report.percentile_us(99) / 1e3
            share = report.in_time(TARGET_US) / max(1, report.requests)
            print(line(load, setting, report.requests_per_second, report.mean_us / 1e3, p50_ms, p99_ms, share))


def batching_text(batching: BatchingSpec) -> str:
    """The setting as it stands in ``config.pbtxt``."""
    sizes = " ".join(f"preferred_batch_size: {size}" for size in batching.preferred_batch_sizes)
    text = f"dynamic_batching {{ {sizes} max_queue_delay_microseconds: {batching.max_queue_delay_us} }}"
    return text + (TARGET if batching.latency_target_us else "")


@contextmanager
def served() -> Iterator[int]:
    """The server with a model for each setting; gives its HTTP port."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        for setting, batching in SETTINGS.items():
            model = Path(folder) / setting / "1" / "model.py"
            model.parent.mkdir(parents=True)
            model.write_text(MODEL)
            (model.parents[1] / "config.pbtxt").write_text(CONFIG % (SIZE, batching_text(batching)))
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        command = [sys.executable, "-m", "shoal", "serve", "--model-repository", folder]
        options = [f"--http-port={port}", "--allow-grpc=false", "--allow-metrics=false"]
        server = subprocess.Popen([*command, *options], stderr=subprocess.DEVNULL)
        try:
            wait_until_ready(f"http://127.0.0.1:{port}/v2/health/ready")
            yield port
        finally:
            server.terminate()
            server.wait(30)


def wait_until_ready(url: str) -> None:
    """Return once the server is ready."""
    for _ in range(300):
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
        else:
            return
    sys.exit("the server did not become ready within half a minute")


def infer_request(model: str) -> bytes:
    """An infer request for one row, as it goes over the wire."""
    tensor = {"name": "A", "shape": [1, 1], "datatype": "FP32", "data": [1.0]}
    body = json.dumps({"inputs": [tensor]}).encode()
    head = f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def play(port: int, model: str, load: str, seconds: float, warm_up_s: float) -> Outcome:
    """Play one load to one model."""
    player = Player("127.0.0.1", port, infer_request(model))
    return await player.play((arrival.at_ns / 1e9 for arrival in LOADS[load](seconds)), warm_up_s)


def measured(seconds: float, warm_up_s: float, loads: list[str]) -> None:
    """The table by the real server."""
    print(HEADER)
    with served() as port:
        for load in loads:
            for setting in SETTINGS:
                outcome = uvloop.run(play(port, setting, load, seconds, warm_up_s))
                p50_ms, p99_ms = outcome.percentile_ms(50), outcome.percentile_ms(99)
                share = outcome.in_time(TARGET_US / 1e6)
                print(line(load, setting, outcome.answered_per_second, outcome.mean_ms, p50_ms, p99_ms, share))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", action="store_true", help="measure the real server")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load")
    parser.add_argument("--warm-up", type=float, default=2.0, help="seconds of each load that are not counted")
    parser.add_argument("--loads", nargs="+", choices=LOADS, default=list(LOADS), metavar="LOAD")
    options = parser.parse_args()
    (measured if options.real else simulated)(options.seconds, options.warm_up, options.loads)


if __name__ == "__main__":
    main()
