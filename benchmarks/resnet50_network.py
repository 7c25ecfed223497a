"""A network of ResNet-50's shape with random weights: the same work as the real one, and no download."""

from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, save

SEED = 50
STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
"""Width, blocks and first stride of each stage."""
EXPANSION = 4
CLASSES = 1000
RESIDUAL_SCALE = 0.2
"""How much a block adds to its input: small enough for fifty random layers to stay finite."""


class Network:
    """Collects the nodes and weights of the graph; each method adds a layer and returns its output's name."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        self._random = np.random.default_rng(SEED)

    def node(self, kind: str, inputs: list[str], **attributes: object) -> str:
        """Add a node with one output."""
        output = f"{kind}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def weight(self, shape: tuple[int, ...], deviation: float) -> str:
        """Add a normally distributed weight."""
        name = f"weight{len(self.weights)}"
        values = self._random.standard_normal(shape, dtype=np.float32) * np.float32(deviation)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def convolution(self, source: str, channels: tuple[int, int], kernel: int, stride: int, scale: float = 1.0) -> str:
        """Add a convolution with its batch normalization folded in, from some channels to others."""
        fan_in = channels[0] * kernel * kernel
        weights = self.weight((channels[1], channels[0], kernel, kernel), scale * (2 / fan_in) ** 0.5)
        bias = self.weight((channels[1],), 0.01)
        return self.node("Conv", [source, weights, bias], strides=[stride] * 2, pads=[kernel // 2] * 4)

    def bottleneck(self, source: str, channels: tuple[int, int], width: int, stride: int) -> str:
        """Add a 1x1, 3x3, 1x1 block beside a shortcut."""
        inner = self.node("Relu", [self.convolution(source, (channels[0], width), 1, 1)])
        inner = self.node("Relu", [self.convolution(inner, (width, width), 3, stride)])
        inner = self.convolution(inner, (width, channels[1]), 1, 1, RESIDUAL_SCALE)
        same = channels[0] == channels[1] and stride == 1
        shortcut = source if same else self.convolution(source, channels, 1, stride)
        return self.node("Relu", [self.node("Add", [inner, shortcut])])


def build() -> ModelProto:
    """The whole network: ``image`` FP32 [batch, 3, 224, 224] to ``scores`` FP32 [batch, 1000]."""
    network = Network()
    layer = network.node("Relu", [network.convolution("image", (3, 64), 7, 2)])
    layer = network.node("MaxPool", [layer], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    channels = 64
    for width, blocks, first_stride in STAGES:
        for block in range(blocks):
            stride = 1 if block else first_stride
            layer = network.bottleneck(layer, (channels, width * EXPANSION), width, stride)
            channels = width * EXPANSION
    layer = network.node("Flatten", [network.node("GlobalAveragePool", [layer])])
    dense = [layer, network.weight((channels, CLASSES), channels**-0.5), network.weight((CLASSES,), 0.01)]
    network.nodes.append(helper.make_node("Gemm", dense, ["scores"]))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 224, 224])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", CLASSES])
    graph = helper.make_graph(network.nodes, "resnet50", [image], [scores], network.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write(path: Path) -> None:
    """Build the network and write it to a file, about 100 MB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save(build(), path)
