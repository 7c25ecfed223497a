"""A model with a latency target, served: it answers, it explains itself, and a wrong target is told at the start."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.clients import get, infer, row
from tests.execution.models import write_model
from tests.serving import ShoalProcess

TARGET = 'parameters { key: "latency_target_us" value { string_value: "%s" } }'
SLOW = """
class TritonPythonModel:
    def execute(self, requests):
        time.sleep(0.002)
        return [answer(value(request) * 2) for request in requests]
"""


def test_a_model_with_a_latency_target_is_served_and_says_what_it_measured(tmp_path):
    write_model(tmp_path, "quick", SLOW, more="dynamic_batching { }" + TARGET % "50000")
    with ShoalProcess(tmp_path) as shoal, ThreadPoolExecutor(8) as clients:
        asked = [clients.submit(infer, shoal.http, "quick", row(value)) for value in range(200)]
        answers = [each.result().json["outputs"][0]["data"] for each in asked]
        assert answers == [[2.0 * value] for value in range(200)]
        config = get(shoal.http, "/v2/models/quick/config").json
        assert config["parameters"]["latency_target_us"] == {"string_value": "50000"}
        beliefs = get(shoal.http, "/v2/models/quick/explain").json["latency_target"]
        assert beliefs["target_us"] == 50_000
        assert beliefs["requests_per_second"] > 0
        assert sum(size["rows"] * size["batches"] for size in beliefs["execution_times"]) == 200
        assert all(size["expected_us"] > 2_000 for size in beliefs["execution_times"])


def test_a_target_that_cannot_be_is_told_with_its_line(tmp_path):
    write_model(tmp_path, "wrong", more=TARGET % "50ms" + " dynamic_batching { }")
    command = [sys.executable, "-m", "shoal", "check", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert 'parameters["latency_target_us"]: must be a whole number of microseconds' in done.stdout + done.stderr
