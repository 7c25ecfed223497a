"""All gRPC messages but those of inference, from and to dicts in the shape of the REST API's JSON.

A method is named as in the service, such as ``ModelReady``; its messages are ``ModelReadyRequest`` and
``ModelReadyResponse``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.message import DecodeError, Message

from shoal.protocols import grpc_service_pb2, health_pb2, wire
from shoal.requests import Buffer

SERVICE = "/inference.GRPCInferenceService/"
"""What the path of every method of the service begins with."""

HEALTH_CHECK = "/grpc.health.v1.Health/Check"


def decode_request(method: str, message: Buffer) -> dict[str, Any]:
    """A request's scalar fields by name, the absent ones with their defaults.

    The ``version`` of a model stays a string; see ``grpc_infer.parse_version``.

    Args:
        method: such as ``ModelReady``.
        message: the serialized request.

    Raises:
        InternalError: the message is no valid protobuf.
    """
    request = parse(getattr(grpc_service_pb2, f"{method}Request"), message)
    return {field.name: getattr(request, field.name) for field in request.DESCRIPTOR.fields}


def encode_response(method: str, response: Mapping[str, Any]) -> bytes:
    """A response from a dict in the shape of the REST API's JSON.

    Args:
        method: such as ``ModelStatistics``.
        response: such as ``{"model_stats": [...]}``.
    """
    message = getattr(grpc_service_pb2, f"{method}Response")()
    _fill(message, response)
    return message.SerializeToString()  # type: ignore[no-any-return]


def encode_model_config(config: bytes) -> bytes:
    """A ``ModelConfigResponse`` around a serialized ``ModelConfig``."""
    return wire.field(1, config)


def decode_health_request(message: Buffer) -> str:
    """The service that a ``grpc.health.v1`` check asks for; Triton ignores it (rule 25).

    Raises:
        InternalError: the message is no valid protobuf.
    """
    return parse(health_pb2.HealthCheckRequest, message).service  # type: ignore[attr-defined, no-any-return]


def encode_health(*, ready: bool) -> bytes:
    """A ``grpc.health.v1`` answer: SERVING when the server is ready (rule 25)."""
    statuses = health_pb2.HealthCheckResponse
    status = statuses.SERVING if ready else statuses.NOT_SERVING
    return statuses(status=status).SerializeToString()  # type: ignore[no-any-return]


def parse(kind: type[Message], message: Buffer) -> Message:
    """Parse a message of this kind.

    Raises:
        InternalError: it is no valid protobuf.
    """
    try:
        return kind.FromString(bytes(message))
    except DecodeError:
        raise wire.malformed() from None


def _fill(message: Any, values: Mapping[str, Any]) -> None:
    """Set a message's fields from a dict; an empty submessage is set too, as Triton does."""
    fields = message.DESCRIPTOR.fields_by_name
    for name, value in values.items():
        field = fields[name]
        target = getattr(message, name)
        if field.message_type is None:
            if isinstance(value, list | tuple):
                target.extend(value)
            else:
                setattr(message, name, value)
        elif field.message_type.GetOptions().map_entry:
            for key, item in value.items():
                _fill(target[key], item)
        elif isinstance(value, list | tuple):
            for item in value:
                _fill(target.add(), item)
        else:
            target.SetInParent()
            _fill(target, value)
