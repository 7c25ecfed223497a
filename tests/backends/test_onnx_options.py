"""Parameters of Triton's ONNX Runtime backend (1.13) and what is chosen without them."""

from collections.abc import Mapping
from typing import Any

import onnxruntime
import pytest

from shoal.backends.onnx_options import SPINNING, OnnxOptions, read_options, run_options, session_options
from shoal.backends.onnx_providers import choose_providers
from shoal.config.spec import InstanceKind, InstanceSpec, ModelSpec
from shoal.errors import ConfigError, UnsupportedError

CPU = InstanceSpec("m_0_0", InstanceKind.CPU, 0)
GPU = InstanceSpec("m_0_0", InstanceKind.GPU, 3)
WITH_CUDA = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]


def spec(parameters: Mapping[str, str] = {}, instances: int = 1) -> ModelSpec:
    return ModelSpec("m", 1, "onnxruntime", "", 0, (), (), (CPU,) * instances, None, parameters)


def read(parameters: Mapping[str, str], instances: int = 1, cores: float = 8, **optimization: Any) -> OnnxOptions:
    return read_options(spec(parameters, instances), optimization, cores)


@pytest.mark.parametrize(
    ("cores", "instances", "threads"), [(8, 1, 8), (8, 3, 2), (2, 2, 1), (1.5, 1, 1), (0.5, 1, 1), (2, 16, 1)]
)
def test_instances_share_the_cores(cores: float, instances: int, threads: int) -> None:
    assert read({}, instances, cores).intra_op_threads == threads


def test_spinning_is_off_unless_asked_for() -> None:
    assert read({}).entries == {SPINNING: "0"}
    assert read({SPINNING: "1"}).entries == {SPINNING: "1"}


def test_every_parameter_reaches_the_session() -> None:
    options = read(
        {
            "intra_op_thread_count": "3",
            "inter_op_thread_count": "2",
            "execution_mode": "1",
            "enable_mem_arena": "0",
            "enable_mem_pattern": "0",
            "session.use_device_allocator_for_initializers": "1",
            "memory.enable_memory_arena_shrinkage": "cpu:0",
        }
    )
    session = session_options(options)
    assert session.intra_op_num_threads == 3
    assert session.inter_op_num_threads == 2
    assert session.execution_mode == onnxruntime.ExecutionMode.ORT_PARALLEL
    assert session.enable_cpu_mem_arena is False
    assert session.enable_mem_pattern is False
    assert session.get_session_config_entry("session.use_device_allocator_for_initializers") == "1"
    assert run_options(options).get_run_config_entry("memory.enable_memory_arena_shrinkage") == "cpu:0"
    assert options.warnings == ()


def test_without_shrinkage_there_are_no_run_options() -> None:
    assert run_options(read({})) is None


def test_zero_threads_means_the_default() -> None:
    assert read({"intra_op_thread_count": "0"}, cores=5).intra_op_threads == 5


@pytest.mark.parametrize(
    ("level", "expected"), [(None, "ENABLE_ALL"), (-1, "ENABLE_BASIC"), (1, "ENABLE_EXTENDED"), (2, "DISABLE_ALL")]
)
def test_graph_level(level: int | None, expected: str) -> None:
    optimization = {} if level is None else {"graph": {"level": level}}
    session = session_options(read({}, **optimization))
    assert session.graph_optimization_level == getattr(onnxruntime.GraphOptimizationLevel, f"ORT_{expected}")


def test_wrong_values_are_all_named() -> None:
    with pytest.raises(ConfigError) as caught:
        read({"intra_op_thread_count": "many", "execution_mode": "2", "enable_mem_arena": "-1"}, graph={"level": 7})
    assert caught.value.problems == (
        "model 'm': parameter 'intra_op_thread_count' must be a number of 0 or more, not 'many'",
        "model 'm': parameter 'execution_mode' must be 0 or 1, not '2'",
        "model 'm': optimization.graph.level must be one of [-1, 0, 1, 2], not 7",
        "model 'm': parameter 'enable_mem_arena' must be 0 or 1, not '-1'",
    )


def test_unknown_parameters_are_collected() -> None:
    (warning,) = read({"intra_op_threads_count": "2"}).warnings
    assert "'intra_op_threads_count' is not known" in warning
    assert "did you mean 'intra_op_thread_count'" in warning


def test_cpu_instances_run_on_the_cpu() -> None:
    assert choose_providers("m", CPU, {}, read({}), WITH_CUDA) == [("CPUExecutionProvider", {})]


def test_gpu_instances_run_on_their_device_with_the_models_cuda_parameters() -> None:
    options = read({"cudnn_conv_algo_search": "1", "gpu_mem_limit": "1000", "arena_extend_strategy": "1"})
    providers = choose_providers("m", GPU, {}, options, WITH_CUDA)
    cuda = {
        "device_id": "3",
        "cudnn_conv_algo_search": "HEURISTIC",
        "gpu_mem_limit": "1000",
        "arena_extend_strategy": "kSameAsRequested",
    }
    assert providers == [("CUDAExecutionProvider", cuda), ("CPUExecutionProvider", {})]


def test_gpu_accelerators_come_first() -> None:
    optimization = {
        "execution_accelerators": {
            "gpu_execution_accelerator": [
                {"name": "tensorrt", "parameters": {"trt_fp16_enable": "1"}},
                {"name": "cuda", "parameters": {"do_copy_in_default_stream": "0"}},
            ]
        }
    }
    providers = choose_providers("m", GPU, optimization, read({}), WITH_CUDA)
    assert providers == [
        ("TensorrtExecutionProvider", {"device_id": "3", "trt_fp16_enable": "1"}),
        ("CUDAExecutionProvider", {"device_id": "3", "do_copy_in_default_stream": "0"}),
        ("CPUExecutionProvider", {}),
    ]


def test_gpu_without_cuda() -> None:
    with pytest.raises(UnsupportedError, match="is KIND_GPU, but the installed ONNX Runtime cannot use CUDA"):
        choose_providers("m", GPU, {}, read({}), ["CPUExecutionProvider"])


def test_missing_accelerator() -> None:
    optimization = {"execution_accelerators": {"cpu_execution_accelerator": [{"name": "openvino"}]}}
    with pytest.raises(
        UnsupportedError, match="accelerator 'openvino' is not in the installed ONNX Runtime; it has cpu"
    ):
        choose_providers("m", CPU, optimization, read({}), ["CPUExecutionProvider"])
