"""Fuzz HTTP/2 for as long as you like: ``python -m tests.fuzz.run_http2 [SECONDS]``."""

import random
import sys
import time

from tests.fuzz.http2_target import CORPUS, check, mutate


def run(seconds: float) -> int:
    """Random changes of the corpus; prints the sample and seed of a failure."""
    names = list(CORPUS)
    deadline = time.monotonic() + seconds
    seed = first = time.time_ns()
    while time.monotonic() < deadline:
        source = random.Random(seed)
        name = source.choice(names)
        data = mutate(CORPUS[name], source)
        edges = sorted(source.randint(0, len(data)) for _ in range(source.randint(0, 5)))
        try:
            check(data, edges)
        except BaseException:
            sys.stderr.write(f"sample {name}, seed {seed}, input {data!r}, cut at {edges}\n")
            raise
        seed += 1
    return seed - first


if __name__ == "__main__":
    inputs = run(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0)
    sys.stdout.write(f"{inputs} inputs, no failure\n")
