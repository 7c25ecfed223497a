"""Every gRPC message has Triton's fields and numbers, and passes to and from the shape of the REST API's JSON."""

from __future__ import annotations

import random

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2 as real_health_pb2
from tritonclient.grpc import model_config_pb2, service_pb2

from shoal.errors import InternalError
from shoal.protocols import grpc_messages, grpc_service_pb2, health_pb2

MESSAGES = sorted(grpc_service_pb2.DESCRIPTOR.message_types_by_name)
MESSAGE, BYTES = FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_BYTES


def shape_of(descriptor: Descriptor) -> dict[str, object]:
    """All of a message that is on the wire, without the package's name."""
    return {
        field.name: (
            field.number,
            # One message is spliced in as its bytes; the wire does not know the difference.
            MESSAGE if descriptor.name == "ModelConfigResponse" else field.type,
            field.is_repeated,
            field.is_packed,
            field.containing_oneof.name if field.containing_oneof else None,
            shape_of(field.message_type) if field.message_type and descriptor.name != "ModelConfigResponse" else None,
        )
        for field in descriptor.fields
    }


def test_the_service_has_all_of_tritons_messages() -> None:
    assert set(MESSAGES) == set(service_pb2.DESCRIPTOR.message_types_by_name)


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_has_tritons_fields(name: str) -> None:
    assert shape_of(getattr(grpc_service_pb2, name).DESCRIPTOR) == shape_of(getattr(service_pb2, name).DESCRIPTOR)


@pytest.mark.parametrize("name", ["HealthCheckRequest", "HealthCheckResponse"])
def test_a_health_message_has_the_standards_fields(name: str) -> None:
    assert shape_of(getattr(health_pb2, name).DESCRIPTOR) == shape_of(getattr(real_health_pb2, name).DESCRIPTOR)
    assert dict(health_pb2.HealthCheckResponse.ServingStatus.items()) == dict(
        real_health_pb2.HealthCheckResponse.ServingStatus.items()
    )


def fill(message: Message, source: random.Random) -> None:
    """Set every field to something."""
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            entries, value = getattr(message, field.name), field.message_type.fields_by_name["value"]
            key = scalar(field.message_type.fields_by_name["key"], source)
            if value.message_type is None:
                entries[key] = scalar(value, source)
            else:
                fill(entries[key], source)
        elif field.is_repeated:
            values = getattr(message, field.name)
            for _ in range(2):
                if field.message_type is None:
                    values.append(scalar(field, source))
                else:
                    fill(values.add(), source)
        elif field.message_type is None:
            setattr(message, field.name, scalar(field, source))
        else:
            fill(getattr(message, field.name), source)


def scalar(field: FieldDescriptor, source: random.Random) -> object:
    if field.type == FieldDescriptor.TYPE_STRING:
        return f"é{source.randint(0, 99)}"
    if field.type == BYTES:
        return source.randbytes(5)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return True
    if field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return source.randint(1, 9) / 4
    return source.randint(1, 2**31 - 1)


@pytest.mark.parametrize("name", MESSAGES)
def test_a_messages_bytes_are_the_same_in_both(name: str) -> None:
    source = random.Random(name)
    real = getattr(service_pb2, name)()
    fill(real, source)
    data = real.SerializeToString(deterministic=True)
    ours = getattr(grpc_service_pb2, name).FromString(data)
    assert ours.SerializeToString(deterministic=True) == data
    again = getattr(service_pb2, name).FromString(ours.SerializeToString())
    assert again == real


DURATION = {"count": 3, "ns": 2**63}
INFER_STATISTICS = [field.name for field in service_pb2.InferStatistics.DESCRIPTOR.fields]
RESPONSE_STATISTICS = [field.name for field in service_pb2.InferResponseStatistics.DESCRIPTOR.fields]
STATISTICS = {
    "model_stats": [
        {
            "name": "m",
            "version": "1",
            "last_inference": 1795181206067,
            "inference_count": 18,
            "execution_count": 17,
            "inference_stats": dict.fromkeys(INFER_STATISTICS, DURATION),
            "response_stats": {"0": dict.fromkeys(RESPONSE_STATISTICS, DURATION)},
            "batch_stats": [
                {"batch_size": 4, "compute_input": DURATION, "compute_infer": DURATION, "compute_output": DURATION}
            ],
            "memory_usage": [{"type": "CPU", "id": 0, "byte_size": 100}],
        },
        {"name": "n", "version": "2", "inference_stats": {"fail": {"count": 0, "ns": 0}}, "batch_stats": []},
    ]
}


def test_statistics_have_the_shape_of_the_rest_api() -> None:
    message = service_pb2.ModelStatisticsResponse.FromString(
        grpc_messages.encode_response("ModelStatistics", STATISTICS)
    )
    first, second = message.model_stats
    assert (first.name, first.version, first.last_inference) == ("m", "1", 1795181206067)
    for name in INFER_STATISTICS:
        assert getattr(first.inference_stats, name) == service_pb2.StatisticDuration(**DURATION)
    assert first.response_stats["0"].empty_response.ns == 2**63
    assert first.batch_stats[0].batch_size == 4
    assert first.memory_usage[0].type == "CPU"
    # A duration of zero is there, as the real server sends it.
    assert second.inference_stats.HasField("fail")
    assert not second.inference_stats.HasField("success")


def test_rule_51_metadata() -> None:
    metadata = {
        "name": "m",
        "versions": ["1", "3"],
        "platform": "python",
        "inputs": [{"name": "a", "datatype": "BYTES", "shape": [-1, 2]}],
        "outputs": [{"name": "b", "datatype": "FP32", "shape": []}],
    }
    message = service_pb2.ModelMetadataResponse.FromString(grpc_messages.encode_response("ModelMetadata", metadata))
    assert message == service_pb2.ModelMetadataResponse(**metadata)
    server = {"name": "triton", "version": "1.0", "extensions": ["statistics", "parameters"]}
    message = service_pb2.ServerMetadataResponse.FromString(grpc_messages.encode_response("ServerMetadata", server))
    assert message == service_pb2.ServerMetadataResponse(**server)


@pytest.mark.parametrize(
    ("method", "field"), [("ServerLive", "live"), ("ServerReady", "ready"), ("ModelReady", "ready")]
)
@pytest.mark.parametrize("value", [True, False])
def test_rule_52_yes_and_no(method: str, field: str, value: bool) -> None:
    data = grpc_messages.encode_response(method, {field: value})
    assert getattr(getattr(service_pb2, f"{method}Response").FromString(data), field) is value


def test_a_field_that_the_message_does_not_have_is_noticed() -> None:
    with pytest.raises(KeyError):
        grpc_messages.encode_response("ServerLive", {"alive": True})


@pytest.mark.parametrize("method", ["ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_requests_about_a_model(method: str, kind: type) -> None:
    data = getattr(service_pb2, f"{method}Request")(name="m", version="2").SerializeToString()
    assert grpc_messages.decode_request(method, kind(data)) == {"name": "m", "version": "2"}
    assert grpc_messages.decode_request(method, b"") == {"name": "", "version": ""}


def test_requests_without_fields() -> None:
    assert grpc_messages.decode_request("ServerMetadata", b"") == {}


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x05ab", b"\x0a\x01\xff"])
def test_malformed_requests_have_grpcs_own_answer(data: bytes) -> None:
    with pytest.raises(InternalError, match=r"^Unable to parse request$"):
        grpc_messages.decode_request("ModelReady", data)
    with pytest.raises(InternalError, match=r"^Unable to parse request$"):
        grpc_messages.decode_health_request(data)


def test_a_configuration_is_spliced_in() -> None:
    config = model_config_pb2.ModelConfig(name="m" * 300, max_batch_size=8)
    data = grpc_messages.encode_model_config(config.SerializeToString())
    assert service_pb2.ModelConfigResponse.FromString(data).config == config
    assert service_pb2.ModelConfigResponse.FromString(grpc_messages.encode_model_config(b"")).HasField("config")


@pytest.mark.parametrize(("ready", "status"), [(True, "SERVING"), (False, "NOT_SERVING")])
def test_rule_25_health_is_readiness(ready: bool, status: str) -> None:
    message = real_health_pb2.HealthCheckResponse.FromString(grpc_messages.encode_health(ready=ready))
    assert real_health_pb2.HealthCheckResponse.ServingStatus.Name(message.status) == status
    asked = real_health_pb2.HealthCheckRequest(service="anything").SerializeToString()
    assert grpc_messages.decode_health_request(asked) == "anything"


def test_paths_are_tritons() -> None:
    service = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert f"/{service.full_name}/" == grpc_messages.SERVICE
    health = real_health_pb2.DESCRIPTOR.services_by_name["Health"]
    assert f"/{health.full_name}/Check" == grpc_messages.HEALTH_CHECK
