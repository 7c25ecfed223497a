"""Every rule of the framing of gRPC infer requests, over a real socket; rules have the numbers of the reference."""

from __future__ import annotations

import contextlib
import struct

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2

from tests.clients import SERVICE, TIMEOUT_S, channel_to, grpc_input, grpc_request, grpc_row, unary
from tests.execution.models import write_model
from tests.gated import Gate, wait_until
from tests.serving import ShoalProcess

TWO = struct.pack("<2f", 1, 2)
TWICE = struct.pack("<2f", 2, 4)
IN = grpc_input("IN", 2)
INVALID, UNIMPLEMENTED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED


@pytest.fixture(scope="module")
def channel(shoal):
    with channel_to(shoal.grpc) as channel:
        yield channel


@pytest.fixture
def infer(channel):
    method = unary(channel, "ModelInfer")
    return lambda request: method(request, timeout=TIMEOUT_S)


@pytest.fixture
def refuse(infer):
    """Send a request that is refused; gives code and message."""

    def send(request):
        with pytest.raises(grpc.RpcError) as error:
            infer(request)
        return error.value.code(), error.value.details()

    return send


def with_parameter(name, kind, value):
    request = grpc_row("parameters", 1)
    setattr(request.parameters[name], kind, value)
    return request


class TestRule17:
    """Raw contents belong, in their order, to the inputs without contents of their own."""

    def test_they_pair_in_order(self, infer):
        a, b = grpc_input("A", 1, 2, datatype="INT32"), grpc_input("B", 1, 2, datatype="INT32")
        raw = struct.pack("<2i", 1, 2), struct.pack("<2i", 5, 6)
        assert infer(grpc_request("pair", b, a, raw=raw)).raw_output_contents[1] == struct.pack("<2i", 4, 4)

    def test_both_kinds_together_are_refused(self, refuse):
        typed = grpc_input("IN", 2, fp32_contents=[1, 2])
        code, text = refuse(grpc_request("unbatched", typed, raw=(TWO,)))
        assert (code, "contents field must not be specified" in text) == (INVALID, True)

    def test_missing_ones_are_refused(self, refuse):
        code, text = refuse(grpc_request("unbatched", IN))
        assert (code, "unable to find data for input tensor" in text) == (INVALID, True)

    def test_surplus_ones_are_ignored(self, infer):
        assert infer(grpc_request("unbatched", IN, raw=(TWO, TWO))).raw_output_contents == [TWICE]


class TestRule18:
    """Typed contents have one field for each datatype."""

    @pytest.mark.parametrize(
        ("datatype", "field", "values", "format_"),
        [
            ("BOOL", "bool_contents", [True, False], "<2?"),
            ("INT8", "int_contents", [-128, 127], "<2b"),
            ("INT16", "int_contents", [-(2**15), 1], "<2h"),
            ("INT32", "int_contents", [-(2**31), 1], "<2i"),
            ("INT64", "int64_contents", [-(2**63), 1], "<2q"),
            ("UINT8", "uint_contents", [0, 255], "<2B"),
            ("UINT16", "uint_contents", [0, 2**16 - 1], "<2H"),
            ("UINT32", "uint_contents", [0, 2**32 - 1], "<2I"),
            ("UINT64", "uint64_contents", [0, 2**64 - 1], "<2Q"),
            ("FP32", "fp32_contents", [0.5, -1], "<2f"),
            ("FP64", "fp64_contents", [0.1, -1], "<2d"),
        ],
    )
    def test_each_type_has_its_field(self, infer, datatype, field, values, format_):
        given = grpc_input(datatype, 1, 2, datatype=datatype, **{field: values})
        assert infer(grpc_request("every", given)).raw_output_contents == [struct.pack(format_, *values)]

    def test_bytes(self, infer):
        given = grpc_input("STRING", 1, 2, datatype="BYTES", bytes_contents=[b"\xff", b""])
        assert infer(grpc_request("every", given)).raw_output_contents == [b"\1\0\0\0\xff\0\0\0\0"]

    @pytest.mark.parametrize("datatype", ["FP16", "BF16"])
    def test_half_floats_come_raw_only(self, infer, refuse, datatype):
        raw = b"\x80\x3f\0\x40"
        given = grpc_input(datatype, 1, 2, datatype=datatype)
        assert infer(grpc_request("every", given, raw=(raw,))).raw_output_contents == [raw]
        typed = grpc_input(datatype, 1, 2, datatype=datatype, fp32_contents=[1, 2])
        assert refuse(grpc_request("every", typed))[0] is INVALID

    def test_another_field_is_refused(self, refuse):
        assert refuse(grpc_request("unbatched", grpc_input("IN", 2, fp64_contents=[1, 2])))[0] is INVALID


def test_rule_19_outputs_are_raw_in_their_order(infer):
    given = [grpc_input(name, 1, 2, datatype="INT32", int_contents=[3, 4]) for name in "AB"]
    response = infer(grpc_request("pair", *given))
    assert [output.name for output in response.outputs] == ["SUM", "DIFFERENCE"]
    assert response.raw_output_contents == [struct.pack("<2i", 6, 8), bytes(8)]
    assert not any(output.HasField("contents") for output in response.outputs)


def test_rule_19_outputs_in_shared_memory_are_refused_while_it_is_off(refuse):
    wanted = service_pb2.ModelInferRequest.InferRequestedOutputTensor(name="OUT")
    wanted.parameters["shared_memory_region"].string_param = "r"
    wanted.parameters["shared_memory_byte_size"].int64_param = 8
    code, text = refuse(grpc_request("unbatched", IN, raw=(TWO,), outputs=[wanted]))
    assert (code, "shared memory" in text) == (UNIMPLEMENTED, True)


class TestRule20:
    """Parameters have one type each."""

    @pytest.mark.parametrize(
        ("name", "kind", "value"),
        [
            ("sequence_id", "double_param", 1.0),
            ("sequence_start", "int64_param", 1),
            ("sequence_end", "string_param", "true"),
            ("priority", "string_param", "1"),
            ("priority", "int64_param", -1),
            ("timeout", "uint64_param", 1),
            ("timeout", "double_param", 1.0),
            ("custom", "uint64_param", 1),
        ],
    )
    def test_another_type_is_refused(self, refuse, name, kind, value):
        assert refuse(with_parameter(name, kind, value))[0] is INVALID

    @pytest.mark.parametrize(
        ("name", "kind", "value"),
        [
            ("priority", "uint64_param", 1),
            ("priority", "int64_param", 1),
            ("timeout", "int64_param", 1),
            ("custom", "bool_param", True),
            ("custom", "double_param", 0.5),
        ],
    )
    def test_its_type_is_taken(self, infer, name, kind, value):
        seen = infer(with_parameter(name, kind, value)).parameters["seen"].string_param
        assert ('"custom"' in seen) == (name == "custom")

    @pytest.mark.parametrize("value", [0, -1])
    def test_classes_are_more_than_none(self, refuse, value):
        wanted = service_pb2.ModelInferRequest.InferRequestedOutputTensor(name="OUT")
        wanted.parameters["classification"].int64_param = value
        assert refuse(grpc_request("unbatched", IN, raw=(TWO,), outputs=[wanted]))[0] is INVALID


def test_rule_21_tritons_own_parameters_are_refused(infer, refuse):
    code, text = refuse(with_parameter("triton_x", "bool_param", True))
    assert (code, "starting with 'triton_' are reserved" in text) == (INVALID, True)
    assert infer(with_parameter("triton_enable_empty_final_response", "bool_param", True)).outputs


@pytest.mark.parametrize(("version", "code"), [("x", INVALID), ("-1", INVALID), ("9", grpc.StatusCode.NOT_FOUND)])
def test_rule_22_a_version_is_a_number(infer, refuse, version, code):
    assert infer(grpc_row("double", 1)).model_version == "1"
    assert infer(grpc_row("double", 1, model_version="1")).model_version == "1"
    assert refuse(grpc_row("double", 1, model_version=version))[0] is code


class Stream:
    """A ModelStreamInfer call with these requests."""

    def __init__(self, channel, *requests, metadata=()):
        method = channel.stream_stream(
            SERVICE + "ModelStreamInfer",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
        )
        self.call = method(iter(requests), timeout=TIMEOUT_S, metadata=metadata)
        self.responses = []
        with contextlib.suppress(grpc.RpcError):
            self.responses.extend(self.call)
        self.code = self.call.code()


def good(name):
    return grpc_row("refusing", 1, id=name)


def failing(name):
    return grpc_row("refusing", -1, id=name)


class TestRule23:
    """An error is an answer like any other, and the stream goes on; unless the client asks for a status."""

    @pytest.mark.parametrize(
        "wrong", [failing("wrong"), grpc_row("absent", 1, id="wrong"), grpc_request("unbatched", IN, id="wrong")]
    )
    def test_the_stream_goes_on(self, channel, wrong):
        stream = Stream(channel, good("one"), wrong, good("two"))
        assert stream.code is grpc.StatusCode.OK
        assert [bool(response.error_message) for response in stream.responses] == [False, True, False]
        assert [response.infer_response.id for response in stream.responses] == ["one", "wrong", "two"]

    def test_the_stream_ends_where_the_client_wants_a_status(self, channel):
        stream = Stream(channel, good("one"), failing("wrong"), metadata=[("triton_grpc_error", "true")])
        assert stream.code is INVALID
        assert stream.call.details() == "negative numbers are refused"
        assert [response.infer_response.id for response in stream.responses] == ["one"]


class TestRule24:
    """Answers come in the order of the requests, and each says that it is the last of its request."""

    def test_order_and_final_marks(self, channel):
        """Two models, of which the first to be asked is the last to be done."""
        slow = [grpc_row("slow", 0.2, id=f"slow {number}") for number in range(2)]
        fast = [grpc_row("double", 1, id=f"fast {number}") for number in range(8)]
        stream = Stream(channel, slow[0], *fast[:4], slow[1], *fast[4:])
        expected = ["slow 0", *(f"fast {n}" for n in range(4)), "slow 1", *(f"fast {n}" for n in range(4, 8))]
        assert [response.infer_response.id for response in stream.responses] == expected
        finals = [response.infer_response.parameters["triton_final_response"] for response in stream.responses]
        assert all(final.bool_param for final in finals)

    def test_a_model_with_one_response_sends_no_empty_one_behind_it(self, channel):
        request = good("one")
        request.parameters["triton_enable_empty_final_response"].bool_param = True
        assert len(Stream(channel, request).responses) == 1


def test_rule_25_the_health_service_says_whether_it_is_ready(channel, tmp_path):
    def check(channel):
        stub = health_pb2_grpc.HealthStub(channel)
        return stub.Check(health_pb2.HealthCheckRequest(service="whatever"), timeout=TIMEOUT_S).status

    assert check(channel) == health_pb2.HealthCheckResponse.SERVING
    write_model(tmp_path, "broken", "raise ValueError")
    with ShoalProcess(tmp_path, "--exit-on-error=false") as broken, channel_to(broken.grpc) as other:
        assert check(other) == health_pb2.HealthCheckResponse.NOT_SERVING


def test_rule_26_a_cancelled_request_is_taken_out_of_the_queue(tmp_path):
    gate = Gate(tmp_path)
    with ShoalProcess(tmp_path) as shoal, channel_to(shoal.grpc) as channel:
        method = unary(channel, "ModelInfer")
        running, queued = method.future(grpc_row("gated", 1)), None
        gate.wait_for_batches(1)
        queued = method.future(grpc_row("gated", 2))
        statistics = unary(channel, "ModelStatistics")

        def failures():
            found = statistics(service_pb2.ModelStatisticsRequest(name="gated")).model_stats[0]
            return found.inference_stats.fail.count

        assert failures() == 0
        queued.cancel()
        wait_until(lambda: failures() == 1, "the request is cancelled")
        gate.open()
        assert running.result(TIMEOUT_S).outputs
        assert method(grpc_row("gated", 3), timeout=TIMEOUT_S).outputs
        assert sum(map(len, gate.batches)) == 2
