"""Requests per second of the digits example through Shoal, beside the same ONNX session in Triton's Python backend.

Both serve the same network with the same batching; each case is measured in turn, so that a drift of the machine
touches both, and the ratio of the medians is what counts. Without ``--peer`` only Shoal is measured. The peer's Python
must be able to import onnxruntime.
"""

import argparse
import json
import re
import shlex
import shutil
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import tritonclient.grpc
import tritonclient.http
from demo_server import DemoServer, DemoServerError
from h2load import GRPC_METHOD, Load, grpc_request, http_request, requests_per_second

DIGITS = Path(__file__).resolve().parents[1] / "examples" / "models" / "digits"
CASES = {
    "http-1": Load("http", 1, 1),
    "http-16": Load("http", 16, 1),
    "http-64": Load("http", 64, 1),
    "grpc-1": Load("grpc", 1, 1),
    "grpc-16": Load("grpc", 1, 16),
    "grpc-64": Load("grpc", 4, 16),
}
PYTHON_MODEL = Path(__file__).with_name("onnx_python_model.py")


def main() -> None:
    """Serve, measure case by case, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="the command that starts the real Triton, such as tritonserver")
    parser.add_argument("--case", action="append", choices=CASES, help="measure only this case (repeatable)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="the length of one measurement")
    args = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = {"shoal": stack.enter_context(DemoServer(onnx_repository(folder / "shoal")))}
        if args.peer:
            repository = python_repository(folder / "triton")
            servers["triton"] = stack.enter_context(DemoServer(repository, shlex.split(args.peer)))
        for case in args.case or CASES:
            rates: dict[str, list[float]] = {name: [] for name in servers}
            for _ in range(args.rounds):
                for name, server in servers.items():
                    rates[name].append(measure(server, CASES[case], args.seconds))
            report(case, {name: statistics.median(values) for name, values in rates.items()})


def onnx_repository(folder: Path) -> Path:
    """The digits example without its queue delay, which would hide the server behind a wait."""
    shutil.copytree(DIGITS, folder / "digits")
    config = folder / "digits" / "config.pbtxt"
    config.write_text(re.sub(r"dynamic_batching \{.*\}", "dynamic_batching { }", config.read_text()))
    return folder


def python_repository(folder: Path) -> Path:
    """The same repository with a Python model around the ONNX session, for a Triton with the Python backend alone."""
    config = onnx_repository(folder) / "digits" / "config.pbtxt"
    config.write_text(config.read_text().replace('"onnxruntime"', '"python"'))
    shutil.copy(PYTHON_MODEL, folder / "digits" / "1" / "model.py")
    return folder


def measure(server: DemoServer, load: Load, seconds: float) -> float:
    """Requests per second under one load; the server's own count must cover what the load generator saw."""
    picture = np.load(DIGITS.parents[1] / "digits_test.npz")["pixels"][:1].astype(np.float32)
    client = tritonclient.http if load.protocol == "http" else tritonclient.grpc
    tensor = client.InferInput("pixels", picture.shape, "FP32")
    tensor.set_data_from_numpy(picture)
    if load.protocol == "http":
        url = f"http://127.0.0.1:{server.http_port}/v2/models/digits/infer"
        body, options = http_request(tensor)
    else:
        url = f"http://127.0.0.1:{server.grpc_port}{GRPC_METHOD}"
        body, options = grpc_request("digits", tensor)
    before = successes(server)
    rate = requests_per_second(url, body, options, load, seconds)
    if (served := successes(server) - before) < rate * seconds * 0.9:
        sys.exit(f"h2load saw {rate * seconds:.0f} answers, the server counts {served} successes")
    return rate


def successes(server: DemoServer) -> int:
    """The server's own count of successful requests."""
    (model,) = json.loads(server.get("/v2/models/digits/stats"))["model_stats"]
    return model["inference_stats"]["success"]["count"]


def report(case: str, medians: dict[str, float]) -> None:
    """Print one line: each server's median and the ratio."""
    columns = [f"{name} {rate:9.0f}/s" for name, rate in medians.items()]
    if "triton" in medians:
        columns.append(f"ratio {medians['shoal'] / medians['triton']:5.2f}")
    print(f"{case:8}", *columns, sep="  ", flush=True)


if __name__ == "__main__":
    try:
        main()
    except DemoServerError as error:
        sys.exit(str(error))
