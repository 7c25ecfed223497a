"""One server for the tests of this folder, with a model for every kind of tensor and behaviour."""

from __future__ import annotations

import pytest

from tests.execution.models import write_model
from tests.serving import ShoalProcess

TYPES = """
backend: "python"
max_batch_size: 4
input [
  { name: "NUMBERS" data_type: TYPE_FP32 dims: [ -1 ] },
  { name: "WORDS" data_type: TYPE_STRING dims: [ 2 ] optional: true },
  { name: "FLAGS" data_type: TYPE_BOOL dims: [ 1 ] optional: true }
]
output [
  { name: "NUMBERS_OUT" data_type: TYPE_FP32 dims: [ -1 ] label_filename: "labels.txt" },
  { name: "WORDS_OUT" data_type: TYPE_STRING dims: [ 2 ] },
  { name: "FLAGS_OUT" data_type: TYPE_BOOL dims: [ 1 ] }
]
dynamic_batching { }
"""
TYPES_CODE = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            outputs = []
            for name in ("NUMBERS", "WORDS", "FLAGS"):
                tensor = pb_utils.get_input_tensor_by_name(request, name)
                if tensor is not None:
                    outputs.append(pb_utils.Tensor(name + "_OUT", tensor.as_numpy()))
            responses.append(pb_utils.InferenceResponse(outputs))
        return responses
"""
SLOW = """
class TritonPythonModel:
    def execute(self, requests):
        time.sleep(float(value(requests[0])[0, 0]))
        return [answer(value(request)) for request in requests]
"""
REFUSING = """
class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            if value(request)[0, 0] < 0:
                error = pb_utils.TritonError("negative numbers are refused", pb_utils.TritonError.INVALID_ARG)
                responses.append(pb_utils.InferenceResponse(error=error))
            elif value(request)[0, 0] == 99:
                raise RuntimeError("ninety-nine")
            else:
                responses.append(answer(value(request)))
        return responses
"""
PARAMETERS = """
import json
class TritonPythonModel:
    def execute(self, requests):
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor("OUT", value(request))],
                parameters={"seen": request.parameters(), "id": request.request_id()},
            )
            for request in requests
        ]
"""


@pytest.fixture(scope="session")
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_model(folder, "double")
    write_model(folder, "slow", SLOW, max_batch_size=1)
    write_model(folder, "refusing", REFUSING)
    write_model(folder, "parameters", PARAMETERS)
    write_model(folder, "unbatched", max_batch_size=0, more="")
    types = folder / "types"
    (types / "1").mkdir(parents=True)
    (types / "config.pbtxt").write_text(TYPES)
    (types / "labels.txt").write_text("zero\none\ntwo\n")
    (types / "1" / "model.py").write_text(TYPES_CODE)
    return folder


@pytest.fixture(scope="session")
def shoal(repository):
    with ShoalProcess(repository) as process:
        yield process
