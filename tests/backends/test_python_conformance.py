"""The Python backend keeps the contract of backends."""

from pathlib import Path

import numpy as np
import pytest

from shoal.backends import registry
from shoal.datatypes import DataType
from shoal.testing.backend_conformance import Cases, check_backend, check_datatypes
from tests.backends.model_folders import ADD_SUB_CODE, python_model

BACKEND = registry.get("python")

IDENTITY = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        def answer(request):
            x = request.inputs()[0]
            y = pb_utils.Tensor.from_dlpack("y", x) if DLPACK else pb_utils.Tensor("y", x.as_numpy())
            return pb_utils.InferenceResponse([y])
        return [answer(request) for request in requests]
"""


def ints(rows: int, first: int) -> np.ndarray:
    return np.arange(first, first + 4 * rows, dtype=np.int32).reshape(rows, 4)


STATEFUL_CONFIG = """
backend: "python"
max_batch_size: 8
input [ { name: "IN" data_type: TYPE_INT32 dims: [ 4 ] } ]
output [ { name: "OUT" data_type: TYPE_INT32 dims: [ 4 ] } ]
sequence_batching {
  oldest { }
  state [ { input_name: "S" output_name: "S_OUT" data_type: TYPE_INT32 dims: [ 4 ] } ]
}
"""
STATEFUL = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.add(request) for request in requests]

    def add(self, request):
        number, state = (pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in ("IN", "S"))
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, number + state) for name in ("OUT", "S_OUT")])
"""


def test_a_model_with_a_state(tmp_path: Path) -> None:
    model_dir = python_model(tmp_path, STATEFUL, STATEFUL_CONFIG)
    requests = [{"IN": ints(rows, 1), "S": ints(rows, 7)} for rows in (1, 3, 2)]
    totals = [request["IN"] + request["S"] for request in requests]
    check_backend(BACKEND, model_dir, Cases(requests, [{"OUT": total, "S_OUT": total} for total in totals]))


@pytest.mark.parametrize("word", ["def", "async def"])
def test_add_sub(tmp_path: Path, word: str) -> None:
    """Plain and async ``execute`` alike."""
    model_dir = python_model(tmp_path, ADD_SUB_CODE.replace("def execute", f"{word} execute"))
    requests = [{"A": ints(rows, 1), "B": ints(rows, 7)} for rows in (1, 3, 2)]
    expected = [{"SUM": r["A"] + r["B"], "DIFFERENCE": r["A"] - r["B"]} for r in requests]
    check_backend(BACKEND, model_dir, Cases(requests, expected, failing={"A": ints(1, -9), "B": ints(1, 0)}))


def test_model_without_batching(tmp_path: Path) -> None:
    config = """
    backend: "python" max_batch_size: 0
    input { name: "x" data_type: TYPE_FP32 dims: [ -1 ] } output { name: "y" data_type: TYPE_FP32 dims: [ -1 ] }
    """
    model_dir = python_model(tmp_path, IDENTITY.replace("DLPACK", "False"), config)
    requests = [{"x": np.arange(count, dtype=np.float32)} for count in (3, 0, 1)]
    check_backend(BACKEND, model_dir, Cases(requests, [{"y": request["x"]} for request in requests]))


@pytest.mark.parametrize("datatype", DataType)
def test_every_datatype(tmp_path: Path, datatype: DataType) -> None:
    """BF16 through DLPack, for NumPy has no such type."""

    def identity(datatype: DataType) -> Path:
        config = f"""
        backend: "python" max_batch_size: 8
        input {{ name: "x" data_type: {datatype.config} dims: [ -1 ] }}
        output {{ name: "y" data_type: {datatype.config} dims: [ -1 ] }}
        """
        return python_model(tmp_path, IDENTITY.replace("DLPACK", str(datatype is DataType.BF16)), config)

    check_datatypes(BACKEND, identity, [datatype])
