"""Batches as the configuration asks for them, seen from outside: what ran together, and why it was closed."""

from __future__ import annotations

import struct

import grpc
import pytest
from tritonclient.grpc import service_pb2

from tests.clients import (
    SERVICE,
    TIMEOUT_S,
    channel_to,
    get,
    grpc_input,
    grpc_ready,
    grpc_request,
    grpc_row,
    infer,
    row,
    unary,
)
from tests.execution.models import HEAD
from tests.frontends.metrics_page import closed_batches, pending
from tests.gated import Gate, wait_until
from tests.serving import ShoalProcess

HOUR_US = 3_600_000_000
BIAS = 'input [ { name: "BIAS" data_type: TYPE_FP32 dims: [ 1 ] optional: true } ]'
BATCHING = {
    "full": {"max_batch_size": 4},
    "preferred": {"more": "dynamic_batching { preferred_batch_size: [ 4 ] }"},
    "patient": {"more": f"dynamic_batching {{ preferred_batch_size: [ 4 ] max_queue_delay_microseconds: {HOUR_US} }}"},
    "delayed": {"more": "dynamic_batching { preferred_batch_size: [ 6 ] max_queue_delay_microseconds: 50000 }"},
    "shapes": {},
    "optional": {"more": f"{BIAS} dynamic_batching {{ }}"},
    "limited": {"more": "dynamic_batching { default_queue_policy { max_queue_size: 2 } }"},
    "default": {"more": ""},
    "ordered": {"max_batch_size": 1, "count": 2, "more": "dynamic_batching { preserve_ordering: true }"},
    "unordered": {"max_batch_size": 1, "count": 2},
}
ONLY_ZERO_WAITS = """
from pathlib import Path

FOLDER = Path(__file__).parent

class TritonPythonModel:
    def execute(self, requests):
        with open(FOLDER / "batches", "a") as file:
            file.write("1\\n")
        while value(requests[0])[0, 0] == 0 and not (FOLDER / "open").exists():
            time.sleep(0.002)
        return [answer(value(request)) for request in requests]
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    repository = tmp_path_factory.mktemp("models")
    gates = {name: Gate(repository, name, **config) for name, config in BATCHING.items()}
    for name in ("ordered", "unordered"):
        (repository / name / "1" / "model.py").write_text(HEAD + ONLY_ZERO_WAITS)
    with ShoalProcess(repository) as shoal, channel_to(shoal.grpc) as channel:
        assert grpc_ready(channel)
        yield shoal, gates, channel


@pytest.fixture
def shoal(served):
    return served[0]


@pytest.fixture
def channel(served):
    return served[2]


@pytest.fixture
def ask(channel):
    method = unary(channel, "ModelInfer")
    return lambda request: method.future(request, timeout=TIMEOUT_S)


@pytest.fixture
def run(served, shoal, ask):
    """Run one request of one row and, queued behind it, the given ones; gives the batches that these made."""

    def send(model, *requests):
        gate = served[1][model]
        asked = [ask(grpc_row(model, 1))]
        gate.wait_for_batches(1)
        asked += [ask(request) for request in requests]
        wait_until(lambda: pending(shoal, model) == len(requests), "all are queued")
        gate.open()
        assert all(each.result().outputs for each in asked)
        return gate.batches[1:]

    return send


def rows_of(model, *counts, width=1):
    """Requests with so many rows each."""
    return [
        grpc_request(model, grpc_input("IN", rows, width), raw=(bytes(4 * rows * width),), id=str(rows))
        for rows in counts
    ]


def batch_sizes(shoal, model):
    """How often the model ran a batch with so many rows, as its statistics say."""
    (statistics,) = get(shoal.http, f"/v2/models/{model}/stats").json["model_stats"]
    return {each["batch_size"]: each["compute_infer"]["count"] for each in statistics["batch_stats"]}


def test_a_batch_is_full_at_the_maximum_and_no_request_is_split(shoal, run):
    assert run("full", *rows_of("full", 1, 3, 2, 3)) == [[1, 3], [2], [3]]
    assert batch_sizes(shoal, "full") == {1: 1, 2: 1, 3: 1, 4: 1}
    assert closed_batches(shoal, "full") == {"idle": (2, 4), "full": (2, 6)}


def test_a_preferred_size_is_taken_out_of_a_longer_queue(shoal, run):
    assert run("preferred", *rows_of("preferred", *[1] * 6)) == [[1] * 4, [1] * 2]
    assert batch_sizes(shoal, "preferred") == {1: 1, 2: 1, 4: 1}
    assert closed_batches(shoal, "preferred") == {"idle": (2, 3), "preferred": (1, 4)}


def test_a_preferred_size_ends_the_wait_for_more(served, shoal, ask):
    gate = served[1]["patient"]
    gate.open()
    asked = [ask(request) for request in rows_of("patient", 1, 1, 1)]
    wait_until(lambda: pending(shoal, "patient") == 3, "three wait for more although the instance is free")
    asked.append(ask(*rows_of("patient", 1)))
    assert all(each.result().outputs for each in asked)
    assert gate.batches == [[1] * 4]
    assert closed_batches(shoal, "patient") == {"preferred": (1, 4)}


def test_after_the_delay_what_is_there_runs(shoal, run):
    assert run("delayed", *rows_of("delayed", 1, 2)) == [[1, 2]]
    assert batch_sizes(shoal, "delayed") == {1: 1, 3: 1}
    assert closed_batches(shoal, "delayed") == {"delay": (2, 4)}


def test_different_shapes_do_not_share_a_batch(shoal, run):
    narrow, wide = rows_of("shapes", 1, 2), rows_of("shapes", 1, 1, width=3)
    assert run("shapes", *narrow, *wide) == [[1, 2], [1, 1]]
    assert closed_batches(shoal, "shapes") == {"idle": (2, 3), "shape": (1, 3)}


def test_rule_32_requests_with_and_without_an_optional_input_do_not_share_a_batch(shoal, run):
    both = [grpc_input("IN", 1, 1), grpc_input("BIAS", 1, 1)]
    biased = [grpc_request("optional", *both, raw=(bytes(4), bytes(4))) for _ in range(2)]
    assert run("optional", *rows_of("optional", 1, 1), *biased) == [[1, 1], [1, 1]]
    assert closed_batches(shoal, "optional") == {"idle": (2, 3), "shape": (1, 2)}


def test_the_default_scheduler_runs_each_request_alone(shoal, run):
    assert run("default", *rows_of("default", 1, 1, 2)) == [[1], [1], [2]]
    assert batch_sizes(shoal, "default") == {1: 3, 2: 1}
    assert closed_batches(shoal, "default") == {"idle": (4, 5)}


def test_rule_40_a_queue_at_its_limit_refuses(served, shoal, ask):
    gate = served[1]["limited"]
    asked = [ask(grpc_row("limited", 1))]
    gate.wait_for_batches(1)
    asked += [ask(request) for request in rows_of("limited", 1, 8)]
    wait_until(lambda: pending(shoal, "limited") == 2, "the queue is at its limit")
    refused = ask(grpc_row("limited", 1, id="g1"))
    assert refused.code() is grpc.StatusCode.UNAVAILABLE
    assert refused.details() == "[request id: g1] Exceeds maximum queue size"
    reply = infer(shoal.http, "limited", row(1), id="h1")
    assert (reply.status, reply.error) == (503, "[request id: h1] Exceeds maximum queue size")
    gate.open()
    assert all(each.result().outputs for each in asked)
    assert infer(shoal.http, "limited", row(1)).status == 200


@pytest.mark.parametrize("model", ["ordered", "unordered"])
def test_with_preserve_ordering_an_answer_waits_for_those_of_earlier_batches(served, channel, ask, model):
    gate = served[1][model]
    first = ask(grpc_row(model, 0))
    gate.wait_for_batches(1)
    second = ask(grpc_row(model, 2))
    gate.wait_for_batches(2)
    third = ask(grpc_row(model, 3))
    gate.wait_for_batches(3)  # so the second has run
    if model == "unordered":
        assert second.result().raw_output_contents == [struct.pack("<f", 2)]
    else:
        assert grpc_ready(channel)
        assert not second.done()
    assert not first.done()
    gate.open()
    answers = [each.result().raw_output_contents for each in (first, second, third)]
    assert answers == [[struct.pack("<f", number)] for number in (0, 2, 3)]


def test_two_instances_keep_the_order_of_a_stream(served, channel):
    gate = served[1]["ordered"]
    gate.close()
    gate.forget()
    stream = channel.stream_stream(
        SERVICE + "ModelStreamInfer",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
    )
    numbers = [0, *range(1, 20)]
    call = stream(iter([grpc_row("ordered", number, id=str(number)) for number in numbers]), timeout=TIMEOUT_S)
    gate.wait_for_batches(len(numbers))  # nineteen by the instance that does not wait
    gate.open()
    assert [int(response.infer_response.id) for response in call] == numbers
