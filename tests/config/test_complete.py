"""The core's part of completing a configuration (model_config_utils.cc, AutoCompleteBackendFields and Normalize...)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.config.complete import complete_config
from shoal.config.model_config_pb2 import ModelConfig, ModelInstanceGroup

from .messages import configs


def complete(tmp_path, files=(), gpu_count=0, name="m", **fields):
    folder = tmp_path / name
    (folder / "1").mkdir(parents=True)
    for file in files:
        (folder / "1" / file).touch()
    config = ModelConfig(**fields)
    complete_config(config, folder, gpu_count)
    return config


@pytest.mark.parametrize(
    ("file", "backend", "platform"),
    [
        ("model.plan", "tensorrt", "tensorrt_plan"),
        ("model.onnx", "onnxruntime", "onnxruntime_onnx"),
        ("model.xml", "openvino", ""),
        ("model.pt", "pytorch", "pytorch_libtorch"),
        ("model.pt2", "torch_aoti", "torch_aoti"),
        ("model.py", "python", ""),
    ],
)
def test_backend_platform_and_file_follow_from_each_other(tmp_path, file, backend, platform):
    by_file = complete(tmp_path / "a", [file])
    by_backend = complete(tmp_path / "b", backend=backend)
    by_filename = complete(tmp_path / "c", default_model_filename=file)
    for config in (by_file, by_backend, by_filename):
        assert (config.backend, config.platform, config.default_model_filename) == (backend, platform, file)
    if platform:
        by_platform = complete(tmp_path / "d", platform=platform)
        assert (by_platform.backend, by_platform.default_model_filename) == (backend, file)


def test_the_first_of_several_files_wins(tmp_path):
    assert complete(tmp_path, ["model.py", "model.onnx"]).backend == "onnxruntime"


def test_the_lowest_version_is_looked_into(tmp_path):
    folder = tmp_path / "m"
    for version, file in (("10", "model.py"), ("9", "model.onnx"), ("08", "model.plan"), ("configs", "model.plan")):
        (folder / version).mkdir(parents=True)
        (folder / version / file).touch()
    config = ModelConfig()
    complete_config(config, folder, 0)
    assert config.backend == "onnxruntime"


def test_a_name_of_two_parts_tells_the_backend(tmp_path):
    config = complete(tmp_path, name="fish.identity")
    assert (config.backend, config.default_model_filename) == ("identity", "model.identity")


def test_nothing_to_go_by_leaves_the_backend_open(tmp_path):
    assert complete(tmp_path, ["weights.bin"]).backend == ""
    assert complete(tmp_path / "b", ["model.py"], platform="unheard_of").backend == ""


def test_a_file_name_that_is_given_stays(tmp_path):
    config = complete(tmp_path, backend="onnxruntime", default_model_filename="net.onnx")
    assert config.default_model_filename == "net.onnx"


def test_defaults(tmp_path):
    config = complete(tmp_path, ["model.py"], max_batch_size=8, dynamic_batching={})
    assert config.name == "m"
    assert config.version_policy.latest.num_versions == 1
    assert list(config.dynamic_batching.preferred_batch_size) == [8]
    assert config.optimization.input_pinned_memory.enable
    assert config.optimization.output_pinned_memory.enable


def test_no_preferred_size_without_batching(tmp_path):
    assert list(complete(tmp_path, dynamic_batching={}).dynamic_batching.preferred_batch_size) == []


def test_sequences_get_their_idle_time_and_preferred_size(tmp_path):
    config = complete(tmp_path, max_batch_size=4, sequence_batching={"oldest": {}})
    assert config.sequence_batching.max_sequence_idle_microseconds == 1_000_000
    assert list(config.sequence_batching.oldest.preferred_batch_size) == [4]


def test_an_ensemble_has_no_instances_and_no_optimization(tmp_path):
    config = complete(tmp_path, ["model.py"], platform="ensemble", ensemble_scheduling={})
    assert not config.instance_group
    assert not config.HasField("optimization")
    assert config.backend == ""


GROUP = ModelInstanceGroup
AUTO, GPU, CPU, MODEL = GROUP.KIND_AUTO, GROUP.KIND_GPU, GROUP.KIND_CPU, GROUP.KIND_MODEL


@pytest.mark.parametrize(
    ("groups", "gpu_count", "backend", "expected"),
    [
        ([], 0, "python", [("m", CPU, 1, [])]),
        ([], 2, "python", [("m", GPU, 1, [0, 1])]),
        ([], 0, "onnxruntime", [("m", CPU, 2, [])]),
        ([], 1, "onnxruntime", [("m", GPU, 1, [0])]),
        ([{"kind": CPU}], 1, "onnxruntime", [("m_0", CPU, 2, [])]),
        (
            [{}, {"name": "x", "count": 3}, {}],
            0,
            "python",
            [("m_0", CPU, 1, []), ("x", CPU, 3, []), ("m_2", CPU, 1, [])],
        ),
        ([{"gpus": [1]}], 2, "python", [("m_0", GPU, 1, [1])]),
        ([{"gpus": [2]}], 2, "python", [("m_0", CPU, 1, [2])]),
        ([{"kind": MODEL}], 2, "python", [("m_0", MODEL, 1, [])]),
        ([{"kind": GPU}], 0, "python", [("m_0", GPU, 1, [])]),
    ],
)
def test_instance_groups(tmp_path, groups, gpu_count, backend, expected):
    config = complete(tmp_path, gpu_count=gpu_count, backend=backend, instance_group=groups)
    assert [(group.name, group.kind, group.count, list(group.gpus)) for group in config.instance_group] == expected


@given(configs(), st.integers(0, 3))
def test_completing_again_changes_nothing(tmp_path_factory, config, gpu_count):
    folder = tmp_path_factory.getbasetemp() / "m"
    complete_config(config, folder, gpu_count)
    once = config.SerializeToString(deterministic=True)
    complete_config(config, folder, gpu_count)
    assert config.SerializeToString(deterministic=True) == once


@given(configs(), st.integers(0, 3))
def test_what_is_said_stays(tmp_path_factory, config, gpu_count):
    """Completion adds; it takes nothing away and changes no name, backend or size that was given."""
    given_config = ModelConfig.FromString(config.SerializeToString())
    complete_config(config, tmp_path_factory.getbasetemp() / "m", gpu_count)
    for name in ("name", "backend", "platform", "default_model_filename", "max_batch_size"):
        assert getattr(given_config, name) in ("", 0, getattr(config, name))
    assert config.input == given_config.input
    assert len(config.instance_group) >= len(given_config.instance_group)
