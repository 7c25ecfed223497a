"""Fuzz HTTP/1.1 for as long as you like: ``python -m tests.fuzz.run_http1 [SECONDS]``.

With atheris installed the mutations are guided by coverage (its own options may follow); without it they are random.
"""

import importlib
import importlib.util
import random
import sys
import time

from tests.fuzz.http1_target import CORPUS, check, mutate


def edges_from(data: bytes, source: random.Random) -> list[int]:
    return sorted(source.randint(0, len(data)) for _ in range(source.randint(0, 5)))


def run_random(seconds: float) -> int:
    """Random mutations of the corpus; prints the seed of a failure."""
    samples = list(CORPUS.values())
    deadline = time.monotonic() + seconds
    seed = first = time.time_ns()
    while time.monotonic() < deadline:
        source = random.Random(seed)
        data = mutate(source.choice(samples), source)
        try:
            check(data, edges_from(data, source))
        except BaseException:
            sys.stderr.write(f"seed {seed}, input {data!r}\n")
            raise
        seed += 1
    return seed - first


def run_atheris() -> None:
    atheris = importlib.import_module("atheris")
    atheris.instrument_all()
    atheris.Setup(sys.argv, lambda data: check(data, edges_from(data, random.Random(len(data)))))
    atheris.Fuzz()


if __name__ == "__main__":
    if importlib.util.find_spec("atheris"):
        run_atheris()
    else:
        count = run_random(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0)
        sys.stdout.write(f"{count} inputs, no failure\n")
