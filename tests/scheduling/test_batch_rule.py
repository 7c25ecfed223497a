"""A rule of the user's decides what joins a batch (Triton's custom batching); a failure costs the batch at most."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
from queued_requests import model, queue, request

from shoal.config.spec import BatchingSpec, TensorSpec
from shoal.datatypes import DataType
from shoal.requests import LATEST, InferHead, InferRequest, InputHead
from shoal.scheduling.admission import plan_request
from shoal.scheduling.batch_rule import BatchRule, QueuedRequest
from shoal.scheduling.contract import CloseReason
from shoal.scheduling.make import make_scheduler
from shoal.testing.in_process import wire_bytes


def scheduler(strategy, **batching):
    spec = model(8, BatchingSpec(**batching))
    return make_scheduler(spec, BatchRule(strategy, spec))


class Pairs:
    """Two requests to a batch, and a record of what it was told."""

    def __init__(self):
        self.told = []

    def begin(self):
        self.seen = 0
        self.told.append("begin")

    def include(self, queued):
        self.seen += 1
        self.told.append(queued.request_id)
        return self.seen <= 2

    def finalize(self, count):
        self.told.append(count)


def test_the_rule_closes_a_batch_and_is_told_of_its_life():
    strategy = Pairs()
    batcher = scheduler(strategy)
    queue(batcher, *(request(name=name) for name in "abc"))
    first, second = batcher.take(0), batcher.take(0)
    assert (len(first.requests), first.reason) == (2, CloseReason.RULE)
    assert (len(second.requests), second.reason) == (1, CloseReason.IDLE)
    assert strategy.told == ["begin", "a", "b", "c", 2, "begin", "c", 1]


def test_a_batch_that_the_rule_closed_does_not_wait_for_the_delay():
    batcher = scheduler(Pairs(), max_queue_delay_us=1_000)
    queue(batcher, request(), request())
    assert batcher.take(0) is None
    queue(batcher, request())
    assert batcher.take(0).reason is CloseReason.RULE


def test_a_latency_target_heeds_the_rule_too():
    strategy = Pairs()
    batcher = scheduler(strategy, latency_target_us=50_000)
    queue(batcher, *(request() for _ in range(3)))
    assert len(batcher.take(0).requests) == 2
    assert strategy.told[-1] == 2


class OnlyInclude:
    def include(self, queued):
        return queued.rows < 3


def test_begin_and_finalize_may_be_left_out_and_the_first_request_always_runs():
    batcher = scheduler(OnlyInclude())
    queue(batcher, request(4), request(2), request(3))
    assert [batcher.take(0).rows, batcher.take(0).rows] == [6, 3]


class Failing(Pairs):
    def include(self, queued):
        raise ZeroDivisionError


class FailingToBegin(Failing):
    def begin(self):
        raise KeyError


@pytest.mark.parametrize("strategy", [Failing, FailingToBegin])
def test_a_rule_that_fails_closes_the_batch_and_is_logged_less_and_less_often(strategy, caplog):
    batcher = scheduler(strategy())
    queue(batcher, *(request() for _ in range(40)))
    with caplog.at_level(logging.ERROR, "shoal.model"):
        batches = [batcher.take(0) for _ in range(40)]
    assert all(len(batch.requests) == 1 for batch in batches)
    assert batcher.take(0) is None
    assert [record.args[1] for record in caplog.records] == [1, 2, 4, 8, 16, 32]
    assert "the batch strategy of model 'm' failed" in caplog.records[0].message


def test_a_rule_sees_what_a_request_says_and_holds():
    tensors = (TensorSpec("X", DataType.FP32, (-1,)), TensorSpec("S", DataType.BYTES, (1,)))
    spec = replace(model(8, BatchingSpec()), inputs=tensors)
    x, s = np.array([[1.5, 2.5]], np.float32), np.array([[b"ab"]], object)
    payload = [wire_bytes("X", x)[1], wire_bytes("S", s)[1]]
    heads = (InputHead("X", DataType.FP32, (1, 2), 8), InputHead("S", DataType.BYTES, (1, 1), 6))
    head = InferHead("m", LATEST, "id", heads, (), {"lora": "a", "priority": 2})
    seen = QueuedRequest(InferRequest(plan_request(head, spec, None), payload, None, None, 0), spec.inputs)
    assert (seen.rows, seen.request_id, seen.priority, seen.nbytes) == (1, "id", 0, 14)
    assert seen.parameters["lora"] == "a"
    assert seen.shapes == {"X": (1, 2), "S": (1, 1)}
    assert seen.datatypes == {"X": "FP32", "S": "BYTES"}
    assert seen.input("X").tolist() == [[1.5, 2.5]]
    assert seen.input("S").tolist() == [[b"ab"]]
    assert seen.input("NONE") is None
    with pytest.raises(ValueError, match="read-only"):
        seen.input("X")[0, 0] = 0
