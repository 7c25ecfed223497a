"""Deadlines of requests, over both protocols and at every stage."""

from __future__ import annotations

import struct

import grpc
import pytest
from tritonclient.grpc import service_pb2

from tests.clients import channel_to, get, grpc_row, infer, row, unary
from tests.execution.models import write_model
from tests.frontends.metrics_page import cancelled, pending
from tests.gated import Gate, wait_until
from tests.serving import ShoalProcess

SOON_US = 50_000
LATE_US = 600_000_000
HEADER = "Shoal-Deadline-Us"
RAN = f"the deadline of {SOON_US} microseconds passed while the request ran"
WAITED = f"the deadline of {SOON_US} microseconds passed while the request waited in the queue"

SEEN = """
import json

class TritonPythonModel:
    def execute(self, requests):
        assert all(json.loads(request.parameters()) == {} for request in requests)
        return [answer(value(request)) for request in requests]
"""
PAIRS = "dynamic_batching { preferred_batch_size: 2 max_queue_delay_microseconds: 10000000 }"
ENSEMBLE = """
platform: "ensemble"
max_batch_size: 1
input { name: "X" data_type: TYPE_FP32 dims: -1 }
output { name: "Y" data_type: TYPE_FP32 dims: -1 }
ensemble_scheduling {
  step {
    model_name: "double" model_version: -1
    input_map { key: "IN" value: "X" } output_map { key: "OUT" value: "Z" }
  }
  step {
    model_name: "gated" model_version: -1
    input_map { key: "IN" value: "Z" } output_map { key: "OUT" value: "Y" }
  }
}
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A gated model, another that waits for two rows, a model that looks at its parameters, and an ensemble."""
    repository = tmp_path_factory.mktemp("models")
    gate = Gate(repository, max_batch_size=1)
    pairs = Gate(repository, "pairs", max_batch_size=2, more=PAIRS)
    write_model(repository, "double")
    write_model(repository, "seen", SEEN)
    (repository / "both" / "1").mkdir(parents=True)
    (repository / "both" / "config.pbtxt").write_text(ENSEMBLE)
    with ShoalProcess(repository) as shoal:
        yield shoal, gate, pairs


@pytest.fixture
def shoal(served):
    return served[0]


@pytest.fixture
def gate(served):
    """The closed gate; afterwards it lets everything through."""
    shoal, gate, _ = served
    gate.close()
    gate.forget()
    yield gate
    gate.open()
    assert infer(shoal.http, "gated", row(1)).status == 200


def counts(shoal, model):
    (entry,) = get(shoal.http, f"/v2/models/{model}/stats").json["model_stats"]
    return {kind: entry["inference_stats"][kind]["count"] for kind in ("success", "fail")}


def grpc_soon(model, deadline_us=SOON_US, **more):
    message = grpc_row(model, 1, **more)
    message.parameters["deadline_us"].int64_param = deadline_us
    return message


@pytest.mark.parametrize("how", [{"parameters": {"deadline_us": SOON_US}}, {"headers": {HEADER: str(SOON_US)}}])
def test_a_running_request_is_answered_over_http_when_its_deadline_passes(shoal, gate, how):
    before = counts(shoal, "gated")
    reply = infer(shoal.http, "gated", row(1), id="seven", **how)
    assert (reply.status, reply.error) == (504, f"[request id: seven] {RAN}")
    gate.open()
    assert infer(shoal.http, "gated", row(1)).status == 200
    after = counts(shoal, "gated")
    assert after["fail"] - before["fail"] == 1
    assert after["success"] - before["success"] == 1, "its late answer is no success"


def test_a_running_request_is_answered_over_grpc_when_its_deadline_passes(shoal, gate):
    with channel_to(shoal.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
        unary(channel, "ModelInfer")(grpc_soon("gated", id="seven"))
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert caught.value.details() == f"[request id: seven] {RAN}"
    gate.wait_for_batches(1)


def test_a_request_of_a_grpc_stream_is_answered_when_its_deadline_passes(shoal, gate):
    with channel_to(shoal.grpc) as channel:
        stream = channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
        )
        messages = [grpc_soon("gated"), grpc_row("double", 2)]
        late, well = list(stream(iter(messages)))
        assert late.error_message.endswith(RAN)
        assert not well.error_message
    gate.wait_for_batches(1)


def test_a_waiting_request_never_runs_after_its_deadline(shoal, gate):
    with channel_to(shoal.grpc) as channel:
        running = unary(channel, "ModelInfer").future(grpc_row("gated", 1))
        gate.wait_for_batches(1)
        before = cancelled(shoal, "gated")
        reply = infer(shoal.http, "gated", row(1), parameters={"deadline_us": SOON_US})
        assert reply.status == 504
        assert reply.error.endswith(WAITED)
        assert cancelled(shoal, "gated") == before + 1
        assert pending(shoal, "gated") == 0
        gate.open()
        assert running.result().outputs[0].shape == [1, 1]
    assert gate.batches == [[1]]


def test_the_deadline_of_one_request_leaves_the_others_of_its_batch_alone(served):
    shoal, _, pairs = served
    with channel_to(shoal.grpc) as channel:
        late = unary(channel, "ModelInfer").future(grpc_soon("pairs", 700_000))
        other = unary(channel, "ModelInfer").future(grpc_row("pairs", 3))
        pairs.wait_for_batches(1)
        assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        pairs.open()
        assert other.result().raw_output_contents[0] == struct.pack("<f", 3)
    assert pairs.batches == [[1, 1]]
    assert counts(shoal, "pairs") == {"success": 1, "fail": 1}


def test_a_deadline_that_is_kept_changes_nothing(shoal):
    for _ in range(3):
        assert infer(shoal.http, "seen", row(4), parameters={"deadline_us": LATE_US}).json["outputs"][0]["data"] == [4]
        assert infer(shoal.http, "seen", row(5), headers={HEADER: str(LATE_US)}).json["outputs"][0]["data"] == [5]
        assert infer(shoal.http, "seen", row(6), parameters={"deadline_us": 0}).json["outputs"][0]["data"] == [6]


@pytest.mark.parametrize("value", [-1, 1.5, True, "soon"])
def test_a_deadline_that_is_no_whole_number_is_refused(shoal, value):
    reply = infer(shoal.http, "seen", row(1), parameters={"deadline_us": value})
    assert reply.status == 400
    assert f"parameter 'deadline_us' must be a whole number of 0 or more, not {value!r}" in reply.error
    assert reply.error.endswith("; over HTTP the header Shoal-Deadline-Us sets it too")


def test_a_deadline_header_that_is_no_whole_number_is_refused(shoal):
    reply = infer(shoal.http, "seen", row(1), headers={HEADER: "soon"})
    assert (reply.status, "whole number" in reply.error) == (400, True)


def test_grpc_takes_both_integers_for_a_deadline_and_nothing_else(shoal):
    with channel_to(shoal.grpc) as channel:
        ask = unary(channel, "ModelInfer")
        for kind in ("int64_param", "uint64_param"):
            parameter = service_pb2.InferParameter(**{kind: LATE_US})
            assert ask(grpc_row("seen", 1, parameters={"deadline_us": parameter})).outputs[0].shape == [1, 1]
        with pytest.raises(grpc.RpcError) as caught:
            ask(grpc_row("seen", 1, parameters={"deadline_us": service_pb2.InferParameter(string_param="1")}))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_deadline_cancels_the_steps_of_an_ensemble(shoal, gate):
    before = cancelled(shoal, "both")
    with channel_to(shoal.grpc) as channel:
        running = unary(channel, "ModelInfer").future(grpc_row("gated", 1))
        gate.wait_for_batches(1)
        reply = infer(shoal.http, "both", {**row(1), "name": "X"}, parameters={"deadline_us": SOON_US})
        assert reply.status == 504
        assert f"the deadline of {SOON_US} microseconds passed" in reply.error
        wait_until(lambda: pending(shoal, "gated") == 0, "the step waits no more")
        assert cancelled(shoal, "both") == before + 1
        gate.open()
        running.result()
    assert gate.batches == [[1]]


def test_the_deadline_of_a_grpc_call_takes_its_request_out_of_the_queue(shoal, gate):
    with channel_to(shoal.grpc) as channel:
        running = unary(channel, "ModelInfer").future(grpc_row("gated", 1))
        gate.wait_for_batches(1)
        before = cancelled(shoal, "gated")
        with pytest.raises(grpc.RpcError) as caught:
            unary(channel, "ModelInfer")(grpc_row("gated", 2), timeout=0.1)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        wait_until(lambda: pending(shoal, "gated") == 0, "it waits no more")
        assert cancelled(shoal, "gated") == before + 1
        gate.open()
        running.result()
    assert gate.batches == [[1]]
