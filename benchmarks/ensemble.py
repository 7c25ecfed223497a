"""Requests per second through an ensemble of three Python models, and what a step costs.

Shoal and the real Triton (``--peer``) serve the same repository; each case is measured in turn, so that a drift of the
machine touches both. With one request in flight two more numbers are printed, both in microseconds:

* ``between``: what the ensemble adds to a step by itself: the time of its requests less that of the requests to its
  models, by three, all from the server's own statistics;
* ``step``: what one step more costs a client: the time of a request to the ensemble less that of one to the first of
  its models, by two. This holds the model's own work, which is next to nothing for small tensors.
"""

import argparse
import json
import shlex
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tritonclient.grpc
import tritonclient.http
from demo_server import DemoServer, DemoServerError
from h2load import GRPC_METHOD, Load, grpc_request, http_request, requests_per_second

STEPS = {"before": "value + 1", "during": "value * 2", "after": "value - 1"}
SIZES = {"small": 16, "1MB": 262_144}
LOADS = {
    "http-1": Load("http", 1, 1),
    "http-16": Load("http", 16, 1),
    "http-64": Load("http", 64, 1),
    "grpc-1": Load("grpc", 1, 1),
    "grpc-16": Load("grpc", 1, 16),
    "grpc-64": Load("grpc", 4, 16),
}
CASES = [f"{size}-{load}" for size in SIZES for load in LOADS]
MODEL = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        value = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", {expression})])
"""
TENSORS = """
max_batch_size: 64
input {{ name: "IN" data_type: TYPE_FP32 dims: [ {width} ] }}
output {{ name: "OUT" data_type: TYPE_FP32 dims: [ {width} ] }}
"""


class Result(NamedTuple):
    """Requests per second, microseconds that the ensemble adds to a step, and those of one step more."""

    rate: float
    between_us: float
    step_us: float


def main() -> None:
    """Serve, measure case by case, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="the command that starts the real Triton, such as tritonserver")
    parser.add_argument("--case", action="append", choices=CASES, help="measure only this case (repeatable)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="the length of one measurement")
    args = parser.parse_args()
    with ExitStack() as stack:
        repository = write_repository(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        servers = {"shoal": stack.enter_context(DemoServer(repository))}
        if args.peer:
            servers["triton"] = stack.enter_context(DemoServer(repository, shlex.split(args.peer)))
        for case in args.case or CASES:
            results: dict[str, list[Result]] = {name: [] for name in servers}
            for _ in range(args.rounds):
                for name, server in servers.items():
                    results[name].append(measure(server, case, args.seconds))
            report(case, {name: median(values) for name, values in results.items()})


def write_repository(folder: Path) -> Path:
    """Three models and their ensemble, for each size of tensor."""
    for size, width in SIZES.items():
        tensors = TENSORS.format(width=width)
        for step, expression in STEPS.items():
            config = f'backend: "python"\n{tensors}dynamic_batching {{ }}\ninstance_group {{ kind: KIND_CPU }}\n'
            write_model(folder / f"{step}_{size}", config)
            code = MODEL.format(expression=expression)
            (folder / f"{step}_{size}" / "1" / "model.py").write_text(code)
        write_model(folder / f"pipeline_{size}", f'platform: "ensemble"\n{tensors}{ensemble_text(size)}')
    return folder


def write_model(folder: Path, config: str) -> None:
    """A model's folder with its configuration."""
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(config)


def ensemble_text(size: str) -> str:
    """The steps, one behind the other."""
    tensors = ["IN", "first", "second", "OUT"]
    steps = [
        f'step {{ model_name: "{step}_{size}" model_version: -1\n'
        f'  input_map {{ key: "IN" value: "{tensors[place]}" }}\n'
        f'  output_map {{ key: "OUT" value: "{tensors[place + 1]}" }} }}\n'
        for place, step in enumerate(STEPS)
    ]
    return f"ensemble_scheduling {{ {''.join(steps)} }}\n"


def measure(server: DemoServer, case: str, seconds: float) -> Result:
    """One measurement; with one request in flight also of a model by itself."""
    size, _, load = case.partition("-")
    model = f"pipeline_{size}"
    models = [f"{step}_{size}" for step in STEPS]
    before = [success(server, one) for one in (model, *models)]
    rate = load_model(server, model, LOADS[load], seconds)
    (count, whole_ns), *steps = [
        (count - earlier, ns - earlier_ns)
        for one, (earlier, earlier_ns) in zip((model, *models), before, strict=True)
        for count, ns in [success(server, one)]
    ]
    if count < rate * seconds * 0.9:
        sys.exit(f"h2load saw {rate * seconds:.0f} answers, the server counts {count} successes")
    between_us = (whole_ns / count - sum(ns / times for times, ns in steps)) / len(STEPS) / 1000
    if LOADS[load].in_flight > 1:
        return Result(rate, between_us, 0.0)
    alone = load_model(server, models[0], LOADS[load], seconds)
    return Result(rate, between_us, (1 / rate - 1 / alone) / (len(STEPS) - 1) * 1e6)


def load_model(server: DemoServer, model: str, load: Load, seconds: float) -> float:
    """Requests per second of one model, or of the ensemble."""
    client = tritonclient.http if load.protocol == "http" else tritonclient.grpc
    width = SIZES[model.partition("_")[2]]
    tensor = client.InferInput("IN", [1, width], "FP32")
    tensor.set_data_from_numpy(np.ones((1, width), np.float32))
    if load.protocol == "http":
        url = f"http://127.0.0.1:{server.http_port}/v2/models/{model}/infer"
        body, options = http_request(tensor)
    else:
        url = f"http://127.0.0.1:{server.grpc_port}{GRPC_METHOD}"
        body, options = grpc_request(model, tensor)
    return requests_per_second(url, body, options, load, seconds)


def success(server: DemoServer, model: str) -> tuple[int, int]:
    """How many requests succeeded, and the nanoseconds that they took."""
    (found,) = json.loads(server.get(f"/v2/models/{model}/stats"))["model_stats"]
    numbers = found["inference_stats"]["success"]
    return numbers["count"], numbers["ns"]


def median(results: list[Result]) -> Result:
    """The median of each number."""
    return Result(*(statistics.median(values) for values in zip(*results, strict=True)))


def report(case: str, medians: dict[str, Result]) -> None:
    """Print one line: each server's median and the ratio."""
    columns = [f"{name} {result.rate:9.0f}/s" for name, result in medians.items()]
    if "triton" in medians:
        columns.append(f"ratio {medians['shoal'].rate / medians['triton'].rate:5.2f}")
    if case.endswith("-1"):
        columns += [f"{name} between {r.between_us:6.1f} us, step {r.step_us:7.1f} us" for name, r in medians.items()]
    print(f"{case:14}", *columns, sep="  ", flush=True)


if __name__ == "__main__":
    try:
        main()
    except DemoServerError as error:
        sys.exit(str(error))
