"""Writes models into folders: Python models from source text, ONNX models from graphs."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from shoal.datatypes import DataType

ONNX_TYPES = {
    DataType.BOOL: TensorProto.BOOL,
    DataType.UINT8: TensorProto.UINT8,
    DataType.UINT16: TensorProto.UINT16,
    DataType.UINT32: TensorProto.UINT32,
    DataType.UINT64: TensorProto.UINT64,
    DataType.INT8: TensorProto.INT8,
    DataType.INT16: TensorProto.INT16,
    DataType.INT32: TensorProto.INT32,
    DataType.INT64: TensorProto.INT64,
    DataType.FP16: TensorProto.FLOAT16,
    DataType.FP32: TensorProto.FLOAT,
    DataType.FP64: TensorProto.DOUBLE,
    DataType.BYTES: TensorProto.STRING,
    DataType.BF16: TensorProto.BFLOAT16,
}

Shape = Sequence[int | str | None] | None

ADD_SUB_CONFIG = """
backend: "python"
max_batch_size: 8
input [ { name: "A" data_type: TYPE_INT32 dims: [ 4 ] }, { name: "B" data_type: TYPE_INT32 dims: [ 4 ] } ]
output [ { name: "SUM" data_type: TYPE_INT32 dims: [ 4 ] }, { name: "DIFFERENCE" data_type: TYPE_INT32 dims: [ 4 ] } ]
"""

ADD_SUB_CODE = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            a = pb_utils.get_input_tensor_by_name(request, "A").as_numpy()
            b = pb_utils.get_input_tensor_by_name(request, "B").as_numpy()
            if (a < 0).any():
                raise ValueError("negative")
            outputs = [pb_utils.Tensor("SUM", a + b), pb_utils.Tensor("DIFFERENCE", a - b)]
            responses.append(pb_utils.InferenceResponse(outputs))
        return responses
"""


def python_model(folder: Path, code: str, config: str = ADD_SUB_CONFIG, name: str = "m", **siblings: str) -> Path:
    """Write a Python model; ``siblings`` are further modules beside ``model.py``."""
    version = folder / name / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(textwrap.dedent(code))
    for module, text in siblings.items():
        (version / f"{module}.py").write_text(textwrap.dedent(text))
    (version.parent / "config.pbtxt").write_text(config)
    return version.parent


def tensor(name: str, datatype: DataType, shape: Shape) -> onnx.ValueInfoProto:
    """An input or output of a graph."""
    return helper.make_tensor_value_info(name, ONNX_TYPES[datatype], shape)


def onnx_model(
    folder: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    config: str = "",
    *,
    name: str = "m",
    initializers: Sequence[onnx.TensorProto] = (),
    ir_version: int = 8,
) -> Path:
    """Write an ONNX model; without ``config`` there is no configuration file."""
    version = folder / name / "1"
    version.mkdir(parents=True)
    graph = helper.make_graph(nodes, "graph", inputs, outputs, list(initializers))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = ir_version
    onnx.save(model, version / "model.onnx")
    if config:
        (version.parent / "config.pbtxt").write_text(config)
    return version.parent


def relu_model(folder: Path, config: str = "", shape: Shape = ("n", 4), output_shape: Shape = ("n", 4)) -> Path:
    """y = max(x, 0) of FP32."""
    node = helper.make_node("Relu", ["x"], ["y"])
    x, y = tensor("x", DataType.FP32, shape), tensor("y", DataType.FP32, output_shape)
    return onnx_model(folder, [node], [x], [y], config)


def identity_model(folder: Path, datatype: DataType, shape: Shape = ("n", "k"), config: str = "") -> Path:
    """y = x of any type."""
    node = helper.make_node("Identity", ["x"], ["y"])
    return onnx_model(
        folder,
        [node],
        [tensor("x", datatype, shape)],
        [tensor("y", datatype, shape)],
        config,
        name=f"identity_{datatype}",
    )
