"""Requests of unequal lengths: padding with buckets, against no batching and against padding any lengths together.

A small transformer encoder answers sentences whose lengths are log-normal, as those of chats and searches are: most are
short, a few are very long. A number of connections send one request after the other. All settings serve the same
network in the same server and are measured in turn.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import encoder_network
import numpy as np
from demo_server import DemoServer

MEDIAN_LENGTH = 20
SIGMA = 0.9
LONGEST = 512
BUCKETS = [16, 32, 64, 128, 256, 512]
PADDED = {"value": 0, "mask": "MASK", "maximum": LONGEST, "outputs": {"STATES": 0}}
BATCHING = "dynamic_batching { }"
SETTINGS = {
    "no batching": (PADDED, ""),
    "padding": (PADDED, BATCHING),
    "padding, buckets": ({**PADDED, "buckets": BUCKETS}, BATCHING),
}
CONFIG = """
backend: "onnxruntime"
max_batch_size: 16
input [ { name: "IDS" data_type: TYPE_INT64 dims: [ -1 ] }, { name: "MASK" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "STATES" data_type: TYPE_FP32 dims: [ -1, %d ] } ]
instance_group [ { kind: KIND_CPU } ]
parameters { key: "intra_op_thread_count" value { string_value: "1" } }
parameters { key: "padding" value { string_value: '%s' } }
%s
"""


class Result(NamedTuple):
    """One measurement: requests per second, two latencies in milliseconds, and what part of the elements is padding."""

    rate: float
    median_ms: float
    p99_ms: float
    waste: float


def main() -> None:
    """Measure every setting in every round, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    lengths = sentence_lengths(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        write_models(Path(folder))
        with DemoServer(Path(folder)) as server:
            results = measure(server, lengths, options)
    report(results, lengths, options)


def sentence_lengths(seed: int) -> list[int]:
    """Lengths of sentences in tokens."""
    drawn = np.random.default_rng(seed).lognormal(np.log(MEDIAN_LENGTH), SIGMA, 20_000)
    return [int(length) for length in np.clip(drawn, 2, LONGEST)]


def model_name(setting: str) -> str:
    """The model that has a setting."""
    return setting.replace(", ", "_").replace(" ", "_")


def write_models(repository: Path) -> None:
    """Write one model for each setting."""
    for setting, (policy, batching) in SETTINGS.items():
        folder = repository / model_name(setting)
        (folder / "1").mkdir(parents=True)
        encoder_network.write(folder / "1" / "model.onnx")
        text = CONFIG % (encoder_network.OUTPUTS, json.dumps({"IDS": policy}), batching)
        (folder / "config.pbtxt").write_text(text)


def measure(server: DemoServer, lengths: list[int], options: argparse.Namespace) -> dict[str, list[Result]]:
    """Every setting in turn, round after round; what comes before the first round warms up."""
    results: dict[str, list[Result]] = {setting: [] for setting in SETTINGS}
    for number in range(options.rounds + 1):
        for setting, found in results.items():
            seconds = options.seconds if number else min(1.0, options.seconds)
            before = padding(server, setting)
            times_s = asyncio.run(load(server.http_port, model_name(setting), lengths, seconds, options.connections))
            sent, padded = (after - first for after, first in zip(padding(server, setting), before, strict=True))
            if number:
                ordered = sorted(times_s)
                p99_s = ordered[int(len(ordered) * 0.99)]
                waste = 1 - sent / padded
                found.append(Result(len(ordered) / seconds, statistics.median(ordered) * 1e3, p99_s * 1e3, waste))
    return results


def padding(server: DemoServer, setting: str) -> tuple[int, int]:
    """Elements that the model was sent so far, and those that it computed."""
    told = json.loads(server.get(f"/v2/models/{model_name(setting)}/explain"))["padding"]
    return told["elements"], told["padded_elements"]


async def load(port: int, model: str, lengths: list[int], seconds: float, connections: int) -> list[float]:
    """Send one request after the other on every connection; gives the seconds that each answer took."""
    until_s = time.monotonic() + seconds
    share = len(lengths) // connections
    senders = [send(port, model, lengths[place * share : (place + 1) * share], until_s) for place in range(connections)]
    return [taken_s for each in await asyncio.gather(*senders) for taken_s in each]


async def send(port: int, model: str, lengths: list[int], until_s: float) -> list[float]:
    """One connection's requests, its lengths over and over."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    times_s: list[float] = []
    while True:
        for length in lengths:
            started_s = time.monotonic()
            if started_s >= until_s:
                writer.close()
                await writer.wait_closed()
                return times_s
            writer.write(request(model, length))
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(int(field(head, b"content-length")))
            if not head.startswith(b"HTTP/1.1 200") or len(body) < length * encoder_network.OUTPUTS * 4:
                raise RuntimeError((head + body[:500]).decode(errors="replace"))
            times_s.append(time.monotonic() - started_s)


def request(model: str, length: int) -> bytes:
    """An infer request over HTTP with binary data."""
    data = np.arange(length, dtype="<i8").tobytes()
    inputs = [{"name": "IDS", "datatype": "INT64", "shape": [1, length], "parameters": {"binary_data_size": len(data)}}]
    text = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    head = (
        f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: localhost\r\n"
        f"Inference-Header-Content-Length: {len(text)}\r\nContent-Length: {len(text) + len(data)}\r\n\r\n"
    )
    return head.encode() + text + data


def field(head: bytes, name: bytes) -> bytes:
    """The value of a header field."""
    return next(line.split(b":", 1)[1] for line in head.split(b"\r\n") if line.lower().startswith(name + b":"))


def report(results: dict[str, list[Result]], lengths: list[int], options: argparse.Namespace) -> None:
    """Print a table, the ratios against the first setting."""
    print(f"lengths: median {statistics.median(lengths):.0f}, mean {statistics.mean(lengths):.0f}, most {max(lengths)}")
    print(f"{options.connections} connections, {options.rounds} rounds of {options.seconds:g} s\n")
    print("| setting | requests/s | ratio | median ms | p99 ms | padding |\n|---|---|---|---|---|---|")
    first = statistics.median(result.rate for result in results["no batching"])
    for setting, found in results.items():
        rate, median_ms, p99_ms, waste = (statistics.median(values) for values in zip(*found, strict=True))
        print(f"| {setting} | {rate:,.0f} | {rate / first:.2f} | {median_ms:.1f} | {p99_ms:.1f} | {waste:.0%} |")


if __name__ == "__main__":
    main()
