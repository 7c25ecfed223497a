"""``triton_python_backend_utils`` outside a server; what it does is what the real Triton 2.51 was seen to do."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import serialize_byte_tensor

import triton_python_backend_utils as pb_utils
from shoal.backends.triton_python.logger import Logger
from shoal.backends.triton_python.metrics import collect
from shoal.backends.triton_python.tensor import BF16Tensor

EXCEPTION = pb_utils.TritonModelException


NAMES = """
    InferenceRequest InferenceResponse Logger MetricFamily ModelConfig PreferredMemory TRITONSERVER_MEMORY_CPU
    TRITONSERVER_MEMORY_GPU TRITONSERVER_REQUEST_FLAG_SEQUENCE_END TRITONSERVER_REQUEST_FLAG_SEQUENCE_START
    TRITONSERVER_REQUEST_RELEASE_ALL TRITONSERVER_REQUEST_RELEASE_RESCHEDULE
    TRITONSERVER_RESPONSE_COMPLETE_FINAL TRITON_STRING_TO_NUMPY Tensor TritonError TritonModelException
    deserialize_bytes_tensor get_input_config_by_name get_input_tensor_by_name get_model_dir
    get_output_config_by_name get_output_tensor_by_name is_model_ready load_model numpy_to_triton_type
    serialize_byte_tensor triton_string_to_numpy triton_to_numpy_type unload_model
    using_decoupled_model_transaction_policy
"""


def test_it_has_every_name_of_triton_s() -> None:
    assert [name for name in NAMES.split() if not hasattr(pb_utils, name)] == []


class TestTensor:
    def test_shares_the_array(self) -> None:
        array = np.zeros(3, np.float32)
        tensor = pb_utils.Tensor("a", array)
        assert tensor.as_numpy() is array
        assert (tensor.name(), tensor.shape(), tensor.is_cpu(), tensor.triton_dtype()) == ("a", [3], True, 11)

    def test_no_dimensions(self) -> None:
        assert pb_utils.Tensor("a", np.array(2, np.float32)).shape() == []

    @pytest.mark.parametrize("array", [np.zeros(1, complex), np.array(["x"]), np.zeros(4, ">f4"), np.zeros(1, "M8[s]")])
    def test_types_that_triton_lacks(self, array: Any) -> None:
        with pytest.raises(EXCEPTION, match=r"NumPy dtype is not supported"):
            pb_utils.Tensor("a", array)

    @pytest.mark.parametrize("array", [np.array([b"x"]), np.array([b"x", "y", 3], dtype=object)])
    def test_bytes(self, array: Any) -> None:
        tensor = pb_utils.Tensor("a", array)
        assert tensor.as_numpy() is array
        assert tensor.triton_dtype() == 13

    @pytest.mark.parametrize("array", [[1, 2], np.float32(2), None])
    def test_only_arrays(self, array: Any) -> None:
        with pytest.raises(TypeError, match="takes a str and a NumPy array"):
            pb_utils.Tensor("a", array)

    def test_empty_name(self) -> None:
        with pytest.raises(EXCEPTION, match=r"Tensor name cannot be an empty string\."):
            pb_utils.Tensor("", np.zeros(1))

    def test_dlpack_both_ways(self) -> None:
        array = np.arange(6, dtype=np.float32).reshape(2, 3)
        tensor = pb_utils.Tensor("a", array)
        for source in (tensor.to_dlpack(), tensor, array):
            found = pb_utils.Tensor.from_dlpack("b", source)
            assert found.name() == "b"
            assert np.shares_memory(found.as_numpy(), array)
            assert np.array_equal(found.as_numpy(), array)
        assert np.shares_memory(np.from_dlpack(tensor), array)

    def test_bf16_through_dlpack(self) -> None:
        bits = np.array([0x3F80, 0x4000], np.uint16)
        tensor = BF16Tensor("a", bits)
        with pytest.raises(EXCEPTION, match=r"BF16, which NumPy does not have; use to_dlpack"):
            tensor.as_numpy()
        assert (tensor.triton_dtype(), tensor.shape()) == (14, [2])
        again = pb_utils.Tensor.from_dlpack("b", tensor.to_dlpack())
        assert isinstance(again, BF16Tensor)
        assert np.shares_memory(again._array, bits)
        assert again._array.dtype == np.uint16

    def test_dlpack_errors(self) -> None:
        with pytest.raises(EXCEPTION, match="BYTES, which DLPack does not have"):
            pb_utils.Tensor("a", np.array([b"x"])).to_dlpack()
        with pytest.raises(EXCEPTION, match="needs a DLPack capsule or tensor, not NoneType"):
            pb_utils.Tensor.from_dlpack("a", None)
        capsule = pb_utils.Tensor("a", np.zeros(1, np.float32)).to_dlpack()
        pb_utils.Tensor.from_dlpack("b", capsule)
        with pytest.raises(EXCEPTION, match="consumed before"):
            pb_utils.Tensor.from_dlpack("b", capsule)

    def test_dlpack_from_a_gpu(self) -> None:
        class OnGpu:
            def __dlpack__(self) -> None:
                raise AssertionError("must not be asked for")

            def __dlpack_device__(self) -> tuple[int, int]:
                return (2, 1)

        with pytest.raises(EXCEPTION, match=r"on device \(2, 1\) cannot be used: it must lie on the CPU"):
            pb_utils.Tensor.from_dlpack("a", OnGpu())


class TestErrorsAndResponses:
    def test_codes(self) -> None:
        error = pb_utils.TritonError
        names = [
            "UNKNOWN",
            "INTERNAL",
            "NOT_FOUND",
            "INVALID_ARG",
            "UNAVAILABLE",
            "UNSUPPORTED",
            "ALREADY_EXISTS",
            "CANCELLED",
        ]
        assert [int(getattr(error, name)) for name in names] == list(range(8))
        assert (error("m").message(), error("m").code()) == ("m", error.INTERNAL)
        assert error(message="m", code=error.NOT_FOUND).code() is error.NOT_FOUND

    @pytest.mark.parametrize("arguments", [(3,), ("m", 99), ("m", "INTERNAL")])
    def test_wrong_errors(self, arguments: tuple[Any, ...]) -> None:
        with pytest.raises(TypeError, match="TritonError"):
            pb_utils.TritonError(*arguments)

    def test_response(self) -> None:
        x = pb_utils.Tensor("x", np.zeros(1))
        empty = pb_utils.InferenceResponse()
        assert (empty.output_tensors(), empty.has_error(), empty.error(), empty.parameters()) == ([], False, None, "{}")
        response = pb_utils.InferenceResponse(
            output_tensors=(x,), error=pb_utils.TritonError("q"), parameters={"a": True}
        )
        assert response.output_tensors() == [x]
        assert response.has_error()
        assert response.error().message() == "q"
        assert json.loads(response.parameters()) == {"a": True}
        assert pb_utils.get_output_tensor_by_name(response, "x") is x
        assert pb_utils.get_output_tensor_by_name(response, "y") is None

    def test_wrong_responses(self) -> None:
        with pytest.raises(EXCEPTION, match=r"Output tensor for inference response should not be empty\."):
            pb_utils.InferenceResponse([None])
        with pytest.raises(TypeError, match=r"must be a pb_utils\.Tensor, not ndarray"):
            pb_utils.InferenceResponse([np.zeros(1)])
        with pytest.raises(TypeError, match="must be a TritonError, not str"):
            pb_utils.InferenceResponse([], error="text")
        with pytest.raises(EXCEPTION, match="keys to have type str"):
            pb_utils.InferenceResponse([], parameters={1: 1})
        with pytest.raises(EXCEPTION, match="bool/int/float/str, found type <class 'list'> for key 'a'"):
            pb_utils.InferenceResponse([], parameters={"a": []})


class TestRequest:
    def test_defaults(self) -> None:
        x = pb_utils.Tensor("x", np.zeros(1))
        request = pb_utils.InferenceRequest(model_name="m", inputs=[x], requested_output_names=["o"])
        assert (request.inputs(), request.request_id(), request.correlation_id()) == ([x], "", 0)
        assert (request.requested_output_names(), request.flags(), request.timeout(), request.parameters()) == (
            {"o"},
            0,
            0,
            "{}",
        )
        assert request.preferred_memory().preferred_memory_type is pb_utils.TRITONSERVER_MEMORY_CPU
        assert request.trace() is None
        assert pb_utils.get_input_tensor_by_name(request, "x") is x
        assert pb_utils.get_input_tensor_by_name(request, "y") is None
        with pytest.raises(EXCEPTION, match="Cannot determine request cancellation"):
            request.is_cancelled()

    def test_everything_given(self) -> None:
        memory = pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_GPU, 1)
        request = pb_utils.InferenceRequest(
            "id", "seq", model_name="m", inputs=[], requested_output_names=[], model_version=2, flags=1, timeout=6,
            preferred_memory=memory, parameters={"x": 2, "y": True},
        )  # fmt: skip
        assert (request.request_id(), request.correlation_id(), request.flags(), request.timeout()) == (
            "id",
            "seq",
            1,
            6,
        )
        assert request.preferred_memory() is memory
        assert memory.preferred_device_id == 1
        assert request.parameters() == '{"x": 2, "y": true}'
        request.set_flags(2)
        assert request.flags() == 2

    def test_inputs_must_be_tensors(self) -> None:
        with pytest.raises(TypeError, match="every input must be"):
            pb_utils.InferenceRequest(model_name="m", inputs=[None], requested_output_names=[])


class TestTypes:
    @pytest.mark.parametrize(
        ("number", "config", "scalar"),
        [
            (1, "TYPE_BOOL", np.bool_), (2, "TYPE_UINT8", np.uint8), (3, "TYPE_UINT16", np.uint16),
            (4, "TYPE_UINT32", np.uint32), (5, "TYPE_UINT64", np.uint64), (6, "TYPE_INT8", np.int8),
            (7, "TYPE_INT16", np.int16), (8, "TYPE_INT32", np.int32), (9, "TYPE_INT64", np.int64),
            (10, "TYPE_FP16", np.float16), (11, "TYPE_FP32", np.float32), (12, "TYPE_FP64", np.float64),
            (13, "TYPE_STRING", np.object_),
        ],
    )  # fmt: skip
    def test_all_three_names(self, number: int, config: str, scalar: Any) -> None:
        assert pb_utils.triton_to_numpy_type(number) is scalar
        assert pb_utils.numpy_to_triton_type(scalar) == number
        assert np.dtype(pb_utils.triton_string_to_numpy(config)) == np.dtype(scalar)

    def test_without_counterpart(self) -> None:
        assert pb_utils.triton_string_to_numpy("TYPE_BOOL") is bool
        assert pb_utils.numpy_to_triton_type(np.bytes_) == 13
        assert pb_utils.numpy_to_triton_type(np.complex64) is None
        assert pb_utils.triton_to_numpy_type(14) is None
        assert pb_utils.triton_to_numpy_type(0) is None
        with pytest.raises(KeyError):
            pb_utils.triton_string_to_numpy("TYPE_BF16")

    @given(st.lists(st.binary(), min_size=1))
    def test_bytes_survive_serialization(self, elements: list[bytes]) -> None:
        array = np.empty(len(elements), dtype=object)
        array[:] = elements
        assert pb_utils.deserialize_bytes_tensor(pb_utils.serialize_byte_tensor(array)).tolist() == elements

    def test_serialization_as_tritonclient_has_it(self) -> None:
        array = np.array([[b"a", "é"], [5, b""]], dtype=object)
        assert pb_utils.serialize_byte_tensor(array) == serialize_byte_tensor(array).item()
        assert pb_utils.serialize_byte_tensor(np.array([b"ab", b"c"])) == b"\2\0\0\0ab\1\0\0\0c"
        assert pb_utils.serialize_byte_tensor(np.empty(0, dtype=object)) == ()
        assert pb_utils.serialize_byte_tensor(np.zeros(1)) is None

    def test_truncated_elements(self) -> None:
        with pytest.raises(ValueError, match="in the middle of an element"):
            pb_utils.deserialize_bytes_tensor(b"\5\0\0\0ab")


def test_lookup_in_a_configuration() -> None:
    config = {"input": [{"name": "a", "dims": [1]}], "output": [{"name": "b"}]}
    assert pb_utils.get_input_config_by_name(config, "a") == {"name": "a", "dims": [1]}
    assert pb_utils.get_output_config_by_name(config, "b") == {"name": "b"}
    assert pb_utils.get_input_config_by_name(config, "b") is None
    assert pb_utils.get_output_config_by_name({}, "b") is None
    assert pb_utils.using_decoupled_model_transaction_policy({}) is False
    assert pb_utils.using_decoupled_model_transaction_policy({"model_transaction_policy": {"decoupled": True}}) is True


class TestModelConfig:
    @staticmethod
    def config(**properties: Any) -> pb_utils.ModelConfig:
        return pb_utils.ModelConfig(
            json.dumps({"name": "m", "max_batch_size": 0, "input": [], "output": []} | properties)
        )

    def test_tensors(self) -> None:
        config = self.config(input=[{"name": "a", "data_type": "TYPE_INVALID", "dims": []}])
        config.add_input({"name": "a", "data_type": "TYPE_FP32", "dims": [1]})
        config.add_input({"name": "b", "data_type": "TYPE_FP32", "dims": [2]})
        config.add_output({"name": "c", "data_type": "TYPE_FP32", "dims": [3]})
        assert [tensor["dims"] for tensor in config.as_dict()["input"] + config.as_dict()["output"]] == [[1], [2], [3]]

    A = {"name": "a", "data_type": "TYPE_FP32", "dims": [1]}  # noqa: RUF012

    @pytest.mark.parametrize(
        ("given", "text"),
        [
            ({"name": "a", "dim": [1]}, "contains property other than .*: 'dim'; did you mean 'dims'"),
            ({"data_type": "TYPE_FP32", "dims": [1]}, "^input in auto-complete-config .* is missing 'name' property"),
            ({"name": "a", "dims": [1]}, "input 'a' .* is missing 'data_type' property"),
            ({"name": "a", "data_type": "TYPE_FP32"}, "input 'a' .* is missing 'dims' property"),
            (
                A | {"data_type": "TYPE_INT8"},
                "configuration expects datatype TYPE_FP32 for input 'a', model provides TYPE_INT8",
            ),
            (A | {"dims": [2]}, r"the model expects dims \[2\] but the model configuration specifies dims \[1\]"),
            (
                A | {"optional": True},
                "the model expects optional True but the model configuration specifies optional False",
            ),
        ],
    )
    def test_wrong_tensors(self, given: dict[str, Any], text: str) -> None:
        with pytest.raises(ValueError, match=text):
            self.config(input=[self.A | {"optional": False}]).add_input(given)

    def test_outputs_have_no_optional(self) -> None:
        with pytest.raises(ValueError, match="contains property other than 'name', 'data_type', 'dims': 'optional'"):
            self.config().add_output(self.A | {"optional": True})

    def test_batching(self) -> None:
        config = self.config(max_batch_size=4)
        config.set_max_batch_size(8)
        config.set_dynamic_batching()
        assert config.as_dict()["max_batch_size"] == 8
        assert config.as_dict()["dynamic_batching"] == {}
        with pytest.raises(ValueError, match=r"specified max_batch_size 8, but .* specified max_batch_size 2"):
            config.set_max_batch_size(2)
        kept = self.config(dynamic_batching={"preferred_batch_size": [2]})
        kept.set_dynamic_batching()
        assert kept.as_dict()["dynamic_batching"] == {"preferred_batch_size": [2]}
        with pytest.raises(ValueError, match="scheduling_choice as 'sequence_batching'"):
            self.config(sequence_batching={}).set_dynamic_batching()

    def test_transaction_policy(self) -> None:
        config = self.config()
        config.set_model_transaction_policy({"decoupled": True})
        config.set_model_transaction_policy({"decoupled": True})
        assert config.as_dict()["model_transaction_policy"] == {"decoupled": True}
        with pytest.raises(ValueError, match="already set to 'True'"):
            config.set_model_transaction_policy({"decoupled": False})
        with pytest.raises(ValueError, match="property other than 'decoupled': 'x'"):
            config.set_model_transaction_policy({"x": 1})


class TestMetrics:
    def test_counter(self) -> None:
        family = pb_utils.MetricFamily(name="counted", description="d", kind=pb_utils.MetricFamily.COUNTER)
        metric = family.Metric(labels={"a": "b"})
        metric.increment(2)
        assert family.Metric(labels={"a": "b"}).value() == 2
        with pytest.raises(EXCEPTION, match="can only be incremented monotonically by non-negative values"):
            metric.increment(-1)
        with pytest.raises(EXCEPTION, match="TRITONSERVER_METRIC_KIND_COUNTER does not support Set"):
            metric.set(1)
        with pytest.raises(EXCEPTION, match="TRITONSERVER_METRIC_KIND_COUNTER does not support Observe"):
            metric.observe(1)
        with pytest.raises(EXCEPTION, match=r"Unexpected buckets found\."):
            family.Metric(labels={}, buckets=[1])

    def test_gauge(self) -> None:
        metric = pb_utils.MetricFamily("level", "d", pb_utils.MetricFamily.GAUGE).Metric()
        metric.set(-3)
        metric.increment(-1)
        assert metric.value() == -4

    def test_histogram(self) -> None:
        family = pb_utils.MetricFamily("spread", "how wide", pb_utils.MetricFamily.HISTOGRAM)
        metric = family.Metric({"m": "x"}, [1, 2.5])
        for value in (0.5, 1, 2, 99):
            metric.observe(value)
        with pytest.raises(EXCEPTION, match="TRITONSERVER_METRIC_KIND_HISTOGRAM does not support Value"):
            metric.value()
        (sample,) = [sample for sample in collect() if sample.family == "spread"]
        assert (sample.description, dict(sample.labels), sample.value) == ("how wide", {"m": "x"}, 102.5)
        assert sample.buckets == ((1.0, 2), (2.5, 3), (float("inf"), 4))
        with pytest.raises(EXCEPTION, match=r"Missing required buckets\."):
            family.Metric({})
        with pytest.raises(EXCEPTION, match="must be strictly sorted"):
            family.Metric({}, [2, 1])

    def test_a_name_has_one_kind(self) -> None:
        pb_utils.MetricFamily("twice", "d", pb_utils.MetricFamily.COUNTER)
        with pytest.raises(EXCEPTION, match="'twice': Family name already exists with different type"):
            pb_utils.MetricFamily("twice", "d", pb_utils.MetricFamily.GAUGE)


def test_log_lines_look_like_triton_s(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    logger = pb_utils.Logger
    logger.log("plain")
    logger.log_info('say "hi"')
    logger.log_warn("two\nlines")
    logger.log("bad", logger.ERROR)
    logger.log_error("worse")
    logger.log_verbose("dropped")
    monkeypatch.setattr(Logger, "verbose", True)
    logger.log_verbose("kept")
    lines = capsys.readouterr().err.splitlines()
    assert [line[0] for line in lines] == list("IIWEEI")
    texts = ["plain", 'say \\"hi\\"', "two\\nlines", "bad", "worse", "kept"]
    assert [line.split("] ", 1)[1] for line in lines] == [f'"{text}"' for text in texts]
    assert all(" test_pb_utils.py:" in line for line in lines)
    with pytest.raises(TypeError, match="must be a str, not int"):
        logger.log_info(3)


@pytest.mark.parametrize("function", ["load_model", "unload_model", "is_model_ready"])
def test_controlling_models_says_that_it_is_not_supported(function: str) -> None:
    with pytest.raises(EXCEPTION, match=rf"{function}\('m'\): .* not supported in this version"):
        getattr(pb_utils, function)("m")
