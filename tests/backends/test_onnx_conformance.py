"""The ONNX Runtime backend keeps the contract of backends."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from shoal.backends import registry
from shoal.backends.onnx_instance import BIND_NBYTES
from shoal.datatypes import DataType
from shoal.testing.backend_conformance import Cases, check_backend, check_datatypes
from tests.backends.model_folders import identity_model, onnx_model, relu_model, tensor
from tests.execution.sequence_models import CONTROLLED_CONFIG, controlled

BACKEND = registry.get("onnxruntime")


def ints(rows: int, first: int) -> np.ndarray:
    return np.arange(first, first + 4 * rows, dtype=np.int32).reshape(rows, 4)


def test_batched_model_with_two_inputs_and_outputs(tmp_path: Path) -> None:
    model_dir = onnx_model(
        tmp_path,
        [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])],
        [tensor("a", DataType.INT32, ["n", 4]), tensor("b", DataType.INT32, ["n", 4])],
        [tensor("sum", DataType.INT32, ["n", 4]), tensor("difference", DataType.INT32, ["n", 4])],
    )
    requests = [{"a": ints(rows, rows), "b": ints(rows, 7)} for rows in (1, 3, 2)]
    expected = [{"sum": r["a"] + r["b"], "difference": r["a"] - r["b"]} for r in requests]
    check_backend(BACKEND, model_dir, Cases(requests, expected))


def test_failing_run(tmp_path: Path) -> None:
    """An index out of bounds fails its batch and leaves the instance usable."""
    table = helper.make_tensor("table", TensorProto.FLOAT, [3], [10.0, 20.0, 30.0])
    model_dir = onnx_model(
        tmp_path,
        [helper.make_node("Gather", ["table", "index"], ["value"])],
        [tensor("index", DataType.INT64, ["n", 2])],
        [tensor("value", DataType.FP32, ["n", 2])],
        initializers=[table],
    )
    requests = [{"index": np.array([[0, 2]])}, {"index": np.array([[1, 1], [2, 0]])}]
    expected = [{"value": np.array([[10, 30]], np.float32)}, {"value": np.array([[20, 20], [30, 10]], np.float32)}]
    check_backend(BACKEND, model_dir, Cases(requests, expected, failing={"index": np.array([[0, 99]])}))


def test_model_with_controls_and_a_state(tmp_path: Path) -> None:
    model_dir = controlled(tmp_path, CONTROLLED_CONFIG)
    requests, expected = [], []
    for rows in (1, 3, 2):
        number, state = np.full((rows, 1), rows, np.float32), np.arange(rows, dtype=np.float32)[:, None]
        start, who = (state == 0).astype(np.float32), np.arange(rows, dtype=np.uint64)[:, None]
        requests.append({"IN": number, "S": state, "START": start, "CORRID": who})
        total = np.where(start == 1, number, number + state)
        expected.append({"OUT": total, "S_OUT": total, "WHO": who})
    check_backend(BACKEND, model_dir, Cases(requests, expected))


def test_outputs_large_enough_to_be_bound(tmp_path: Path) -> None:
    """Outputs above the limit are written straight into the room."""
    width = BIND_NBYTES // 4
    model_dir = relu_model(tmp_path, shape=("n", width), output_shape=("n", width))
    generator = np.random.default_rng(0)
    requests = [{"x": generator.standard_normal((rows, width)).astype(np.float32)} for rows in (1, 2)]
    check_backend(BACKEND, model_dir, Cases(requests, [{"y": np.maximum(r["x"], 0)} for r in requests]))


def test_model_without_batching(tmp_path: Path) -> None:
    model_dir = relu_model(tmp_path, shape=(2, 3), output_shape=(2, 3))
    x = np.array([[-1, 0, 1], [2, -3, 4]], np.float32)
    check_backend(BACKEND, model_dir, Cases([{"x": x}], [{"y": np.maximum(x, 0)}]))


def test_text_that_is_not_utf8_fails_alone(tmp_path: Path) -> None:
    model_dir = identity_model(tmp_path, DataType.BYTES)
    good = np.array([[b"a", "é".encode()]], dtype=object)
    bad = np.array([[b"a", b"\xff"]], dtype=object)
    check_backend(BACKEND, model_dir, Cases([{"x": good}, {"x": good}], [{"y": good}] * 2, failing={"x": bad}))


@pytest.mark.parametrize("datatype", DataType)
def test_every_datatype(tmp_path: Path, datatype: DataType) -> None:
    check_datatypes(BACKEND, lambda datatype: identity_model(tmp_path, datatype), [datatype])
