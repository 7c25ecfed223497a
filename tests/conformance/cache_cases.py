"""Requests to cached models, one after the other: what is answered, and what is counted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

CODE = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.runs = 0

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        self.runs += 1
        array = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
        if array.flat[0] < 0:
            error = pb_utils.TritonError("negative numbers are refused", pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse([], error)
        outputs = [
            pb_utils.Tensor("OUT", array * 2),
            pb_utils.Tensor("RUN", np.full((len(array), 1), self.runs, np.int32)),
        ]
        wanted = request.requested_output_names()
        return pb_utils.InferenceResponse([tensor for tensor in outputs if tensor.name() in wanted])
"""

TENSORS = """
max_batch_size: 8
input [ { name: "IN" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "OUT" data_type: TYPE_FP32 dims: [ -1 ] }, { name: "RUN" data_type: TYPE_INT32 dims: [ 1 ] } ]
"""
MODEL = 'backend: "python" instance_group [ { kind: KIND_CPU count: 1 } ]' + TENSORS
CACHED = "response_cache { enable: true }\n"
BATCHER = "dynamic_batching { }\n"
ENSEMBLE = (
    'platform: "ensemble"'
    + TENSORS
    + """ensemble_scheduling { step [ {
  model_name: "%s" model_version: -1 input_map { key: "IN" value: "IN" }
  output_map { key: "OUT" value: "OUT" } output_map { key: "RUN" value: "RUN" }
} ] }
"""
)


@dataclass(frozen=True)
class CacheCase:
    """Requests to one model.

    Attributes:
        name: of the case.
        requests: the bodies of the requests, in their order.
        config: the model's configuration.
        member: the configuration of the model that an ensemble is made of; "" for a model of its own.
    """

    name: str
    requests: tuple[dict[str, Any], ...]
    config: str = MODEL + CACHED
    member: str = ""

    @property
    def model(self) -> str:
        """The model's name."""
        return f"m{CASES.index(self)}"


def request(*rows: tuple[float, ...], **more: Any) -> dict[str, Any]:
    """The body of a request with these rows."""
    data = [value for row in rows for value in row]
    return {"inputs": [{"name": "IN", "shape": [len(rows), len(rows[0])], "datatype": "FP32", "data": data}], **more}


ONE, TWO, BATCH, BAD = request((1, 2)), request((3, 4)), request((1, 2), (3, 4), (5, 6)), request((-1, 2))
TURNED = request((1,), (2,))

CASES = (
    CacheCase("the same three times", (ONE, ONE, ONE)),
    CacheCase("the same three times, dynamic batcher", (ONE, ONE, ONE), MODEL + BATCHER + CACHED),
    CacheCase("two in turn", (ONE, TWO, ONE, TWO, ONE)),
    CacheCase("rows count once", (BATCH, BATCH, ONE)),
    CacheCase(
        "ids and priorities are no part of the key", (ONE, ONE | {"id": "x"}, ONE | {"parameters": {"timeout": 9}})
    ),
    CacheCase("without the cache", (ONE, ONE), MODEL),
    CacheCase("an ensemble", (ONE, ONE, TWO, ONE), ENSEMBLE + CACHED, MODEL),
    CacheCase("an ensemble of a cached model", (ONE, ONE, TWO), ENSEMBLE, MODEL + CACHED),
    CacheCase("both cached", (ONE, ONE, TWO), ENSEMBLE + CACHED, MODEL + CACHED),
    CacheCase("errors", (BAD, BAD)),
    CacheCase("the same bytes in another shape", (ONE, TURNED)),
    CacheCase("other outputs", (ONE, ONE | {"outputs": [{"name": "OUT"}]})),
    CacheCase("other parameters", (ONE, ONE | {"parameters": {"temperature": 1}})),
)

ANSWERED_WRONGLY = {
    "errors": "the second is answered with no outputs and no error",
    "the same bytes in another shape": "the second is answered with the first one's shape",
    "other outputs": "the second is answered with an output that it did not ask for",
    "other parameters": "the second is answered as if the model had not been told of them",
}
"""Cases in which Triton gives an answer that belongs to another request, so that Shoal does something else."""


def write_repository(folder: Path) -> Path:
    """Write the models of all cases."""
    repository = folder / "models"
    for case in CASES:
        if case.member:
            write_model(repository / f"{case.model}_member", case.member)
        config = case.config % f"{case.model}_member" if case.member else case.config
        write_model(repository / case.model, config)
    return repository


def write_model(folder: Path, config: str) -> None:
    """Write one model."""
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(config)
    if "ensemble" not in config:
        (folder / "1" / "model.py").write_text(CODE)
