"""A small transformer encoder with random weights: tokens of any number and their mask in, a vector per token out."""

from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, save

SEED = 17
VOCABULARY = 2000
WIDTH = 96
LAYERS = 2
OUTPUTS = 8
FORBIDDEN = -1e4
"""Added to the attention that falls on padding."""


class Network:
    """Collects the nodes and weights of the graph; each method adds a layer and returns its output's name."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        self._random = np.random.default_rng(SEED)

    def node(self, kind: str, *inputs: str, output: str = "", **attributes: object) -> str:
        """Add a node with one output."""
        output = output or f"{kind}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, values: object, kind: type = np.float32) -> str:
        """Add fixed values."""
        name = f"constant{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.array(values, kind), name))
        return name

    def linear(self, source: str, inputs: int, outputs: int, output: str = "") -> str:
        """Add a matrix product with random weights."""
        values = self._random.standard_normal((inputs, outputs), dtype=np.float32) / np.sqrt(inputs)
        return self.node("MatMul", source, self.constant(values), output=output)

    def normalized_sum(self, first: str, second: str) -> str:
        """Add a residual connection and its layer normalization."""
        total = self.node("Add", first, second)
        return self.node("LayerNormalization", total, self.constant(np.ones(WIDTH)), self.constant(np.zeros(WIDTH)))

    def attention(self, source: str, forbidden: str) -> str:
        """Add attention of every token to the real ones."""
        query, key, value = (self.linear(source, WIDTH, WIDTH) for _ in range(3))
        scores = self.node("MatMul", query, self.node("Transpose", key, perm=[0, 2, 1]))
        scaled = self.node("Mul", scores, self.constant(WIDTH**-0.5))
        weights = self.node("Softmax", self.node("Add", scaled, forbidden), axis=-1)
        return self.linear(self.node("MatMul", weights, value), WIDTH, WIDTH)


def build() -> ModelProto:
    """The network: ``IDS`` INT64 [batch, length] and ``MASK`` FP32 [batch, length] to ``STATES`` [batch, length, 8]."""
    network = Network()
    table = network.constant(np.random.default_rng(SEED).standard_normal((VOCABULARY, WIDTH)))
    layer = network.node("Gather", table, "IDS")
    absent = network.node("Sub", network.constant(1.0), "MASK")
    forbidden = network.node("Mul", absent, network.constant(FORBIDDEN))
    forbidden = network.node("Unsqueeze", forbidden, network.constant([1], np.int64))
    for _ in range(LAYERS):
        layer = network.normalized_sum(layer, network.attention(layer, forbidden))
        inner = network.node("Relu", network.linear(layer, WIDTH, 4 * WIDTH))
        layer = network.normalized_sum(layer, network.linear(inner, 4 * WIDTH, WIDTH))
    network.linear(layer, WIDTH, OUTPUTS, output="STATES")
    shape = ["batch", "length"]
    graph = helper.make_graph(
        network.nodes,
        "encoder",
        [
            helper.make_tensor_value_info("IDS", TensorProto.INT64, shape),
            helper.make_tensor_value_info("MASK", TensorProto.FLOAT, shape),
        ],
        [helper.make_tensor_value_info("STATES", TensorProto.FLOAT, [*shape, OUTPUTS])],
        network.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write(path: Path) -> None:
    """Write the network to a file."""
    save(build(), path)
