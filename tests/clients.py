"""Plain clients: requests as bytes over http.client, messages over grpcio."""

from __future__ import annotations

import http.client
import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import grpc
from tritonclient.grpc import service_pb2

TIMEOUT_S = 20
SERVICE = "/inference.GRPCInferenceService/"
HEADER_LENGTH = "Inference-Header-Content-Length"


class Reply(NamedTuple):
    """An HTTP response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, or the part of it that is JSON."""
        length = self.headers.get(HEADER_LENGTH.lower())
        return json.loads(self.body if length is None else self.body[: int(length)])

    @property
    def binary(self) -> bytes:
        """What comes behind the JSON."""
        return self.body[int(self.headers[HEADER_LENGTH.lower()]) :]

    @property
    def error(self) -> str:
        """The message of an error."""
        return str(self.json["error"])


class HttpConnection:
    """A connection that is kept open from request to request; a context manager."""

    def __init__(self, address: str) -> None:
        self.connection = http.client.HTTPConnection(address, timeout=TIMEOUT_S)

    def __enter__(self) -> HttpConnection:
        self.connection.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def ask(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Reply:
        """Send one request and read its answer."""
        self.connection.request(method, path, body, headers or {})
        return self.answer()

    def answer(self) -> Reply:
        """Read the answer of a request that was sent."""
        response = self.connection.getresponse()
        return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())


def ask(
    address: str, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> Reply:
    """Send one request on a connection of its own."""
    with HttpConnection(address) as connection:
        return connection.ask(method, path, body, headers)


def get(address: str, path: str) -> Reply:
    """A GET on a connection of its own."""
    return ask(address, "GET", path)


def tensor(name: str, shape: list[int], data: object = None, datatype: str = "FP32", **parameters: object) -> dict:
    """One input in JSON; without ``data`` its parameters say where the data is."""
    given: dict = {"name": name, "shape": shape, "datatype": datatype}
    if data is not None:
        given["data"] = data
    return given | ({"parameters": parameters} if parameters else {})


def body_of(*inputs: dict, tail: bytes | None = None, **more: object) -> tuple[bytes, dict[str, str]]:
    """The body and headers of an infer request, with ``tail`` behind its JSON."""
    text = json.dumps({"inputs": list(inputs), **more}).encode()
    return text + (tail or b""), {} if tail is None else {HEADER_LENGTH: str(len(text))}


def row(*values: float) -> dict:
    """The input IN with one row."""
    return tensor("IN", [1, len(values)], list(values))


def infer(
    address: str,
    model: str,
    *inputs: dict,
    headers: dict[str, str] | None = None,
    tail: bytes | None = None,
    **more: object,
) -> Reply:
    """An infer request on a connection of its own."""
    body, own = body_of(*inputs, tail=tail, **more)
    return ask(address, "POST", f"/v2/models/{model}/infer", body, own | (headers or {}))


# --- gRPC -----------------------------------------------------------------------------------------------------------


@contextmanager
def channel_to(address: str) -> Iterator[grpc.Channel]:
    """A channel of its own, not one that grpcio shares with others to the same address."""
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield channel


def unary(channel: grpc.Channel, method: str) -> grpc.UnaryUnaryMultiCallable:
    """A method of the v2 service, messages as objects."""
    answer = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name[method].output_type
    return channel.unary_unary(
        SERVICE + method,
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=getattr(service_pb2, answer.name).FromString,
    )


def grpc_input(name: str, *shape: int, datatype: str = "FP32", **contents: Any) -> Any:
    """One input; its data comes raw unless ``contents`` has it."""
    made = service_pb2.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
    for kind, values in contents.items():
        getattr(made.contents, kind).extend(values)
    return made


def grpc_request(model: str, *inputs: Any, raw: tuple[bytes, ...] = (), **more: Any) -> Any:
    """A ModelInferRequest."""
    return service_pb2.ModelInferRequest(model_name=model, inputs=inputs, raw_input_contents=raw, **more)


def grpc_row(model: str, *values: float, **more: Any) -> Any:
    """A ModelInferRequest with one row in the input IN."""
    raw = struct.pack(f"<{len(values)}f", *values)
    return grpc_request(model, grpc_input("IN", 1, len(values)), raw=(raw,), **more)


def grpc_ready(channel: grpc.Channel) -> bool:
    """What ServerReady says."""
    return bool(unary(channel, "ServerReady")(service_pb2.ServerReadyRequest(), timeout=TIMEOUT_S).ready)
