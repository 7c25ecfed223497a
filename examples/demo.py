"""Serves examples/models with Shoal, asks it over HTTP and gRPC with the official Triton clients, and shows what came.

Exits with status 0 only if the answers are right and both protocols agree. ``--keep`` leaves the server running.
"""

import argparse
import json
import re
import signal
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from demo_clients import PICTURES, TRUTH, Answers, classify_over_grpc, classify_over_http, likeliest, text_stats
from demo_server import DemoServer, DemoServerError
from demo_show import show_accuracy, show_batches, show_pictures, show_texts
from rich.console import Console

MODELS = Path(__file__).resolve().with_name("models")
LEAST_ACCURACY = {"digits": 0.95, "digits_bare": 0.93}
LARGEST_DIFFERENCE = 1e-5
PICTURES_SHOWN = 4
TEXTS = ("Many fish that move as one.", "Ein Schwarm", "群れ")
KEPT = """
The server stays up until you press Ctrl-C. Try:

  curl localhost:{server.http_port}/v2
  curl localhost:{server.http_port}/v2/models/digits
  curl localhost:{server.http_port}/v2/models/digits/config
  curl localhost:{server.http_port}/v2/models/digits/stats
  curl localhost:{server.http_port}/v2/models/text_stats/infer -d '{request}'
  curl localhost:{server.metrics_port}/metrics
"""
TEXT_REQUEST = '{"inputs":[{"name":"TEXT","datatype":"BYTES","shape":[1,1],"data":["A shoal of fish"]}]}'


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="leave the server running and print commands to try")
    keep = parser.parse_args().keep
    console = Console(highlight=False)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with DemoServer(MODELS) as server:
            problems = run(console, server)
            if keep:
                wait_for_the_user(console, server)
    except DemoServerError as error:
        problems = [str(error)]
    except KeyboardInterrupt:
        problems = ["Interrupted; the server was stopped."]
    for problem in problems:
        console.print(problem, style="red", markup=False)
    if not problems:
        console.print("All answers are right, and both protocols agree.", style="green")
    return 1 if problems else 0


def run(console: Console, server: DemoServer) -> list[str]:
    """Ask, show and judge; return what was wrong."""
    console.print(f"shoal serve was ready after {server.ready_s:.2f} s with five models.\n")
    answers = {
        (model, protocol): classify(port, model)
        for model in LEAST_ACCURACY
        for protocol, classify, port in (
            ("HTTP", classify_over_http, server.http_port),
            ("gRPC", classify_over_grpc, server.grpc_port),
        )
    }
    first = answers["digits", "HTTP"]
    misread = np.flatnonzero(first.labels != TRUTH)[:1].tolist()
    show_pictures(console, first, [*range(PICTURES_SHOWN - len(misread)), *misread])
    show_accuracy(console, [(*key, each) for key, each in answers.items()])
    console.print("First picture, likeliest digits:", ", ".join(likeliest(server.http_port, PICTURES[0], 3)))
    counts = text_stats(server.grpc_port, TEXTS)
    show_texts(console, TEXTS, counts)
    sizes = batch_sizes(server)
    show_batches(console, sizes, close_reasons(server))
    return [*wrong_answers(answers), *wrong_counts(counts), *wrong_batches(sizes)]


def wrong_answers(answers: dict[tuple[str, str], Answers]) -> list[str]:
    """What is wrong with the classifiers' answers: too many misread pictures, or protocols that disagree."""
    problems = []
    for model, least in LEAST_ACCURACY.items():
        http, grpc = answers[model, "HTTP"], answers[model, "gRPC"]
        problems += [
            f"{model} over {protocol} reads {each.accuracy:.1%} of the pictures; at least {least:.0%} were expected."
            for protocol, each in (("HTTP", http), ("gRPC", grpc))
            if each.accuracy < least
        ]
        difference = float(np.max(np.abs(http.probabilities - grpc.probabilities)))
        if difference > LARGEST_DIFFERENCE or not np.array_equal(http.labels, grpc.labels):
            problems.append(f"{model}: HTTP and gRPC give different answers (probabilities by up to {difference:.2g}).")
    return problems


def wrong_counts(counts: list[tuple[int, int, float]]) -> list[str]:
    """What is wrong with the Python model's answers."""
    expected = [(len(text), len(text.split()), len(text.split()) / 4) for text in TEXTS]
    return [] if counts == expected else [f"text_stats counted {counts}; {expected} was expected."]


def wrong_batches(sizes: Counter[int]) -> list[str]:
    """What is wrong with the batches: pictures not counted, or none that shared a run."""
    rows, expected = sum(size * batches for size, batches in sizes.items()), 2 * len(TRUTH) + 1
    problems = [] if rows == expected else [f"the statistics count {rows} pictures; {expected} were sent."]
    if max(sizes, default=0) < 2:
        problems.append("no two pictures shared a batch.")
    return problems


def batch_sizes(server: DemoServer) -> Counter[int]:
    """How many batches of each size the digits model ran, from Triton's statistics."""
    (statistics,) = json.loads(server.get("/v2/models/digits/stats"))["model_stats"]
    return Counter({batch["batch_size"]: batch["compute_infer"]["count"] for batch in statistics["batch_stats"]})


def close_reasons(server: DemoServer) -> Counter[str]:
    """Why the batches of the digits model were closed, from Shoal's metrics."""
    metrics = server.get("/metrics", server.metrics_port)
    rows = re.findall(r'^shoal_inference_batch_rows_count\{(.*model="digits".*)\} (\d+)', metrics, re.MULTILINE)
    return Counter({re.search(r'reason="(\w+)"', labels).group(1): int(count) for labels, count in rows})


def wait_for_the_user(console: Console, server: DemoServer) -> None:
    """Print commands to try, and wait for Ctrl-C."""
    console.print(KEPT.format(server=server, request=TEXT_REQUEST), markup=False, soft_wrap=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        console.print("Stopping.")


if __name__ == "__main__":
    sys.exit(main())
