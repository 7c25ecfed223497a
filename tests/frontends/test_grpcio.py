"""What gRPC clients rely on beside inference: health checks, status codes, deadlines and metadata."""

from __future__ import annotations

import json

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.clients import SERVICE, TIMEOUT_S, channel_to, grpc_ready, grpc_row, infer, row, unary
from tests.execution.models import write_model
from tests.frontends.conftest import PARAMETERS
from tests.frontends.metrics_page import cancelled, pending
from tests.gated import Gate, wait_until
from tests.serving import ShoalProcess

DEADLINE_S = 1
PATTERN = "^(X-Shoal-.*|priority|timeout|sequence_id|triton_.*)$"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A server that forwards headers, with a model that tells its parameters and a gated one."""
    repository = tmp_path_factory.mktemp("models")
    write_model(repository, "parameters", PARAMETERS)
    gate = Gate(repository, max_batch_size=1)
    patterns = [f"--{protocol}-header-forward-pattern={PATTERN}" for protocol in ("http", "grpc")]
    with ShoalProcess(repository, *patterns) as shoal, channel_to(shoal.grpc) as channel:
        assert grpc_ready(channel)
        yield shoal, gate, channel


@pytest.fixture
def shoal(served):
    return served[0]


@pytest.fixture
def channel(served):
    return served[2]


@pytest.fixture
def over_grpc(channel):
    """Ask the model for the parameters that it sees, with this metadata; gives them, or the error's message."""
    method = unary(channel, "ModelInfer")

    def send(headers, **parameters):
        request = grpc_row("parameters", 1)
        for name, value in parameters.items():
            request.parameters[name].string_param = value
        call = method.future(request, timeout=TIMEOUT_S, metadata=list(headers.items()))
        if call.code() is not grpc.StatusCode.OK:
            assert call.code() is grpc.StatusCode.INVALID_ARGUMENT
            return call.details()
        return json.loads(call.result().parameters["seen"].string_param)

    return send


@pytest.fixture
def over_http(shoal):
    def send(headers, **parameters):
        reply = infer(shoal.http, "parameters", row(1), headers=headers, parameters=parameters)
        if reply.status != 200:
            assert reply.status == 400
            return reply.error
        return json.loads(reply.json["parameters"]["seen"])

    return send


@pytest.fixture(params=["http", "grpc"])
def seen(request):
    return request.getfixturevalue(f"over_{request.param}")


def test_health_checks(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    response = stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
    assert response.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize(
    "method", [SERVICE + "NoSuchMethod", "/no.such.Service/ModelInfer", "/grpc.health.v1.Health/X"]
)
@pytest.mark.parametrize("kind", ["unary_unary", "stream_stream"])
def test_an_unknown_method_is_unimplemented(channel, method, kind):
    call = getattr(channel, kind)(method, request_serializer=bytes, response_deserializer=bytes)
    with pytest.raises(grpc.RpcError) as error:
        list(call(iter([b""]), timeout=TIMEOUT_S)) if kind == "stream_stream" else call(b"", timeout=TIMEOUT_S)
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_request_past_its_deadline_is_taken_out_of_the_queue(served, shoal, channel):
    gate = served[1]
    ask = unary(channel, "ModelInfer")
    running = ask.future(grpc_row("gated", 1), timeout=DEADLINE_S)
    gate.wait_for_batches(1)
    queued = ask.future(grpc_row("gated", 2), timeout=DEADLINE_S)
    assert {running.code(), queued.code()} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    wait_until(lambda: pending(shoal, "gated") == 0, "the queued one is taken out")
    assert cancelled(shoal, "gated") == 1
    gate.open()
    assert ask(grpc_row("gated", 3), timeout=TIMEOUT_S).outputs
    assert gate.batches == [[1], [1]]


def test_rule_21_headers_that_match_reach_the_model(seen):
    assert seen({"x-shoal-user": "ann", "x-other": "no"}) == {"x-shoal-user": "ann"}
    assert seen({"x-shoal-user": "bob"}) == {"x-shoal-user": "bob"}
    assert seen({}) == {}


def test_rule_21_they_stand_beside_the_parameters_of_the_request(seen):
    assert seen({"x-shoal-user": "ann"}, kind="test") == {"x-shoal-user": "ann", "kind": "test"}


@pytest.mark.parametrize("name", ["priority", "timeout", "sequence_id", "triton_x"])
def test_rule_21_reserved_names_are_refused(seen, name):
    assert seen({name: "1"}) == f"'{name}' is reserved for Triton usage and cannot be forwarded."
    assert seen({"x-shoal-user": "ann"}) == {"x-shoal-user": "ann"}


def test_without_a_pattern_nothing_is_forwarded(tmp_path):
    write_model(tmp_path, "parameters", PARAMETERS)
    with ShoalProcess(tmp_path) as shoal:
        reply = infer(shoal.http, "parameters", row(1), headers={"x-shoal-user": "ann"})
        assert json.loads(reply.json["parameters"]["seen"]) == {}
