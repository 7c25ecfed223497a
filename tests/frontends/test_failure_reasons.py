"""The reasons of ``nv_inference_request_failure``, each brought about by a client (rule 43)."""

from __future__ import annotations

import grpc
import pytest

from tests.clients import TIMEOUT_S, channel_to, grpc_ready, grpc_row, infer, row, tensor, unary
from tests.execution.models import write_model
from tests.execution.sequence_models import sum_model
from tests.frontends.metrics_page import FAILURES, MetricsPage, pending
from tests.gated import Gate, wait_until
from tests.serving import ShoalProcess

POLICY = "dynamic_batching {{ default_queue_policy {{ {} }} }}"
NONE = {"REJECTED": 0, "CANCELED": 0, "BACKEND": 0, "OTHER": 0}
FAILING = """
class TritonPythonModel:
    def execute(self, requests):
        raise ValueError("not today")
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    repository = tmp_path_factory.mktemp("models")
    gates = {
        "full": Gate(repository, "full", more=POLICY.format("max_queue_size: 1")),
        "late": Gate(repository, "late", more=POLICY.format("default_timeout_microseconds: 1000")),
        "left": Gate(repository, "left"),
    }
    write_model(repository, "failing", FAILING)
    sum_model(repository, "sum")
    with ShoalProcess(repository) as shoal, channel_to(shoal.grpc) as channel:
        assert grpc_ready(channel)
        yield shoal, gates, unary(channel, "ModelInfer")


def failures(shoal, model):
    page = MetricsPage(shoal)
    return {reason: page.value(FAILURES, model=model, reason=reason) for reason in NONE}


def test_rule_43_a_full_queue_is_rejected(served):
    shoal, gates, method = served
    asked = [method.future(grpc_row("full", 1), timeout=TIMEOUT_S)]
    gates["full"].wait_for_batches(1)
    asked.append(method.future(grpc_row("full", 1), timeout=TIMEOUT_S))
    wait_until(lambda: pending(shoal, "full") == 1, "the queue is at its limit")
    assert infer(shoal.http, "full", row(1)).status == 503
    gates["full"].open()
    assert all(each.result().outputs for each in asked)
    assert failures(shoal, "full") == NONE | {"REJECTED": 1}


def test_rule_43_a_queue_timeout_is_rejected(served):
    shoal, gates, method = served
    running = method.future(grpc_row("late", 1), timeout=TIMEOUT_S)
    gates["late"].wait_for_batches(1)
    reply = infer(shoal.http, "late", row(1))
    assert (reply.status, reply.error) == (503, "Request timeout expired")
    gates["late"].open()
    assert running.result().outputs
    assert failures(shoal, "late") == NONE | {"REJECTED": 1}


def test_rule_43_a_client_that_cancels_is_canceled_with_one_l(served):
    shoal, gates, method = served
    running = method.future(grpc_row("left", 1), timeout=TIMEOUT_S)
    gates["left"].wait_for_batches(1)
    waiting = method.future(grpc_row("left", 1), timeout=TIMEOUT_S)
    wait_until(lambda: pending(shoal, "left") == 1, "it waits")
    waiting.cancel()
    wait_until(lambda: pending(shoal, "left") == 0, "it is taken out")
    assert waiting.code() is grpc.StatusCode.CANCELLED
    gates["left"].open()
    assert running.result().outputs
    assert failures(shoal, "left") == NONE | {"CANCELED": 1}


def test_rule_43_an_error_of_the_model_is_backend(served):
    shoal, _, _ = served
    assert infer(shoal.http, "failing", row(1)).status == 500
    assert failures(shoal, "failing") == NONE | {"BACKEND": 1}


def test_rule_43_what_the_scheduler_refuses_is_other(served):
    """A request of a sequence that has not begun; Triton 2.51 counts it nowhere."""
    shoal, _, _ = served
    assert infer(shoal.http, "sum", tensor("IN", [1, 1], [1]), parameters={"sequence_id": 5}).status == 400
    assert failures(shoal, "sum") == NONE | {"OTHER": 1}
