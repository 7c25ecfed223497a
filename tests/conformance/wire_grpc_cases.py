"""gRPC calls, good and bad, that the real Triton and Shoal are both sent."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from tritonclient.grpc import service_pb2
from wire_http_cases import BROKEN, WELL

SERVICE = "/inference.GRPCInferenceService/"
HEALTH = "/grpc.health.v1.Health/"


@dataclass(frozen=True)
class GrpcCase:
    """One call: a unary one has one message, a stream any number."""

    name: str
    path: str
    messages: tuple[bytes, ...]
    metadata: tuple[tuple[str, str], ...] = ()
    server: str = WELL


def call(method: str, request: Message, name: str = "", server: str = WELL) -> GrpcCase:
    """A unary call of the service."""
    fields = ", ".join(f"{field.name}={value!r}" for field, value in request.ListFields())
    shown = name or f"{method}({fields})" + (f" ({server})" if server != WELL else "")
    return GrpcCase(shown, SERVICE + method, (request.SerializeToString(),), server=server)


def infer(name: str, model: str, *inputs: Message, raw: Sequence[bytes] = (), **more: object) -> GrpcCase:
    """A ModelInfer call."""
    return call("ModelInfer", message(model, *inputs, raw=raw, **more), name)


def message(model: str, *inputs: Message, raw: Sequence[bytes] = (), **more: object) -> Message:
    """A request."""
    return service_pb2.ModelInferRequest(model_name=model, inputs=inputs, raw_input_contents=raw, **more)


def tensor(name: str, datatype: str, *shape: int, **contents: list[object]) -> Message:
    """An input."""
    made = service_pb2.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
    for kind, values in contents.items():
        getattr(made.contents, kind).extend(values)
    return made


def output(name: str, **parameters: int | str | bool) -> Message:
    """A requested output."""
    made = service_pb2.ModelInferRequest.InferRequestedOutputTensor(name=name)
    for key, value in parameters.items():
        set_parameter(made.parameters[key], value)
    return made


def set_parameter(parameter: Message, value: bool | int | float | str) -> None:
    """Set the member of the one-of that suits the value."""
    kinds = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
    setattr(parameter, kinds[type(value)], value)


ROW = struct.pack("<16i", *range(16))
TWO = struct.pack("<2f", 1, 2)
A, B = tensor("A", "INT32", 1, 16), tensor("B", "INT32", 1, 16)
SMALL = tensor("A", "FP32", 2)
SCORES = tensor("A", "FP32", 1, 4)
FOUR = struct.pack("<4f", 0.25, -1.5, 8, 3)


def server_cases() -> Iterator[GrpcCase]:
    """Health, metadata, configuration and statistics."""
    for server in (WELL, BROKEN):
        yield call("ServerLive", service_pb2.ServerLiveRequest(), server=server)
        yield call("ServerReady", service_pb2.ServerReadyRequest(), server=server)
        check = health_pb2.HealthCheckRequest(service="x").SerializeToString()
        yield GrpcCase(f"Health/Check ({server})", HEALTH + "Check", (check,), server=server)
    yield call("ServerMetadata", service_pb2.ServerMetadataRequest())
    yield GrpcCase("Health/Watch", HEALTH + "Watch", (b"",))
    yield GrpcCase("an unknown method", SERVICE + "Nothing", (b"",))
    yield GrpcCase("an unknown service", "/a.B/C", (b"",))
    models = (
        ("add_sub", ""),
        ("versions", ""),
        ("versions", "1"),
        ("versions", "2"),
        ("versions", "9"),
        ("absent", ""),
    )
    for kind in ("ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"):
        request = getattr(service_pb2, f"{kind}Request")
        for name, version in (*models, ("add_sub", "x"), ("add_sub", "-1"), ("", "")):
            if kind != "ModelStatistics" or name == "absent" or version in {"2", "9", "x", "-1"}:
                yield call(kind, request(name=name, version=version))
        for version in ("", "1", "2"):
            yield call(kind, request(name="broken", version=version), server=BROKEN)
        yield GrpcCase(f"{kind}, no message at all", SERVICE + kind, (b"\xff",))
    yield call("ModelStatistics", service_pb2.ModelStatisticsRequest(name="unused"))


def infer_cases() -> Iterator[GrpcCase]:
    """ModelInfer."""
    yield infer("raw", "add_sub", A, B, raw=(ROW, ROW))
    yield infer("raw, id and version", "add_sub", A, B, raw=(ROW, ROW), id="seven", model_version="1")
    typed = [tensor(name, "INT32", 1, 16, int_contents=range(16)) for name in "AB"]
    yield infer("typed", "add_sub", *typed)
    yield infer("typed and raw", "add_sub", typed[0], B, raw=(ROW,))
    yield infer("one output", "add_sub", A, B, raw=(ROW, ROW), outputs=[output("DIFFERENCE")])
    yield infer("outputs in the other order", "add_sub", *typed, outputs=[output("DIFFERENCE"), output("SUM")])
    yield infer("unknown output", "add_sub", *typed, outputs=[output("PRODUCT")])
    yield infer("an output twice", "add_sub", *typed, outputs=[output("SUM")] * 2)
    yield infer("missing input", "add_sub", A, raw=(ROW,))
    yield infer("missing raw", "add_sub", A, B, raw=(ROW,))
    yield infer("surplus raw", "add_sub", A, B, raw=(ROW, ROW, ROW))
    yield infer("wrong raw size", "add_sub", A, B, raw=(ROW, ROW[:-4]))
    yield infer("typed, too few", "add_sub", A, tensor("B", "INT32", 1, 16, int_contents=[1]))
    yield infer("wrong type", "add_sub", tensor("A", "FP32", 1, 16), B, raw=(ROW, ROW))
    yield infer("unknown type", "add_sub", tensor("A", "FLOAT", 1, 16), B, raw=(ROW, ROW))
    yield infer("wrong shape", "add_sub", tensor("A", "INT32", 16), B, raw=(ROW, ROW), id="s")
    yield infer("negative dimension", "add_sub", tensor("A", "INT32", -1, 16), B, raw=(ROW, ROW))
    yield infer("too many rows", "scores", tensor("A", "FP32", 9, 4), raw=(FOUR * 9,))
    yield infer("unknown input", "scores", tensor("C", "FP32", 1, 4), raw=(FOUR,))
    yield infer("an input twice", "scores", SCORES, SCORES, raw=(FOUR, FOUR))
    yield infer("unknown model", "absent", SMALL, raw=(TWO,))
    yield infer("no model", "", SMALL, raw=(TWO,))
    for version in ("1", "2", "3", "9", "x", "-1"):
        yield infer(f"version {version}", "versions", tensor("A", "FP32", 1, 2), raw=(TWO,), model_version=version)
    yield infer("unbatched", "whole", SMALL, raw=(TWO,))
    yield infer("no elements", "whole", tensor("A", "FP32", 0), raw=(b"",))
    yield infer("reshaped", "reshaped", tensor("A", "FP32", 2, 1), raw=(TWO,))
    yield infer("BYTES", "types", tensor("STRING", "BYTES", 1, 2, bytes_contents=[b"\xff\0", b""]))
    yield infer("BYTES, raw", "types", tensor("STRING", "BYTES", 1, 1), raw=(b"\2\0\0\0ab",))
    yield infer("BYTES, raw, cut off", "types", tensor("STRING", "BYTES", 1, 1), raw=(b"\3\0\0\0ab",))
    for datatype, kind, values in (
        ("BOOL", "bool_contents", [True, False]),
        ("UINT8", "uint_contents", [0, 255]),
        ("INT8", "int_contents", [-128, 300]),
        ("INT64", "int64_contents", [-(2**63), 1]),
        ("UINT64", "uint64_contents", [2**64 - 1, 1]),
        ("FP64", "fp64_contents", [0.1, 1e300]),
    ):
        yield infer(f"{datatype}, typed", "types", tensor(datatype, datatype, 1, 2, **{kind: values}))
    yield infer("FP16, raw", "types", tensor("FP16", "FP16", 1, 2), raw=(b"\0\x3c\0\x3d",))
    yield infer("classes", "scores", SCORES, raw=(FOUR,), outputs=[output("A_OUT", classification=2)])
    yield infer("classes, none", "scores", SCORES, raw=(FOUR,), outputs=[output("A_OUT", classification=0)])
    for code in (-1, 0, 1, 2, 3, 4, 5, 6, 20, 21, 22, 23, 24, 25):
        coded = tensor("A", "INT32", 1, 1, int_contents=[code])
        yield infer(f"the model answers {code}", "answers", coded, id="x")
    yield parameters("parameters", colour="red", number=7, truth=True, half=0.5, priority=3, timeout=1000)
    yield parameters("a reserved parameter", triton_x=1)
    yield parameters("a timeout that is a text", timeout="soon")
    yield GrpcCase("no message at all", SERVICE + "ModelInfer", (b"\xff",))
    yield GrpcCase("an empty message", SERVICE + "ModelInfer", (b"",))


def parameters(name: str, **given: bool | int | float | str) -> GrpcCase:
    """A request with parameters, for the model that tells what it has seen."""
    request = message("seen", tensor("A", "FP32", 1, 1, fp32_contents=[1]), id="p")
    for key, value in given.items():
        set_parameter(request.parameters[key], value)
    return call("ModelInfer", request, name)


def stream(name: str, *messages: Message, **metadata: str) -> GrpcCase:
    """A ModelStreamInfer call."""
    sent = tuple(each.SerializeToString() for each in messages)
    return GrpcCase(name, SERVICE + "ModelStreamInfer", sent, tuple(metadata.items()))


def stream_cases() -> Iterator[GrpcCase]:
    """ModelStreamInfer (rules 23 and 24)."""
    good = message("whole", SMALL, raw=(TWO,), id="good")
    wrong = message("whole", tensor("A", "FP32", 3), raw=(TWO,), id="wrong")
    unknown = message("absent", SMALL, raw=(TWO,), id="unknown")
    malformed = message("whole", tensor("A", "FP32", 2, fp32_contents=[1]), raw=(TWO,), id="malformed")
    raising = message("answers", tensor("A", "INT32", 1, 1, int_contents=[-1]), id="raising")
    asking = message("whole", SMALL, raw=(TWO,), id="asking")
    asking.parameters["triton_enable_empty_final_response"].bool_param = True
    yield stream("stream of nothing")
    yield stream("stream of one", good)
    yield stream("stream of many", good, good, asking, good)
    for name, bad in (("wrong", wrong), ("unknown", unknown), ("malformed", malformed), ("raising", raising)):
        yield stream(f"stream with an error: {name}", good, bad, good)
        # Alone: what came before it, Triton sends or not, as time has it.
        yield stream(f"stream that ends with its error: {name}", bad, triton_grpc_error="true")


CASES = (*server_cases(), *infer_cases(), *stream_cases())
