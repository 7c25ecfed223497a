"""Completing a configuration from an ONNX model (1.2), and telling where the two disagree."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from shoal.backends import registry
from shoal.config.render import config_to_dict
from shoal.config.spec import InstanceKind
from shoal.datatypes import DataType
from shoal.errors import ConfigError, InvalidArgumentError, NotFoundError, ShoalError, UnsupportedError
from shoal.testing.backend_harness import load
from tests.backends.model_folders import identity_model, onnx_model, relu_model, tensor

BACKEND = registry.get("onnxruntime")


def completed(model_dir: Path, backend: Any = BACKEND) -> dict[str, Any]:
    return config_to_dict(load(backend, model_dir).config)


def tensors(config: dict[str, Any], kind: str) -> list[tuple[str, str, list[int]]]:
    return [(each["name"], each["data_type"], each["dims"]) for each in config[kind]]


def test_model_with_a_variable_first_dimension_gets_batches(tmp_path: Path) -> None:
    config = completed(relu_model(tmp_path, shape=("n", "t", 3), output_shape=("n", "t", 3)))
    assert tensors(config, "input") == [("x", "TYPE_FP32", [-1, 3])]
    assert tensors(config, "output") == [("y", "TYPE_FP32", [-1, 3])]
    assert config["max_batch_size"] == 4
    assert "dynamic_batching" in config


def test_default_max_batch_size_is_a_setting_of_the_backend(tmp_path: Path) -> None:
    """With 1 there is no dynamic batching; with 0 no batching, and dims have the first dimension."""
    model_dir = relu_model(tmp_path)
    one = completed(model_dir, registry.get("onnxruntime", {"default-max-batch-size": "1"}))
    assert (one["max_batch_size"], "dynamic_batching" in one) == (1, False)
    none = completed(model_dir, registry.get("onnxruntime", {"default-max-batch-size": "0"}))
    assert (none["max_batch_size"], tensors(none, "input")) == (0, [("x", "TYPE_FP32", [-1, 4])])


@pytest.mark.parametrize("output", [(2, 4), (1, 4)])
def test_one_fixed_first_dimension_and_there_are_no_batches(tmp_path: Path, output: tuple[int, ...]) -> None:
    config = completed(relu_model(tmp_path, output_shape=output, shape=(None, 4)))
    assert config["max_batch_size"] == 0
    assert "dynamic_batching" not in config
    assert tensors(config, "input") == [("x", "TYPE_FP32", [-1, 4])]
    assert tensors(config, "output") == [("y", "TYPE_FP32", list(output))]


def test_own_max_batch_size_and_scheduler_are_kept(tmp_path: Path) -> None:
    config = completed(relu_model(tmp_path, "max_batch_size: 16 dynamic_batching { preferred_batch_size: [ 8 ] }"))
    assert config["max_batch_size"] == 16
    assert config["dynamic_batching"]["preferred_batch_size"] == [8]


def test_batch_of_scalars_is_one_element_for_clients(tmp_path: Path) -> None:
    config = completed(relu_model(tmp_path, shape=("n",), output_shape=("n",)))
    assert tensors(config, "input") == [("x", "TYPE_FP32", [1])]
    assert config["input"][0]["reshape"] == {"shape": []}


@pytest.mark.parametrize("datatype", DataType)
def test_datatypes(tmp_path: Path, datatype: DataType) -> None:
    config = completed(identity_model(tmp_path, datatype))
    assert tensors(config, "input") == [("x", datatype.config, [-1])]


def test_a_tensor_without_type_or_dims_is_completed(tmp_path: Path) -> None:
    config = completed(
        relu_model(tmp_path, 'input { name: "x" dims: [ 4 ] } output { name: "y" data_type: TYPE_FP32 }')
    )
    assert tensors(config, "input") == [("x", "TYPE_FP32", [4])]
    assert tensors(config, "output") == [("y", "TYPE_FP32", [4])]


def test_a_model_whose_configuration_has_all_tensors_is_not_opened(tmp_path: Path) -> None:
    """As in Triton: such a configuration without ``max_batch_size`` means no batching."""
    config = """
    input { name: "x" data_type: TYPE_FP32 dims: [ -1, 4 ] } output { name: "y" data_type: TYPE_FP32 dims: [ -1, 4 ] }
    """
    assert completed(relu_model(tmp_path, config))["max_batch_size"] == 0


def test_outputs_that_are_no_tensors_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Classifiers of scikit-learn have such an output."""
    sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("SequenceConstruct", ["x"], ["s"])]
    outputs = [tensor("y", DataType.FP32, ["n", 4]), sequence]
    model_dir = onnx_model(tmp_path, nodes, [tensor("x", DataType.FP32, ["n", 4])], outputs)
    config = completed(model_dir)
    assert tensors(config, "output") == [("y", "TYPE_FP32", [4])]
    assert config["max_batch_size"] == 4
    assert "output 's' is left out" in caplog.text


def test_initializers_that_inputs_may_override_are_not_needed(tmp_path: Path) -> None:
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4], [1.0, 2.0, 3.0, 4.0])
    inputs = [tensor("x", DataType.FP32, ["n", 4]), tensor("w", DataType.FP32, [4])]
    node = helper.make_node("Mul", ["x", "w"], ["y"])
    model_dir = onnx_model(
        tmp_path, [node], inputs, [tensor("y", DataType.FP32, ["n", 4])], initializers=[weight], ir_version=4
    )
    assert tensors(completed(model_dir), "input") == [("x", "TYPE_FP32", [4])]


GOOD_Y = 'output { name: "y" data_type: TYPE_FP32 dims: [ 4 ] }'


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            'max_batch_size: 2 input { name: "X" data_type: TYPE_FP32 dims: [ 4 ] }' + GOOD_Y,
            (
                "model 'm': the model needs input 'x', which the configuration does not have; it has 'X'\n"
                "model 'm': the model has no input 'X'; it has 'x'"
            ),
        ),
        (
            'max_batch_size: 2 input { name: "x" data_type: TYPE_INT64 dims: [ 4 ] }' + GOOD_Y,
            "model 'm', input 'x': the configuration's data_type is TYPE_INT64, but the model has TYPE_FP32",
        ),
        (
            'max_batch_size: 2 input { name: "x" data_type: TYPE_FP32 dims: [ 5 ] }' + GOOD_Y,
            (
                "model 'm', input 'x': the configuration's shape is [-1, 5] (the batch dimension, which max_batch_size "
                "adds, and dims), but the model has [-1, 4]; write dims: [4]"
            ),
        ),
        (
            (
                'max_batch_size: 2 input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } '
                'output { name: "yy" data_type: TYPE_FP32 dims: [ 4 ] }'
            ),
            "model 'm': the model has no output 'yy'; did you mean 'y'?; it has 'y'",
        ),
        ('output { name: "z" }', "model 'm': the model has no output 'z'; it has 'y'"),
        (
            'input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }' + GOOD_Y,
            (
                "model 'm', input 'x': the configuration's shape is [4], but the model has [-1, 4]; "
                "write dims: [-1, 4]\n"
                "model 'm', output 'y': the configuration's shape is [4], but the model has [-1, 4]; "
                "write dims: [-1, 4]"
            ),
        ),
    ],
)
def test_contradictions_name_the_tensor_and_both_sides(tmp_path: Path, config: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(BACKEND, relu_model(tmp_path, config))
    assert caught.value.message == message


@pytest.mark.parametrize(
    "tensors_text",
    ["", 'input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } output { name: "y" data_type: TYPE_FP32 dims: [ 4 ] }'],
)
def test_batches_for_a_model_that_cannot(tmp_path: Path, tensors_text: str) -> None:
    """Found while completing and, when the configuration is complete, while loading."""
    model_dir = relu_model(tmp_path, f"max_batch_size: 8 {tensors_text}", shape=(1, 4), output_shape=(1, 4))
    with pytest.raises(ConfigError, match=r"\[1, 4\].*set max_batch_size: 0"):
        load(BACKEND, model_dir)


@pytest.mark.parametrize("content", [b"", b"nonsense" * 100, b"\x00", None])
def test_a_broken_file_is_told_in_one_line(tmp_path: Path, content: bytes | None) -> None:
    model_dir = relu_model(tmp_path)
    path = model_dir / "1" / "model.onnx"
    path.write_bytes(path.read_bytes()[:60] if content is None else content)
    with pytest.raises(InvalidArgumentError) as caught:
        load(BACKEND, model_dir)
    assert caught.value.message.startswith(f"model 'm': ONNX Runtime cannot load '{path}': onnx runtime error")
    assert "\n" not in caught.value.message


def test_missing_file_gets_the_nearest_name(tmp_path: Path) -> None:
    model_dir = relu_model(tmp_path, 'backend: "onnxruntime" default_model_filename: "modle.onnx"')
    with pytest.raises(NotFoundError, match=r"no file '.*modle\.onnx'; did you mean 'model\.onnx'"):
        load(BACKEND, model_dir)


def test_gpu_instance_without_gpu_support(tmp_path: Path) -> None:
    loaded = load(BACKEND, relu_model(tmp_path))
    with pytest.raises(UnsupportedError, match="KIND_GPU"):
        loaded.model.instance(replace(loaded.spec.instances[0], kind=InstanceKind.GPU))


def test_model_in_a_directory_with_weights_beside_it(tmp_path: Path) -> None:
    """``model.onnx`` may be a directory; external data is found beside the file."""
    folder = tmp_path / "m" / "1" / "model.onnx"
    folder.mkdir(parents=True)
    weight = helper.make_tensor("w", TensorProto.FLOAT, [512], [2.0] * 512)
    weight.raw_data = b"\x00\x00\x00\x40" * 512
    del weight.float_data[:]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "w"], ["y"])],
        "g",
        [tensor("x", DataType.FP32, ["n", 512])],
        [tensor("y", DataType.FP32, ["n", 512])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (folder / "weights.bin").is_file()
    assert tensors(completed(tmp_path / "m"), "output") == [("y", "TYPE_FP32", [512])]
    (folder / "weights.bin").unlink()
    with pytest.raises(ShoalError, match=r"cannot load.*weights\.bin"):
        load(BACKEND, tmp_path / "m")
