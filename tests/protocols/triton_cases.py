"""Requests whose answers were recorded from the real Triton: each fails, or not, where bytes become requests.

The model is ``m``: one FP32 input ``INPUT0`` and one FP32 output ``OUTPUT0``, both of shape ``[-1]``, without batching.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import NamedTuple

from tritonclient.grpc.service_pb2 import ModelInferRequest

MODEL = "m"
TWO = struct.pack("<2f", 1, 2)


class RestCase(NamedTuple):
    """One REST request: the rule of the framing that it is about, a name, headers and body."""

    rule: int
    name: str
    body: bytes
    headers: dict[str, str]


class GrpcCase(NamedTuple):
    """One gRPC request: the rule that it is about, a name and the message."""

    rule: int
    name: str
    message: bytes


def _tensor(**fields: object) -> dict[str, object]:
    return {"name": "INPUT0", "datatype": "FP32", "shape": [2], **fields}


def _json(**fields: object) -> dict[str, object]:
    return {"inputs": [_tensor(data=[1, 2])], **fields}


def _input(**fields: object) -> dict[str, object]:
    return {"inputs": [_tensor(**fields)]}


def _data(datatype: str, *values: object) -> dict[str, object]:
    return _input(datatype=datatype, shape=[len(values)], data=list(values))


def _output(**parameters: object) -> dict[str, object]:
    return _json(outputs=[{"name": "OUTPUT0", "parameters": parameters}])


def _shared(**parameters: object) -> dict[str, object]:
    return _input(parameters={"shared_memory_region": "r", **parameters})


BINARY = _input(parameters={"binary_data_size": 8})

_REST: list[tuple[int, str, object]] = [
    (3, "no bytes for a binary input", BINARY),
    (3, "a huge binary input", _input(parameters={"binary_data_size": 2**64 - 1})),
    (4, "no source", _input()),
    (4, "data and binary", _input(data=[1, 2], parameters={"binary_data_size": 8})),
    (4, "data and shared memory", _input(data=[1, 2], parameters={"shared_memory_region": "r"})),
    (4, "all sources", _input(data=[1, 2], parameters={"shared_memory_region": "r", "binary_data_size": 8})),
    (4, "an input that is no object", {"inputs": [5]}),
    (5, "binary_data as a number", _output(binary_data=1)),
    (5, "binary_data_output as a number", _json(parameters={"binary_data_output": 1})),
    (7, "nested data", _input(data=[[[1]], [2]])),
    (7, "too few elements", _input(data=[1])),
    (7, "too many elements", _input(data=[1, 2, 3])),
    (7, "no elements", _input(data=[])),
    (7, "a wrong element behind too many", _input(data=[1, 2, "x"])),
    (7, "too many elements behind a wrong one", _input(data=["x", 1, 2])),
    (7, "data of no elements is not looked at", _input(shape=[0], data="x")),
    (8, "a BYTES element that is no string", _data("BYTES", "a", 1)),
    (8, "a BYTES element that is a list of lists", _data("BYTES", ["a", [1]])),
    (9, "BOOL as numbers", _data("BOOL", 1, 0)),
    (10, "FP16 as JSON", _data("FP16", 1, 0)),
    (10, "BF16 as JSON", _data("BF16", 1, 0)),
    (12, "data that is null", _input(data=None)),
    (12, "data that is a number", _input(data=1)),
    (12, "data of strings", _input(data=["1", "2"])),
    (12, "data of null", _input(data=[None, 1])),
    (12, "data of true", _input(data=[True, 1])),
    (12, "data of objects", _input(data=[{}, 1])),
    (12, "an INT32 as 1.0", _data("INT32", 1.0)),
    (12, "an INT32 as true", _data("INT32", True)),
    (12, "an INT32 as a string", _data("INT32", "1")),
    (12, "an INT32 beyond 64 bits", _data("INT32", 2**63)),
    (12, "a UINT8 below zero", _data("UINT8", -1)),
    (12, "a UINT64 beyond 64 bits", _data("UINT64", 2**64)),
    (12, "an unknown datatype", _data("FP99", 1)),
    (12, "a datatype in lower case", _data("fp32", 1)),
    (12, "a datatype of the configuration", _data("STRING", "1")),
    (12, "no inputs", {}),
    (12, "inputs that are no array", {"inputs": 5}),
    (12, "a request that is an array", []),
    (12, "a request that is null", None),
    (12, "no name", {"inputs": [{"datatype": "FP32", "shape": [2], "data": [1, 2]}]}),
    (12, "a name that is a number", _input(name=4, data=[1, 2])),
    (12, "no datatype", {"inputs": [{"name": "INPUT0", "shape": [2], "data": [1, 2]}]}),
    (12, "no shape", {"inputs": [{"name": "INPUT0", "datatype": "FP32", "data": [1, 2]}]}),
    (12, "a shape that is a number", _input(shape=2, data=[1, 2])),
    (12, "a negative dimension", _input(shape=[-1], data=[1, 2])),
    (12, "a dimension of 2.0", _input(shape=[2.0], data=[1, 2])),
    (12, "a dimension that is a string", _input(shape=["2"], data=[1, 2])),
    (12, "a negative binary size", _input(parameters={"binary_data_size": -1})),
    (12, "a binary size that is a string", _input(parameters={"binary_data_size": "8"})),
    (12, "input parameters that are no object", _input(data=[1, 2], parameters=5)),
    (12, "output parameters that are no object", _json(outputs=[{"name": "OUTPUT0", "parameters": 5}])),
    (12, "unknown members", _json(foo=1)),
    (12, "outputs that are no array", _json(outputs=5)),
    (12, "an output that is no object", _json(outputs=[5])),
    (12, "an output without a name", _json(outputs=[{}])),
    (12, "an output name that is a number", _json(outputs=[{"name": 5}])),
    (12, "negative classification", _output(classification=-1)),
    (12, "classification as a string", _output(classification="1")),
    (13, "an id that is a number", _json(id=5)),
    (15, "an input twice", {"inputs": [_tensor(data=[1, 2])] * 2}),
    (15, "an input twice, with an id", {"id": "x", "inputs": [_tensor(data=[1, 2])] * 2}),
    (21, "a reserved parameter", _json(parameters={"triton_foo": 1})),
    (21, "an empty final response over HTTP", _json(parameters={"triton_enable_empty_final_response": True})),
    (21, "parameters that are no object", _json(parameters=5)),
    (21, "parameters that are null", _json(parameters=None)),
    (21, "a custom parameter that is null", _json(parameters={"a": None})),
    (21, "a custom parameter that is an array", _json(parameters={"a": [1]})),
    (21, "custom parameters", _json(parameters={"a": 1, "b": True, "c": "x", "d": 1.5, "e": 2**70})),
    (21, "sequence_id below zero", _json(parameters={"sequence_id": -1})),
    (21, "sequence_id as a float", _json(parameters={"sequence_id": 1.5})),
    (21, "sequence_id as true", _json(parameters={"sequence_id": True})),
    (21, "sequence_start as a number", _json(parameters={"sequence_start": 1})),
    (21, "sequence_end as a string", _json(parameters={"sequence_end": "true"})),
    (21, "priority below zero", _json(parameters={"priority": -1})),
    (21, "priority as a string", _json(parameters={"priority": "1"})),
    (21, "timeout below zero", _json(parameters={"timeout": -1})),
    (58, "shared memory and classes", _output(shared_memory_region="r", classification=1)),
    (58, "shared memory and binary", _output(shared_memory_region="r", binary_data=True)),
    (58, "shared memory and binary as a number", _output(shared_memory_region="r", binary_data=1)),
    (58, "a region that is a number", _shared(shared_memory_region=5)),
    (58, "an offset that is a string", _shared(shared_memory_offset="x")),
    (58, "a size that is a string", _shared(shared_memory_byte_size="x")),
    (58, "an output offset that is a string", _output(shared_memory_offset="x")),
]

_TEXTS: list[tuple[int, bytes]] = [
    (11, b'{"inputs":[{"name":"INPUT0","datatype":"FP32","shape":[4],"data":[NaN,Infinity,-Infinity,-Inf]}]}'),
    (11, b'{"inputs":[{"name":"INPUT0","datatype":"FP32","shape":[1],"data":[nan]}]}'),
    (11, b'{"inputs":[{"name":"INPUT0","datatype":"INT32","shape":[1],"data":[NaN]}]}'),
    (12, b'{"inputs":'),
    (12, b"{} x"),
    (12, b"   "),
    (12, b"\x00{}"),
    (12, b"{}\x00"),
    (12, b"\xef\xbb\xbf{}"),
    (12, b'{"inputs":[],}'),
    (12, b'{"inputs":[01]}'),
    (12, b'{"a":[1,]}'),
    (12, b'{"a":"\\x"}'),
    (12, b'{"a":"\\u12"}'),
    (12, b'{"a":"\\ud800"}'),
    (12, b'{"a":"\\ud800\\u0041"}'),
    (12, b'{"a":"b\nc"}'),
    (12, b'{"a":"x'),
    (12, b'{"a":tru}'),
    (12, b'{"a":-}'),
    (12, b'{"a":Infini}'),
    (12, b'{"a" 1}'),
    (12, b'{"a":1 "b":2}'),
    (12, b"[1 2]"),
    (12, b"{1:2}"),
    (12, b'{"a":1e}'),
    (12, b'{"a":1.}'),
    (12, b'{"a":1e400}'),
    (12, b'{/*x*/"a":1}'),
]


def rest_cases() -> Iterator[RestCase]:
    """Every REST case."""
    for rule, name, request in _REST:
        yield RestCase(rule, name, json.dumps(request).encode(), {})
    for rule, text in _TEXTS:
        yield RestCase(rule, repr(text), text, {})
    header = json.dumps(BINARY).encode()
    length = "Inference-Header-Content-Length"
    for value in ("-1", "99999999", "9999999999999999999999"):
        yield RestCase(1, f"header length {value}", header + TWO, {length: value})
    yield RestCase(1, "header length 5", header + TWO, {length: "5"})
    yield RestCase(2, "a raw binary request", TWO, {length: "0"})
    for nbytes in (8, 5, 9):
        body = header + bytes(nbytes)
        yield RestCase(3, f"{nbytes} bytes for 8", body, {length: str(len(header))})
    text = json.dumps(_json()).encode()
    yield RestCase(3, "bytes behind JSON data", text + b"zz", {length: str(len(text))})
    yield RestCase(16, "an unknown encoding", text, {"Content-Encoding": "br"})
    yield RestCase(16, "an encoding in capitals", text, {"Content-Encoding": "GZIP"})
    yield RestCase(16, "no encoding by name", text, {"Content-Encoding": "identity"})
    yield RestCase(16, "nothing that is compressed", b"", {"Content-Encoding": "gzip"})


def _message(raws: tuple[bytes, ...] = (TWO,), datatype: str = "FP32", **contents: list[object]) -> ModelInferRequest:
    message = ModelInferRequest(model_name=MODEL, raw_input_contents=raws)
    tensor = message.inputs.add(name="INPUT0", datatype=datatype, shape=[2])
    for name, values in contents.items():
        getattr(tensor.contents, name).extend(values)
    return message


def _with_parameter(name: str, kind: str | None, value: object = None) -> ModelInferRequest:
    message = _message()
    if kind is None:
        message.parameters[name].SetInParent()
    else:
        setattr(message.parameters[name], kind, value)
    return message


def _tensor_with(where: str, *parameters: tuple[str, str, object]) -> ModelInferRequest:
    message = _message(() if where == "inputs" else (TWO,))
    tensor = message.inputs[0] if where == "inputs" else message.outputs.add(name="OUTPUT0")
    for name, kind, value in parameters:
        setattr(tensor.parameters[name], kind, value)
    return message


_REGION = ("shared_memory_region", "string_param", "r")
_NBYTES = ("shared_memory_byte_size", "int64_param", 8)

_PARAMETERS: list[tuple[str, str | None, object]] = [
    ("sequence_id", "uint64_param", 5),
    ("sequence_id", "double_param", 5),
    ("sequence_id", "bool_param", True),
    ("sequence_id", None, None),
    ("sequence_start", "int64_param", 1),
    ("sequence_end", "string_param", "x"),
    ("priority", "int64_param", -1),
    ("priority", "int64_param", 1),
    ("priority", "uint64_param", 1),
    ("priority", "string_param", "1"),
    ("priority", "double_param", 1),
    ("timeout", "int64_param", -1),
    ("timeout", "uint64_param", 1),
    ("timeout", "string_param", "1"),
    ("triton_foo", "int64_param", 1),
    ("triton_enable_empty_final_response", "bool_param", True),
    ("triton_enable_empty_final_response", "string_param", "x"),
    ("custom", "bool_param", False),
    ("custom", "int64_param", -1),
    ("custom", "string_param", "s"),
    ("custom", "double_param", 1.5),
    ("custom", "uint64_param", 1),
    ("custom", None, None),
    ("binary_data_output", "bool_param", True),
]

_CONTENTS: list[tuple[str, dict[str, list[object]]]] = [
    ("FP32", {"fp32_contents": [1, 2]}),
    ("FP32", {"fp64_contents": [1, 2]}),
    ("FP32", {"int_contents": [1, 2]}),
    ("FP32", {"uint_contents": [1, 2]}),
    ("FP32", {"bool_contents": [True]}),
    ("FP32", {"int64_contents": [1]}),
    ("FP32", {"uint64_contents": [1]}),
    ("FP32", {"bytes_contents": [b"x"]}),
    ("FP32", {"fp32_contents": [1, 2], "fp64_contents": [1, 2]}),
    ("FP64", {"fp32_contents": [1, 2], "fp64_contents": [1, 2]}),
    ("FP16", {"fp32_contents": [1, 2]}),
    ("BF16", {"fp32_contents": [1, 2]}),
    ("FPX", {"fp32_contents": [1, 2]}),
    ("INT64", {"int_contents": [1, 2]}),
    ("UINT64", {"uint_contents": [1, 2]}),
    ("INT8", {"uint_contents": [1, 2]}),
]


def grpc_cases() -> Iterator[GrpcCase]:
    """Every gRPC case."""
    for rule, name, message in _grpc_messages():
        yield GrpcCase(rule, name, message.SerializeToString())
    for data in (b"\xff", b"\x0a\x05ab", b"\x0a\x01\xff", b"\x3a" + b"\xff" * 11, b"\x00"):
        yield GrpcCase(17, f"malformed {data!r}", data)


def _grpc_messages() -> Iterator[tuple[int, str, ModelInferRequest]]:
    yield 17, "raw contents", _message()
    yield 17, "no raw contents", _message(())
    yield 17, "surplus raw contents", _message((TWO, b"abc"))
    yield 17, "raw and typed contents", _message(fp32_contents=[1, 2])
    twice = _message((TWO, TWO))
    twice.inputs.append(twice.inputs[0])
    yield 15, "an input twice", twice
    for datatype, contents in _CONTENTS:
        yield 18, f"{datatype} in {' and '.join(contents)}", _message((), datatype, **contents)
    for name, kind, value in _PARAMETERS:
        yield 21 if name.startswith("triton_") else 20, f"{name} as {kind} {value}", _with_parameter(name, kind, value)
    for version in ("", "1", "-1", "abc", "99999999999999999999"):
        message = _message()
        message.model_version = version
        yield 22, f"version {version!r}", message
    yield from _grpc_tensor_parameters()


def _grpc_tensor_parameters() -> Iterator[tuple[int, str, ModelInferRequest]]:
    for kind, value in (("string_param", "1"), ("uint64_param", 1), ("int64_param", 1)):
        yield 20, f"classification as {kind}", _tensor_with("outputs", ("classification", kind, value))
    classes = ("classification", "int64_param", 1)
    yield 20, "shared memory and classes", _tensor_with("outputs", _REGION, _NBYTES, classes)
    yield 20, "a custom output parameter", _tensor_with("outputs", ("custom", "double_param", 8))
    for where in ("inputs", "outputs"):
        region = ("shared_memory_region", "int64_param", 1)
        yield 20, f"{where}: a region without a size", _tensor_with(where, _REGION)
        yield 20, f"{where}: a region that is a number", _tensor_with(where, region)
        for name in ("shared_memory_offset", "shared_memory_byte_size"):
            yield 20, f"{where}: {name} alone", _tensor_with(where, (name, "int64_param", 8))
            text = (name, "string_param", "8")
            yield 20, f"{where}: {name} as a string", _tensor_with(where, _REGION, text)
    both = _tensor_with("inputs", _REGION, _NBYTES)
    both.inputs[0].contents.fp32_contents.append(1)
    yield 20, "shared memory and contents", both
