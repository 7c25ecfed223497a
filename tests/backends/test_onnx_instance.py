"""How batches reach ONNX Runtime: bound or not, which outputs, what is checked."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from shoal.backends import registry
from shoal.backends.contract import ModelBatch, RequestInfo
from shoal.backends.onnx_instance import BIND_NBYTES, OnnxInstance
from shoal.datatypes import DataType
from shoal.errors import InvalidArgumentError, ModelError
from shoal.testing.backend_harness import NoRoom, PlentyOfRoom, load, run
from tests.backends.model_folders import identity_model, onnx_model, relu_model, tensor

BACKEND = registry.get("onnxruntime")
WIDE = BIND_NBYTES // 4


def instance_of(model_dir: Path) -> tuple[Any, OnnxInstance]:
    loaded = load(BACKEND, model_dir)
    instance = loaded.instance()
    assert isinstance(instance, OnnxInstance)
    return loaded, instance


@pytest.mark.parametrize(
    ("shape", "rows", "bound"),
    [(("n", WIDE), 1, True), (("n", WIDE // 2), 1, False), (("n", WIDE // 2), 2, True), (("n", "t", 4), 2, True)],
)
def test_large_outputs_are_written_into_the_room(
    tmp_path: Path, shape: tuple[Any, ...], rows: int, bound: bool
) -> None:
    loaded, instance = instance_of(relu_model(tmp_path, shape=shape, output_shape=shape))
    x = np.full([rows, *(size if isinstance(size, int) else WIDE for size in shape[1:])], 3, np.float32)
    room = PlentyOfRoom()
    result = instance.execute(loaded.batch([{"x": x}]), room)
    assert result.gathered is not None
    assert (result.gathered["y"] is room.given.get("y")) == bound
    assert np.array_equal(result.gathered["y"], x)


def test_sizes_that_no_input_tells_are_not_bound(tmp_path: Path) -> None:
    """NonZero's result has as many columns as there are elements that are not zero."""
    node = helper.make_node("NonZero", ["x"], ["y"])
    shape = [WIDE]
    model = onnx_model(
        tmp_path, [node], [tensor("x", DataType.FP32, shape)], [tensor("y", DataType.INT64, [1, "found"])]
    )
    loaded, instance = instance_of(model)
    x = np.zeros(WIDE, np.float32)
    x[[3, 5]] = 1
    room = PlentyOfRoom()
    (result,) = run(loaded, instance, [{"x": x}], room)
    assert result.outputs["y"].tolist() == [[3, 5]]
    assert room.given == {}


def test_a_model_that_breaks_its_own_names_of_sizes_still_runs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exporters write such models; the first try fails inside ONNX Runtime, and no second is made."""
    start, end = (helper.make_tensor(name, TensorProto.INT64, [1], [value]) for name, value in (("s", 1), ("e", 9**9)))
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [1])
    node = helper.make_node("Slice", ["x", "s", "e", "axis"], ["y"])
    model = onnx_model(
        tmp_path,
        [node],
        [tensor("x", DataType.FP32, ["n", "t"])],
        [tensor("y", DataType.FP32, ["n", "t"])],
        initializers=[start, end, axis],
    )
    loaded, instance = instance_of(model)
    x = np.arange(2 * WIDE, dtype=np.float32).reshape(2, WIDE)
    for _ in range(2):
        room = PlentyOfRoom()
        (result,) = run(loaded, instance, [{"x": x}], room)
        assert np.array_equal(result.outputs["y"], x[:, 1:])
    assert room.given == {}
    assert capfd.readouterr().err.count("ExecuteKernel") == 1


def test_only_the_outputs_asked_for_are_fetched(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["z"])]
    outputs = [tensor("y", DataType.FP32, ["n", 2]), tensor("z", DataType.FP32, ["n", 2])]
    _, instance = instance_of(onnx_model(tmp_path, nodes, [tensor("x", DataType.FP32, ["n", 2])], outputs))
    x = np.ones((2, 2), np.float32)

    def names(*asked: tuple[str, ...]) -> set[str]:
        infos = [RequestInfo(outputs=each) for each in asked]
        return set(instance.execute(ModelBatch({"x": x}, [1, 1], infos, True), NoRoom()).gathered or ())

    assert names(("z",), ("z",)) == {"z"}
    assert names(("z",), ("y",)) == {"y", "z"}
    assert names((), ()) == {"y", "z"}


def test_output_without_the_batchs_rows(tmp_path: Path) -> None:
    """A configuration that says batch where the model returns something else must not mix up requests."""
    bounds = [helper.make_tensor(name, TensorProto.INT64, [1], [value]) for name, value in (("from", 0), ("to", 1))]
    node = helper.make_node("Slice", ["x", "from", "to"], ["y"])
    x, y = tensor("x", DataType.FP32, ["n", 2]), tensor("y", DataType.FP32, ["m", 2])
    model = onnx_model(tmp_path, [node], [x], [y], initializers=bounds)
    loaded, instance = instance_of(model)
    with pytest.raises(ModelError, match=r"output 'y' has shape \[1, 2\] for a batch of 2 rows"):
        run(loaded, instance, [{"x": np.ones((2, 2), np.float32)}], NoRoom())


def test_run_errors_have_triton_s_form(tmp_path: Path) -> None:
    loaded, instance = instance_of(relu_model(tmp_path))
    with pytest.raises(ModelError) as caught:
        run(loaded, instance, [{"x": np.ones((1, 5), np.float32)}], NoRoom())
    assert caught.value.message.startswith("model 'm': onnx runtime error 2: Got invalid dimensions for input: x")
    assert "\n" not in caught.value.message


def test_text_that_is_not_utf8_fails_its_own_request_only(tmp_path: Path) -> None:
    loaded, instance = instance_of(identity_model(tmp_path, DataType.BYTES))
    good, bad = np.array([[b"a", b"b"]], dtype=object), np.array([[b"a", b"\xff"]], dtype=object)
    results = run(loaded, instance, [{"x": good}, {"x": bad}, {"x": good}], NoRoom())
    assert [result.error is None for result in results] == [True, False, True]
    assert isinstance(results[1].error, InvalidArgumentError)
    assert "input 'x': element 1 is not UTF-8" in str(results[1].error)
    assert results[2].outputs["y"].tolist() == [["a", "b"]]


def test_bf16_is_computed_in_bf16(tmp_path: Path) -> None:
    """2.5 x 2.5 = 6.25 and 1.0 + ... in BF16's bits, with an output shape that is not known before."""
    node = helper.make_node("Concat", ["x", "x"], ["y"], axis=1)
    model = onnx_model(
        tmp_path, [node], [tensor("x", DataType.BF16, ["n", "k"])], [tensor("y", DataType.BF16, ["n", "twice"])]
    )
    loaded, instance = instance_of(model)
    (result,) = run(loaded, instance, [{"x": np.array([[0x3F80, 0x4020]], np.uint16)}], PlentyOfRoom())
    assert result.outputs["y"].tolist() == [[0x3F80, 0x4020, 0x3F80, 0x4020]]
    assert result.outputs["y"].dtype == np.uint16


def test_scalars(tmp_path: Path) -> None:
    """A scalar of the model is one element for clients, for a configuration cannot have empty dims."""
    loaded, instance = instance_of(relu_model(tmp_path, shape=(), output_shape=()))
    assert loaded.spec.inputs[0].dims == loaded.spec.outputs[0].dims == (1,)
    (result,) = run(loaded, instance, [{"x": np.array([3], np.float32)}], NoRoom())
    assert result.outputs["y"].tolist() == [3]


def test_a_scalar_for_each_row(tmp_path: Path) -> None:
    """With batching the configuration says so with ``reshape``, and the backend sees the batch dimension only."""
    loaded, instance = instance_of(relu_model(tmp_path, shape=("n",), output_shape=("n",)))
    requests = [{"x": np.array([3], np.float32)}, {"x": np.array([4, -5], np.float32)}]
    results = run(loaded, instance, requests, NoRoom())
    assert [result.outputs["y"].tolist() for result in results] == [[3], [4, 0]]


def test_instances_share_one_session(tmp_path: Path) -> None:
    loaded, instance = instance_of(relu_model(tmp_path))
    other = loaded.instance(1)
    assert isinstance(other, OnnxInstance)
    assert other._plan is instance._plan
