"""What one request of the digits model costs inside Shoal, step by step, in microseconds of one warm core.

Every step is the server's own code, called in a loop without sockets and processes between the steps, which a
measurement of the whole adds: decode (HTTP head and body to a request), queue (in and out of the dynamic batcher),
gather (rows into shared memory, and the message), run (the worker: message, ONNX Runtime, outputs), scatter (rows to
responses), encode (response to HTTP body).
"""

import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h2load
import msgspec
import numpy as np
import tritonclient.http
from digits import DIGITS

from shoal.backends import registry
from shoal.backends.contract import LoadContext, ModelFiles
from shoal.config.compile import compile_spec
from shoal.config.prepare import prepare_config
from shoal.config.render import config_to_dict
from shoal.execution.arena import Arena
from shoal.execution.blocks import InstanceBlocks
from shoal.execution.gather import Gatherer
from shoal.execution.instance_loop import InstanceLoop
from shoal.execution.messages import BatchDone, RunBatch, frame
from shoal.execution.scatter import Scatterer
from shoal.protocols import rest
from shoal.requests import LATEST, InferRequest
from shoal.scheduling.admission import plan_request
from shoal.scheduling.contract import Batch, CloseReason
from shoal.scheduling.make import make_scheduler
from shoal.transport.http1_head import parse_head

BATCH_SIZES = (1, 16, 32)
ROUNDS = 7
CALLS = 300


def main() -> None:
    """Measure each step at each batch size and print a table."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(DIGITS, Path(folder) / "digits")
        steps = Steps(Path(folder) / "digits")
        print(f"{'rows':>4}", *(f"{name:>8}" for name in steps.names), f"{'total':>8}", "  microseconds per request")
        for rows in BATCH_SIZES:
            costs = [best_us(step) / rows for step in steps.of_batch(rows)]
            print(f"{rows:>4}", *(f"{cost:8.2f}" for cost in costs), f"{sum(costs):8.2f}")


def best_us(step: Callable[[], object]) -> float:
    """The time of one call, in microseconds: the best of several rounds, for the machine only ever adds to it."""
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(CALLS):
            step()
        best = min(best, time.perf_counter() - started)
    return best / CALLS * 1e6


class Steps:
    """The steps of a request, each as a function that may be called again and again."""

    names = ("decode", "queue", "gather", "run", "scatter", "encode")

    def __init__(self, model_dir: Path) -> None:
        config = prepare_config(model_dir, 0).config
        files = ModelFiles(model_dir.parent, model_dir, model_dir / "1")
        backend = registry.get(config.backend)
        backend.complete(config, files)
        self.spec = compile_spec(config, 1, model_dir, 0)
        context = LoadContext(self.spec, json.dumps(config_to_dict(config)), files, 2.0)
        instance = backend.load(context).instance(self.spec.instances[0])
        self.arena = Arena(1 << 28)
        self.blocks = InstanceBlocks(self.arena)
        self.loop = InstanceLoop(instance, (-1, -1), self.spec, self.arena.mapping)
        self.gatherer = Gatherer(self.spec, self.arena.mapping, takes_pieces=False)
        self.scatterer = Scatterer(self.spec)

    def of_batch(self, rows: int) -> list[Callable[[], object]]:
        """The steps for a batch of so many requests of one row each."""
        head, body, nbytes = http_request()
        decoded = rest.decode_head(body[:nbytes], "digits", LATEST)
        plan = plan_request(decoded, self.spec, None)
        heads, plans = {head: parse_head(head, 128)}, {body[:nbytes]: plan}

        def decode() -> list[InferRequest]:
            requests = []
            for _ in range(rows):
                known = heads[head]
                found = plans[body[:nbytes]]
                payload = rest.split_payload(found.head, body, nbytes)
                requests.append(InferRequest(found, payload, None, known, time.monotonic_ns()))
            return requests

        requests, scheduler = decode(), make_scheduler(self.spec)
        batch = Batch(requests, rows, CloseReason.FULL)

        def queue() -> None:
            now_ns = time.monotonic_ns()
            for request in requests:
                scheduler.enqueue(request, now_ns)
            scheduler.take(now_ns + 10**10)

        message = self.gatherer.message(batch, self.blocks)

        def run() -> bytes:
            return frame(self.loop._serve(msgspec.msgpack.decode(message[4:], type=RunBatch)))  # noqa: SLF001 - its core

        done = run()

        def scatter() -> list[object]:
            return self.scatterer.answers(batch, msgspec.msgpack.decode(done[4:], type=BatchDone), self.blocks)

        answers = scatter()

        def encode() -> None:
            for answer in answers:
                rest.encode_response(plan.head, answer, plan.labels, batched=True)

        return [decode, queue, lambda: self.gatherer.message(batch, self.blocks), run, scatter, encode]


def http_request() -> tuple[bytes, bytes, int]:
    """The head and body of an infer request for one picture, and the length of the body's JSON header."""
    picture = np.load(DIGITS.parents[1] / "digits_test.npz")["pixels"][:1].astype(np.float32)
    tensor = tritonclient.http.InferInput("pixels", picture.shape, "FP32")
    tensor.set_data_from_numpy(picture)
    body, options = h2load.http_request(tensor)
    headers = [option for option in options if ": " in option]
    nbytes = int(headers[-1].partition(": ")[2])
    lines = ["POST /v2/models/digits/infer HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode(), body, nbytes


if __name__ == "__main__":
    main()
