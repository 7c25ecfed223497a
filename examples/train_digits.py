"""Trains the two digit classifiers of examples/models and writes them as ONNX, with the held-out images beside them.

Run ``python examples/train_digits.py`` to make every file again. It needs ``pip install 'shoal[train]'``.
"""

import argparse
from pathlib import Path

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper, save
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

EXAMPLES = Path(__file__).resolve().parent
SEED = 7
OPSET = 17
BRIGHTEST = 16.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=EXAMPLES, help="the folder to write to (default: examples/)")
    output = parser.parse_args().output
    pixels, labels = load_digits(return_X_y=True)
    train, test, train_labels, test_labels = train_test_split(
        pixels, labels, test_size=0.2, random_state=SEED, stratify=labels
    )
    network = MLPClassifier(hidden_layer_sizes=(128, 64), max_iter=300, random_state=SEED)
    linear = LogisticRegression(max_iter=1000, random_state=SEED)
    for name, model in (("digits", network), ("digits_bare", linear)):
        model.fit(train / BRIGHTEST, train_labels)
        print(f"{name}: test accuracy {model.score(test / BRIGHTEST, test_labels):.4f} over {len(test)} images")
    write(output, "digits", list(zip(network.coefs_, network.intercepts_, strict=True)))
    write(output, "digits_bare", [(linear.coef_.T, linear.intercept_)])
    np.savez_compressed(output / "digits_test.npz", pixels=test.astype(np.uint8), labels=test_labels.astype(np.int64))


def write(output: Path, name: str, layers: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Write one classifier below ``output/models``: version 1, and nothing else."""
    path = output / "models" / name / "1" / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    save(classifier(name, layers), path)
    print(f"wrote {path} ({path.stat().st_size:,} bytes)")


def classifier(name: str, layers: list[tuple[np.ndarray, np.ndarray]]):
    """Build the graph: scaled pixels, a Gemm per layer with Relu between them, then probabilities and the label.

    The first dimension of every tensor is the symbolic ``batch``, so that the server may put many images into one run.
    """
    nodes = [helper.make_node("Mul", ["pixels", "scale"], ["layer0"])]
    weights = [numpy_helper.from_array(np.float32(1 / BRIGHTEST), "scale")]
    for number, (weight, bias) in enumerate(layers):
        if number:
            nodes.append(helper.make_node("Relu", [f"sum{number}"], [f"layer{number}"]))
        nodes.append(helper.make_node("Gemm", [f"layer{number}", f"w{number}", f"b{number}"], [f"sum{number + 1}"]))
        weights.append(numpy_helper.from_array(weight.astype(np.float32), f"w{number}"))
        weights.append(numpy_helper.from_array(bias.astype(np.float32), f"b{number}"))
    nodes.append(helper.make_node("Softmax", [f"sum{len(layers)}"], ["probabilities"], axis=1))
    nodes.append(helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=1))
    inputs = [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 64])]
    outputs = [
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10]),
        helper.make_tensor_value_info("label", TensorProto.INT64, ["batch", 1]),
    ]
    graph = helper.make_graph(nodes, name, inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    checker.check_model(model, full_check=True)
    return model


if __name__ == "__main__":
    main()
