"""The spec that the rest of Shoal reads."""

import pytest

from shoal.config.compile import compile_spec
from shoal.config.complete import complete_config
from shoal.config.model_config_pb2 import ModelConfig
from shoal.config.read import parse_config
from shoal.config.spec import InstanceKind, InstanceSpec, QueuePolicySpec, TimeoutAction
from shoal.config.tree import Dialect
from shoal.datatypes import DataType
from shoal.errors import ConfigError


def compiled(tmp_path, text, gpu_count=0):
    config = parse_config(text, Dialect.TEXT, "FILE").config
    folder = tmp_path / "m"
    folder.mkdir(exist_ok=True)
    complete_config(config, folder, gpu_count)
    return compile_spec(config, 3, folder, gpu_count)


def test_identity(tmp_path):
    spec = compiled(
        tmp_path,
        'backend: "onnxruntime" max_batch_size: 4 parameters { key: "k" value { string_value: "v" } } '
        'metric_tags { key: "team" value: "fish" }',
    )
    assert (spec.name, spec.version, spec.backend, spec.platform) == ("m", 3, "onnxruntime", "onnxruntime_onnx")
    assert (spec.max_batch_size, spec.filename, spec.batching) == (4, "model.onnx", None)
    assert (spec.parameters, spec.metric_tags) == ({"k": "v"}, {"team": "fish"})


def test_the_platform_of_a_backend_without_one_is_its_name(tmp_path):
    assert compiled(tmp_path, 'backend: "python"').platform == "python"


def test_tensors(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "labels.txt").write_text("cat\ndog\n\nfish")
    spec = compiled(
        tmp_path,
        'input { name: "a" data_type: TYPE_STRING dims: [ 2, -1 ] optional: true allow_ragged_batch: true }'
        'input { name: "b" data_type: TYPE_BF16 dims: 1 reshape { } is_shape_tensor: true }'
        'output { name: "c" data_type: TYPE_FP16 dims: 4 reshape { shape: [ 2, 2 ] } label_filename: "labels.txt" }',
    )
    a, b = spec.inputs
    assert (a.name, a.datatype, a.dims, a.reshape) == ("a", DataType.BYTES, (2, -1), None)
    assert (a.optional, a.allow_ragged_batch, a.is_shape_tensor) == (True, True, False)
    assert (b.datatype, b.reshape, b.is_shape_tensor) == (DataType.BF16, (), True)
    (c,) = spec.outputs
    assert (c.datatype, c.dims, c.reshape, c.labels) == (DataType.FP16, (4,), (2, 2), ("cat", "dog", "", "fish"))


def test_labels_that_cannot_be_read_are_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match=r"m/labels\.txt: the labels cannot be read"):
        compiled(tmp_path, 'output { name: "c" data_type: TYPE_FP16 dims: 4 label_filename: "labels.txt" }')


@pytest.mark.parametrize(
    ("groups", "gpu_count", "expected"),
    [
        ("", 0, [("m_0", InstanceKind.CPU, 0)]),
        ("instance_group { }", 0, [("m_0_0", InstanceKind.CPU, 0)]),
        ("instance_group { name: 'g' count: 2 }", 0, [("g_0", InstanceKind.CPU, 0), ("g_1", InstanceKind.CPU, 0)]),
        ("instance_group { kind: KIND_MODEL }", 1, [("m_0_0", InstanceKind.MODEL, 0)]),
        ("", 2, [("m_0", InstanceKind.GPU, 0), ("m_0", InstanceKind.GPU, 1)]),
        (
            "instance_group { count: 2 gpus: 1 } instance_group { kind: KIND_CPU }",
            2,
            [("m_0_0", InstanceKind.GPU, 1), ("m_0_1", InstanceKind.GPU, 1), ("m_1_0", InstanceKind.CPU, 0)],
        ),
    ],
)
def test_instances_have_tritons_names(tmp_path, groups, gpu_count, expected):
    """Names as the real server logs them: ``minimal_0`` without a group, ``batched_0_1`` with one."""
    spec = compiled(tmp_path, f'backend: "python" {groups}', gpu_count)
    assert spec.instances == tuple(InstanceSpec(*each) for each in expected)


def test_instances_are_resolved_without_changing_the_configuration(tmp_path):
    config = ModelConfig(name="m", backend="python")
    assert compile_spec(config, 1, tmp_path, 0).instances[0].name == "m_0"
    assert config == ModelConfig(name="m", backend="python")


def test_batching(tmp_path):
    spec = compiled(
        tmp_path,
        "max_batch_size: 8 dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 "
        "preserve_ordering: true priority_levels: 3 default_priority_level: 2 "
        "default_queue_policy { max_queue_size: 5 } "
        "priority_queue_policy { key: 1 value { timeout_action: DELAY default_timeout_microseconds: 7 "
        "allow_timeout_override: true } } }",
    ).batching
    assert (spec.preferred_batch_sizes, spec.max_queue_delay_us, spec.preserve_ordering) == ((4, 8), 100, True)
    assert (spec.priority_levels, spec.default_priority_level) == (3, 2)
    assert spec.default_queue_policy == QueuePolicySpec(max_queue_size=5)
    assert spec.priority_queue_policies == {1: QueuePolicySpec(TimeoutAction.DELAY, 7, True, 0)}
