"""Models whose answers say how often they ran, and what the servers in front of them counted."""

from __future__ import annotations

from pathlib import Path

from tests.clients import Reply, get, infer, tensor
from tests.execution.models import write_model
from tests.serving import ShoalProcess

CACHED = "dynamic_batching { } response_cache { enable: true }"

COUNTING = """
class TritonPythonModel:
    def initialize(self, args):
        self.runs = 0

    def execute(self, requests):
        self.runs += 1
        responses = []
        for request in requests:
            array = value(request)
            if array.size and array.flat[0] < 0:
                error = pb_utils.TritonError("negative numbers are refused", pb_utils.TritonError.INVALID_ARG)
                responses.append(pb_utils.InferenceResponse(error=error))
                continue
            time.sleep(float(array.flat[0]) / 1000 if array.size < 3 else 0)
            responses.append(answer(np.full_like(array, self.runs)))
        return responses
"""
"""Answers every element with the number of its execution; the first element is how many milliseconds it takes."""

ENSEMBLE = """
platform: "ensemble"
max_batch_size: 8
input [ { name: "IN" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "OUT" data_type: TYPE_FP32 dims: [ -1 ] } ]
ensemble_scheduling { step [
  { model_name: "cached" model_version: -1 input_map { key: "IN" value: "IN" } output_map { key: "OUT" value: "MID" } },
  { model_name: "plain" model_version: -1 input_map { key: "IN" value: "MID" } output_map { key: "OUT" value: "OUT" } }
] }
response_cache { enable: true }
"""


def write_models(repository: Path) -> Path:
    """``cached`` and ``plain``, the same but for the cache, and ``both``, a cached ensemble of them."""
    write_model(repository, "cached", COUNTING, more=CACHED)
    write_model(repository, "plain", COUNTING)
    (repository / "both" / "1").mkdir(parents=True)
    (repository / "both" / "config.pbtxt").write_text(ENSEMBLE)
    return repository


def ask(shoal: ShoalProcess, *values: float, model: str = "cached", **more: object) -> Reply:
    """An infer request with one row over HTTP."""
    return infer(shoal.http, model, tensor("IN", [1, len(values)], list(values)), **more)


def run_of(reply: Reply) -> float:
    """In which execution a request was answered."""
    assert reply.status == 200, reply.body
    return float(reply.json["outputs"][0]["data"][0])


def statistics_of(shoal: ShoalProcess, model: str = "cached") -> dict:
    """A model's statistics over HTTP."""
    (statistics,) = get(shoal.http, f"/v2/models/{model}/stats").json["model_stats"]
    return statistics


def counts(statistics: dict) -> dict[str, int]:
    """The counts of a model's statistics by name."""
    found = {name: each["count"] for name, each in statistics["inference_stats"].items()}
    return found | {"inference": statistics["inference_count"], "execution": statistics["execution_count"]}
