"""Triton's own load generator runs against the server."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.execution.decoupled_models import write_decoupled
from tests.execution.models import write_model
from tests.serving import ShoalProcess

TIMEOUT_S = 60
CACHE = Path.home() / ".cache" / "shoal-peers"
PROGRAM = Path(os.environ.get("SHOAL_PERF_ANALYZER", CACHE / "bin" / "perf_analyzer.bin"))
LIBRARIES = [str(path) for path in CACHE.glob("venv/lib/python3*/site-packages/nvidia/cuda_runtime/lib")]
# A number of requests, not a time: on a busy machine no two windows of a second are alike, and it would give up.
MEASURE = "-m double --concurrency-range 4 --request-count 2000 --shape IN:4 --sync".split()  # noqa: SIM905

STREAMING = "-i grpc --async --streaming --request-count 500 --shape IN:4".split()  # noqa: SIM905
THREES = """
class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            for place in range(3):
                sender.send(answer(value(request)), flags=FINAL if place == 2 else 0)
"""
"""A decoupled model with three responses to each request."""

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason="perf_analyzer is not installed")


@pytest.fixture(scope="module")
def shoal(tmp_path_factory):
    repository = tmp_path_factory.mktemp("models")
    write_model(repository, "double")
    write_decoupled(repository, "threes", THREES)
    with ShoalProcess(repository) as process:
        yield process


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_it_measures_a_throughput(shoal, protocol):
    done = measure("-i", protocol, "-u", getattr(shoal, protocol), *MEASURE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Request count: 2000" in done.stdout
    assert "Throughput:" in done.stdout


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("model", ["double", "threes"])
def test_it_measures_streams_also_of_a_decoupled_model(shoal, model, concurrency):
    done = measure("-m", model, "-u", shoal.grpc, "--concurrency-range", str(concurrency), *STREAMING)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Throughput:" in done.stdout
    if model == "threes":
        assert "Response Throughput:" in done.stdout


def measure(*options):
    """Run the program, for no longer than a minute: it has been seen to wait for ever."""
    return subprocess.run(
        [PROGRAM, *options],
        env={**os.environ, "LD_LIBRARY_PATH": ":".join(LIBRARIES)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
