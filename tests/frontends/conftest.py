"""One server for the tests of this folder, with a model for every kind of tensor and behaviour."""

from __future__ import annotations

import pytest

from tests.execution.models import HEAD, write_model
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
ECHO_AS_IT_IS = """
class TritonPythonModel:
    def execute(self, requests):
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
EVERY_TYPE = "BOOL UINT8 UINT16 UINT32 UINT64 INT8 INT16 INT32 INT64 FP16 FP32 FP64 STRING BF16".split()  # noqa: SIM905
EVERY = "\n".join(
    [
        'backend: "python"',
        "max_batch_size: 4",
        *(f'input {{ name: "{name}" data_type: TYPE_{name} dims: -1 optional: true }}' for name in EVERY_TYPE),
        *(f'output {{ name: "{name}_OUT" data_type: TYPE_{name} dims: -1 }}' for name in EVERY_TYPE),
        "dynamic_batching { }",
    ]
)
EVERY_CODE = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse([self.copy(one) for one in request.inputs()]) for request in requests]

    def copy(self, tensor):
        name = tensor.name() + "_OUT"
        if tensor.name() == "BF16":
            return pb_utils.Tensor.from_dlpack(name, tensor)
        return pb_utils.Tensor(name, tensor.as_numpy())
"""
PAIR = """
backend: "python"
max_batch_size: 4
input [ { name: "A" data_type: TYPE_INT32 dims: 2 }, { name: "B" data_type: TYPE_INT32 dims: 2 } ]
output [ { name: "SUM" data_type: TYPE_INT32 dims: 2 }, { name: "DIFFERENCE" data_type: TYPE_INT32 dims: 2 } ]
dynamic_batching { }
"""
PAIR_CODE = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(*(tensor.as_numpy() for tensor in request.inputs())) for request in requests]

    def answer(self, a, b):
        return pb_utils.InferenceResponse([pb_utils.Tensor("SUM", a + b), pb_utils.Tensor("DIFFERENCE", a - b)])
"""
WORD = """
backend: "python"
input { name: "IN" data_type: TYPE_STRING dims: 1 }
output { name: "OUT" data_type: TYPE_STRING dims: 1 }
"""
RESHAPED = """
backend: "python"
max_batch_size: 4
input { name: "IN" data_type: TYPE_FP32 dims: [ 2, -1 ] reshape { shape: [ 1, 2, -1 ] } }
output { name: "OUT" data_type: TYPE_FP32 dims: [ 2, -1 ] reshape { shape: [ 1, 2, -1 ] } }
output { name: "SHAPE" data_type: TYPE_INT64 dims: 4 }
"""
RESHAPED_CODE = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request.inputs()[0].as_numpy()) for request in requests]

    def answer(self, array):
        shapes = np.array([array.shape] * len(array), np.int64)
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", array), pb_utils.Tensor("SHAPE", shapes)])
"""


def write_files(repository, name, config, code, **files):
    """Write a model's folder from its files' texts."""
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(config)
    (repository / name / "1" / "model.py").write_text(code)
    for file, text in files.items():
        (repository / name / file.replace("_", ".")).write_text(text)


@pytest.fixture(scope="session")
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_model(folder, "double")
    write_model(folder, "slow", SLOW, max_batch_size=1)
    write_model(folder, "refusing", REFUSING)
    write_model(folder, "parameters", PARAMETERS)
    write_model(folder, "unbatched", max_batch_size=0, more="")
    write_model(folder, "matrix", dims="-1, 2")
    write_files(folder, "types", TYPES, TYPES_CODE, labels_txt="zero\none\ntwo\n")
    write_files(folder, "every", EVERY, EVERY_CODE)
    write_files(folder, "pair", PAIR, PAIR_CODE)
    write_files(folder, "word", WORD, HEAD + ECHO_AS_IT_IS)
    write_files(folder, "reshaped", RESHAPED, RESHAPED_CODE)
    return folder


@pytest.fixture(scope="session")
def shoal(repository):
    with ShoalProcess(repository) as process:
        yield process
