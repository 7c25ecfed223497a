"""Every rule of shapes and batches, over real sockets and both protocols; rules have the numbers of the reference."""

from __future__ import annotations

import math
import struct
from typing import NamedTuple

import grpc
import pytest
from google.protobuf import json_format
from tritonclient.grpc import service_pb2

from tests.clients import TIMEOUT_S, channel_to, get, grpc_input, grpc_request, infer, tensor, unary

FORMATS = {"FP32": "f", "INT32": "i", "INT64": "q"}


class Input(NamedTuple):
    """One input; its data are so many zeros, or these bytes."""

    name: str
    datatype: str
    shape: list[int]
    data: bytes | None = None

    @property
    def bytes(self):
        size = 4 if self.datatype in FORMATS else 1
        return bytes(math.prod(self.shape) * size) if self.data is None else self.data


class Answer(NamedTuple):
    """Name, shape and values of each output; or the error."""

    outputs: dict
    error: str = ""
    invalid: bool = False


class OverHttp:
    """Requests over HTTP, all data binary."""

    def __init__(self, shoal):
        self._address = shoal.http

    def infer(self, model, *inputs, outputs=(), request_id=""):
        given = [tensor(one.name, one.shape, None, one.datatype, binary_data_size=len(one.bytes)) for one in inputs]
        more = {"outputs": [{"name": name} for name in outputs]} if outputs else {}
        tail = b"".join(one.bytes for one in inputs)
        reply = infer(self._address, model, *given, tail=tail, id=request_id, **more)
        if reply.status != 200:
            return Answer({}, reply.error, reply.status == 400)
        return Answer({one["name"]: (one["shape"], one["data"]) for one in reply.json["outputs"]})

    def model(self, kind, name):
        return get(self._address, f"/v2/models/{name}{'/config' if kind == 'ModelConfig' else ''}").json


class OverGrpc:
    """Requests over gRPC."""

    def __init__(self, channel):
        self._channel = channel

    def infer(self, model, *inputs, outputs=(), request_id=""):
        given = [grpc_input(one.name, *one.shape, datatype=one.datatype) for one in inputs]
        wanted = [service_pb2.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in outputs]
        raw = tuple(one.bytes for one in inputs)
        request = grpc_request(model, *given, raw=raw, outputs=wanted, id=request_id)
        try:
            response = unary(self._channel, "ModelInfer")(request, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            return Answer({}, error.details(), error.code() is grpc.StatusCode.INVALID_ARGUMENT)
        return Answer(
            {
                one.name: (list(one.shape), values(one.datatype, data))
                for one, data in zip(response.outputs, response.raw_output_contents, strict=True)
            }
        )

    def model(self, kind, name):
        answer = unary(self._channel, kind)(getattr(service_pb2, f"{kind}Request")(name=name))
        found = json_format.MessageToDict(answer, preserving_proto_field_name=True)
        return found.get("config", found)


def values(datatype, data):
    if datatype == "BYTES":
        return [data[4:].decode()]
    return list(struct.unpack(f"<{len(data) // struct.calcsize(FORMATS[datatype])}{FORMATS[datatype]}", data))


@pytest.fixture(params=["http", "grpc"])
def over(shoal, request):
    if request.param == "http":
        yield OverHttp(shoal)
    else:
        with channel_to(shoal.grpc) as channel:
            yield OverGrpc(channel)


def refused(answer):
    assert answer.invalid, answer
    return answer.error


def floats(*numbers):
    return struct.pack(f"<{len(numbers)}f", *numbers)


class TestRule27:
    """The first dimension of a batching model's inputs is the batch."""

    def test_it_may_be_up_to_the_limit(self, over):
        shape, data = over.infer("double", Input("IN", "FP32", [8, 1])).outputs["OUT"]
        assert (shape, len(data)) == ([8, 1], 8)
        error = refused(over.infer("double", Input("IN", "FP32", [9, 1])))
        assert "inference request batch-size must be <= 8 for 'double'" in error

    def test_it_is_the_same_for_all_inputs(self, over):
        error = refused(over.infer("pair", Input("A", "INT32", [1, 2]), Input("B", "INT32", [2, 2])))
        assert "batch size does not match other inputs" in error

    def test_there_is_one(self, over):
        refused(over.infer("double", Input("IN", "FP32", [], bytes(4))))

    def test_without_batching_the_shape_is_that_of_the_configuration(self, over):
        assert over.infer("unbatched", Input("IN", "FP32", [3])).outputs["OUT"][0] == [3]
        refused(over.infer("unbatched", Input("IN", "FP32", [1, 3])))


def test_rule_28_metadata_has_the_batch_dimension_and_the_configuration_has_not(over):
    shapes = {name: over.model("ModelMetadata", name)["inputs"][0]["shape"] for name in ("double", "unbatched", "pair")}
    assert {name: list(map(int, shape)) for name, shape in shapes.items()} == {
        "double": [-1, -1],
        "unbatched": [-1],
        "pair": [-1, 2],
    }
    assert [int(dim) for dim in over.model("ModelConfig", "pair")["input"][0]["dims"]] == [2]


class TestRule29:
    """Another type or shape is refused with both in the message."""

    def test_type(self, over):
        error = refused(over.infer("double", Input("IN", "INT32", [1, 2]), request_id="seven"))
        assert (
            error == "[request id: seven] inference input 'IN' data-type is 'INT32', but model 'double' expects 'FP32'"
        )

    def test_shape(self, over):
        error = refused(over.infer("pair", Input("A", "INT32", [1, 2]), Input("B", "INT32", [1, 3])))
        assert "unexpected shape for input 'B' for model 'pair'. Expected [-1,2], got [1,3]." in error
        assert "NOTE: Setting a non-zero max_batch_size" in error

    def test_shape_without_batching(self, over):
        error = refused(over.infer("word", Input("IN", "BYTES", [2], bytes(8))))
        assert "unexpected shape for input 'IN' for model 'word'. Expected [1], got [2]" in error
        assert "NOTE" not in error


class TestRule30:
    """The bytes are as many as the shape says."""

    def test_numbers(self, over):
        error = refused(over.infer("double", Input("IN", "FP32", [1, 2], bytes(12))))
        assert "input byte size mismatch for input 'IN' for model 'double'. Expected 8, got 12" in error

    @pytest.mark.parametrize("data", [b"\1\0\0\0a\1\0\0\0b", b"\2\0\0\0a", b"\1\0", b""])
    def test_elements_of_bytes_are_walked(self, over, data):
        texts = {refused(over.infer("word", Input("IN", "BYTES", [1], data)))}
        assert all("IN" in text for text in texts)


class TestRule31:
    """Missing and unknown inputs are named."""

    def test_missing(self, over):
        error = refused(over.infer("pair", Input("A", "INT32", [1, 2])))
        assert "expected 2 inputs but got 1 inputs for model 'pair'. Got input(s) ['A']" in error
        assert "missing required input(s) ['B']. Please provide all required input(s)." in error

    def test_missing_among_optional_ones(self, over):
        error = refused(over.infer("types"))
        assert "expected number of inputs between 1 and 3 but got 0 inputs for model 'types'" in error
        assert "missing required input(s) ['NUMBERS']" in error

    def test_unknown(self, over):
        error = refused(over.infer("pair", Input("A", "INT32", [1, 2]), Input("C", "INT32", [1, 2])))
        assert "unexpected inference input 'C' for model 'pair'" in error


def test_rule_32_absent_optional_inputs_do_not_reach_the_model(over):
    numbers = Input("NUMBERS", "FP32", [1, 1], floats(3))
    assert over.infer("types", numbers).outputs == {"NUMBERS_OUT": ([1, 1], [3])}
    given = over.infer("types", numbers, Input("FLAGS", "BOOL", [1, 1], b"\1"), outputs=["NUMBERS_OUT"])
    assert given.outputs == {"NUMBERS_OUT": ([1, 1], [3])}


def test_rule_33_clients_see_dims_and_the_model_sees_the_reshape(over):
    outputs = over.infer("reshaped", Input("IN", "FP32", [2, 2, 3], floats(*range(12)))).outputs
    assert outputs["SHAPE"] == ([2, 4], [2, 1, 2, 3] * 2)
    assert outputs["OUT"] == ([2, 2, 3], list(range(12)))


def test_rule_34_the_listed_outputs_come_back_or_all(over):
    inputs = [Input(name, "INT32", [1, 2]) for name in "AB"]
    assert list(over.infer("pair", *inputs).outputs) == ["SUM", "DIFFERENCE"]
    assert list(over.infer("pair", *inputs, outputs=["DIFFERENCE"]).outputs) == ["DIFFERENCE"]


@pytest.mark.parametrize("shape", [[1, 0, 2], [3, 0, 2]])
def test_rule_35_tensors_without_elements_are_legal(over, shape):
    assert over.infer("matrix", Input("IN", "FP32", shape)).outputs == {"OUT": (shape, [])}
