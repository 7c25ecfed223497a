"""Models whose requests differ in length: ONNX models made with onnx's helper, and a Python model."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from shoal.datatypes import DataType

ONNX_TYPES = {
    DataType.FP32: TensorProto.FLOAT,
    DataType.FP64: TensorProto.DOUBLE,
    DataType.FP16: TensorProto.FLOAT16,
    DataType.INT32: TensorProto.INT32,
    DataType.INT64: TensorProto.INT64,
    DataType.BOOL: TensorProto.BOOL,
}

KINDS = (
    "BATCH_ELEMENT_COUNT",
    "BATCH_ACCUMULATED_ELEMENT_COUNT",
    "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO",
    "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE",
    "BATCH_ITEM_SHAPE",
    "BATCH_ITEM_SHAPE_FLATTEN",
)


def save(folder: Path, config: str, graph: onnx.GraphProto) -> Path:
    """Write an ONNX model and its configuration; gives the model's folder."""
    (folder / "1").mkdir(parents=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    (folder / "1" / "model.onnx").write_bytes(model.SerializeToString())
    (folder / "config.pbtxt").write_text(config)
    return folder


def value(name: str, datatype: DataType, *dims: object):
    return helper.make_tensor_value_info(name, ONNX_TYPES[datatype], list(dims))


def padding_text(policy: dict) -> str:
    """The parameter ``padding`` in a ``config.pbtxt``."""
    return f"parameters {{ key: \"padding\" value {{ string_value: '{json.dumps(policy)}' }} }}"


PATIENT = "dynamic_batching { max_queue_delay_microseconds: 200000 }"

ENCODER = {"X": {"value": 7, "mask": "MASK", "length": "LENGTHS", "outputs": ["TWICE", "SHARE"]}}


def write_encoder(
    repository: Path,
    name: str = "encoder",
    *,
    policy: dict | None = None,
    mask: DataType = DataType.FP32,
    more: str = PATIENT,
) -> Path:
    """An ONNX model that heeds its mask: X [N, L] -> TWICE [N, L], SHARE [N, L] of the sum, SUM [N, 1], LENGTH [N, 1].

    SIZE [N, 1] tells what the model saw: rows times padded length of the whole batch.
    """
    config = f"""
backend: "onnxruntime"
max_batch_size: 8
input [
  {{ name: "X" data_type: TYPE_FP32 dims: [ -1 ] }},
  {{ name: "MASK" data_type: {mask.config} dims: [ -1 ] }},
  {{ name: "LENGTHS" data_type: TYPE_INT64 dims: [ 1 ] }}
]
output [
  {{ name: "TWICE" data_type: TYPE_FP32 dims: [ -1 ] }},
  {{ name: "SHARE" data_type: TYPE_FP32 dims: [ -1 ] }},
  {{ name: "SUM" data_type: TYPE_FP32 dims: [ 1 ] }},
  {{ name: "LENGTH" data_type: TYPE_INT64 dims: [ 1 ] }},
  {{ name: "SIZE" data_type: TYPE_INT64 dims: [ 1 ] }}
]
{padding_text(policy or ENCODER)}
{more}
"""
    nodes = [
        helper.make_node("Add", ["X", "X"], ["TWICE"]),
        helper.make_node("Cast", ["MASK"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["X", "real"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "last"], ["SUM"], keepdims=1),
        helper.make_node("Div", ["X", "SUM"], ["SHARE"]),
        helper.make_node("Identity", ["LENGTHS"], ["LENGTH"]),
        helper.make_node("Size", ["X"], ["size"]),
        helper.make_node("Mul", ["LENGTHS", "zero"], ["zeros"]),
        helper.make_node("Add", ["zeros", "size"], ["SIZE"]),
    ]
    initializers = [
        helper.make_tensor("last", TensorProto.INT64, [1], [-1]),
        helper.make_tensor("zero", TensorProto.INT64, [1], [0]),
    ]
    inputs = [
        value("X", DataType.FP32, "n", "l"),
        value("MASK", mask, "n", "l"),
        value("LENGTHS", DataType.INT64, "n", 1),
    ]
    outputs = [
        value("TWICE", DataType.FP32, "n", "l"),
        value("SHARE", DataType.FP32, "n", "l"),
        value("SUM", DataType.FP32, "n", 1),
        value("LENGTH", DataType.INT64, "n", 1),
        value("SIZE", DataType.INT64, "n", 1),
    ]
    return save(repository / name, config, helper.make_graph(nodes, name, inputs, outputs, initializers))


def write_ragged(repository: Path, kind: str, datatype: DataType, *, more: str = PATIENT) -> Path:
    """An ONNX model with a ragged input X; every response has all that the model saw of X and of its batch input."""
    rank = 2 if kind == "BATCH_ITEM_SHAPE" else 1
    made = ["m", "k"][:rank]
    config = f"""
backend: "onnxruntime"
max_batch_size: 8
input [
  {{ name: "X" data_type: TYPE_FP32 dims: [ -1 ] allow_ragged_batch: true }},
  {{ name: "ROW" data_type: TYPE_FP32 dims: [ 1 ] }}
]
output [
  {{ name: "SEEN" data_type: TYPE_FP32 dims: [ -1 ] }},
  {{ name: "MADE" data_type: TYPE_FP32 dims: [ -1 ] }},
  {{ name: "SHAPE" data_type: TYPE_INT64 dims: [ {rank} ] }},
  {{ name: "TWICE" data_type: TYPE_FP32 dims: [ -1 ] }}
]
batch_input [ {{ kind: {kind} target_name: "B" data_type: {datatype.config} source_input: "X" }} ]
batch_output [ {{ kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: "TWICE" source_input: "X" }} ]
{more}
"""
    nodes = [
        helper.make_node("Mul", ["ROW", "zero"], ["zeros"]),
        helper.make_node("Reshape", ["X", "line"], ["x_line"]),
        helper.make_node("Add", ["zeros", "x_line"], ["SEEN"]),
        helper.make_node("Cast", ["B"], ["b"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["b", "line"], ["b_line"]),
        helper.make_node("Add", ["zeros", "b_line"], ["MADE"]),
        helper.make_node("Shape", ["B"], ["b_shape"]),
        helper.make_node("Cast", ["zeros"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Add", ["whole", "b_shape"], ["SHAPE"]),
        helper.make_node("Add", ["X", "X"], ["TWICE"]),
    ]
    initializers = [
        helper.make_tensor("line", TensorProto.INT64, [2], [1, -1]),
        helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0]),
    ]
    inputs = [value("X", DataType.FP32, "t"), value("ROW", DataType.FP32, "n", 1), value("B", datatype, *made)]
    outputs = [
        value("SEEN", DataType.FP32, "n", None),
        value("MADE", DataType.FP32, "n", None),
        value("SHAPE", DataType.INT64, "n", rank),
        value("TWICE", DataType.FP32, "t"),
    ]
    name = f"ragged_{kind.lower()}_{datatype.wire}"
    return save(repository / name, config, helper.make_graph(nodes, name, inputs, outputs, initializers))


def write_python(repository: Path, name: str, code: str, more: str = "", *, ragged: bool = False) -> Path:
    """A Python model with the input X [N, L], and the outputs TWICE [N, L] and SEEN [N, 1]; X may be ragged."""
    mask = ', { name: "MASK" data_type: TYPE_BOOL dims: [ -1 ] }' if "MASK" in more else ""
    flag = "allow_ragged_batch: true" if ragged else ""
    made = 'batch_input [ { kind: BATCH_ELEMENT_COUNT target_name: "B" data_type: TYPE_FP32 source_input: "X" } ]'
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "1" / "model.py").write_text(code)
    (repository / name / "config.pbtxt").write_text(
        f"""
backend: "python"
max_batch_size: 8
input [ {{ name: "X" data_type: TYPE_FP32 dims: [ -1 ] {flag} }}{mask} ]
output [
  {{ name: "TWICE" data_type: TYPE_FP32 dims: [ -1 ] }},
  {{ name: "SEEN" data_type: TYPE_STRING dims: [ 1 ] }}
]
{made if ragged else more}
instance_group [ {{ kind: KIND_CPU }} ]
dynamic_batching {{ max_queue_delay_microseconds: 200000 }}
"""
    )
    return repository / name
