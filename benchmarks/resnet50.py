"""Rows per second of a ResNet-50 through Shoal, beside the same ONNX session called in a plain loop.

The network has random weights and ResNet-50's shape. Clients send one image per request, always enough of them at once
for the server to form the batches that the loop uses; the ratio says what the server costs. Each case is measured in
turn, loop and server, and the ratio of the medians is what counts.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h2load
import numpy as np
import onnxruntime
import resnet50_network
import tritonclient.grpc
import tritonclient.http
from demo_server import DemoServer, DemoServerError

from shoal.backends import onnx_options
from shoal.backends.cores import available_cores

BATCH_SIZES = (1, 8)
BATCHES_IN_FLIGHT = 3
WARM_UP_BATCHES = 2
IMAGE = np.random.default_rng(0).standard_normal((1, 3, 224, 224), dtype=np.float32)
CONFIG = """
name: "{name}"
backend: "onnxruntime"
max_batch_size: {batch_size}
input [ {{ name: "image" data_type: TYPE_FP32 dims: [ 3, 224, 224 ] }} ]
output [ {{ name: "scores" data_type: TYPE_FP32 dims: [ 1000 ] }} ]
dynamic_batching {{ max_queue_delay_microseconds: 20000 }}
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
"""


@dataclass(frozen=True)
class Case:
    """One measurement: how many rows share a run, and how many runs are timed."""

    batch_size: int
    batches: int

    @property
    def model(self) -> str:
        """The served model with this batch size."""
        return f"resnet50_batch{self.batch_size}"


def main() -> None:
    """Build the network, serve it, measure case by case, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=80, help="rows timed in one measurement, at least one batch")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = repository(Path(folder))
        sessions = {
            "loop": open_session(path, server_options()),
            "defaults": open_session(path, onnxruntime.SessionOptions()),
        }
        with DemoServer(Path(folder)) as server:
            for batch_size in BATCH_SIZES:
                case = Case(batch_size, max(1, args.rows // batch_size))
                measure(sessions, server, case, args.rounds)


def server_options() -> onnxruntime.SessionOptions:
    """What Shoal opens a model with that has one instance and says nothing of threads."""
    threads = onnx_options.default_threads(available_cores(), 1)
    return onnx_options.session_options(onnx_options.OnnxOptions(threads, entries={onnx_options.SPINNING: "0"}))


def open_session(path: Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    """A session of the network."""
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def repository(folder: Path) -> Path:
    """Write a repository with one model for each batch size, all from one file, and return that file."""
    paths = []
    for batch_size in BATCH_SIZES:
        model = folder / Case(batch_size, 1).model
        paths.append(model / "1" / "model.onnx")
        if len(paths) == 1:
            resnet50_network.write(paths[0])
        else:
            paths[-1].parent.mkdir(parents=True)
            os.link(paths[0], paths[-1])
        (model / "config.pbtxt").write_text(CONFIG.format(name=model.name, batch_size=batch_size))
    return paths[0]


def measure(sessions: dict[str, onnxruntime.InferenceSession], server: DemoServer, case: Case, rounds: int) -> None:
    """Measure the loops and both protocols in turn, and print the medians and what the server keeps of the loop."""
    ways: dict[str, Callable[[], float]] = {
        "loop": lambda: loop_rate(sessions["loop"], case),
        "defaults": lambda: loop_rate(sessions["defaults"], case),
        "HTTP": lambda: server_rate(tritonclient.http, server.http_port, case),
        "gRPC": lambda: server_rate(tritonclient.grpc, server.grpc_port, case),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            rates[name].append(way())
    medians = {name: statistics.median(values) for name, values in rates.items()}
    columns = [f"{name} {rate:7.2f} rows/s ({rate / medians['loop']:6.1%})" for name, rate in medians.items()]
    print(f"batch {case.batch_size}:", *columns, f"mean batch {mean_batch(server, case):.2f}", sep="  ", flush=True)


def loop_rate(session: onnxruntime.InferenceSession, case: Case) -> float:
    """Rows per second of ``session.run`` in a plain loop."""
    images = np.repeat(IMAGE, case.batch_size, axis=0)
    for _ in range(WARM_UP_BATCHES):
        session.run(None, {"image": images})
    started = time.perf_counter()
    for _ in range(case.batches):
        session.run(None, {"image": images})
    return case.batches * case.batch_size / (time.perf_counter() - started)


def server_rate(client_module, port: int, case: Case) -> float:  # noqa: ANN001 - one of tritonclient's two modules
    """Rows per second through the server, between the end of the warm-up and the end of the last timed batch.

    Batches behind the last timed one keep the server as busy at the end as in between. The load comes from h2load,
    which takes the least of the processor time that server and session need.
    """
    tensor = client_module.InferInput("image", IMAGE.shape, "FP32")
    tensor.set_data_from_numpy(IMAGE)
    if client_module is tritonclient.http:
        url = f"http://127.0.0.1:{port}/v2/models/{case.model}/infer"
        body, options = h2load.http_request(tensor)
    else:
        url = f"http://127.0.0.1:{port}{h2load.GRPC_METHOD}"
        body, options = h2load.grpc_request(case.model, tensor)
    batches = WARM_UP_BATCHES + case.batches + BATCHES_IN_FLIGHT
    done = h2load.completion_times_s(url, body, options, BATCHES_IN_FLIGHT * case.batch_size, batches * case.batch_size)
    first = WARM_UP_BATCHES * case.batch_size - 1
    last = first + case.batches * case.batch_size
    return (last - first) / (done[last] - done[first])


def mean_batch(server: DemoServer, case: Case) -> float:
    """The mean rows in a batch so far, from the server's statistics: near the batch size, or the run is void."""
    (model,) = json.loads(server.get(f"/v2/models/{case.model}/stats"))["model_stats"]
    return model["inference_count"] / model["execution_count"]


if __name__ == "__main__":
    try:
        main()
    except DemoServerError as error:
        sys.exit(str(error))
