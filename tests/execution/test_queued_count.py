"""The count of what waits in the whole server is that of the queues, whatever kind of model a request waits for."""

from __future__ import annotations

import numpy as np
import pytest

from shoal.errors import CancelledError, DeadlineExceededError, ShoalError
from shoal.testing.in_process import InProcessServer
from tests.execution.models import write_model
from tests.execution.sequence_models import countdown_model, part, row, sum_model
from tests.gated import Gate, wait_until

ROW = {"IN": np.ones((1, 1), np.float32)}
REPEAT = """
class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            for _ in range(3):
                sender.send(answer(value(request)))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""
DECOUPLED = "model_transaction_policy { decoupled: true }"


def counted(server, model):
    """What is counted, and what the queue of the one model in use has."""
    runtime = server.server.catalog.find(model).runtime
    queued = runtime._queued
    return server.call(lambda: (queued.requests, queued.server.nbytes, runtime.queue_statistics().requests))


def ended(pending):
    """Wait for the end of each request, good or bad."""
    for each in pending:
        try:
            each.outputs()
        except ShoalError:
            continue


def test_requests_that_run_again_wait_again(tmp_path):
    countdown_model(tmp_path)
    with InProcessServer(tmp_path) as server:
        ended([server.submit("countdown", row(number)) for number in (3, 7, 1, 5, 2, 6)])
        assert counted(server, "countdown") == (0, 0, 0)
        endless = [server.submit("countdown", row(1_000_000)) for _ in range(6)]
        wait_until(lambda: counted(server, "countdown")[0], "some wait")
        for each in endless:
            server.cancel(each)
        ended(endless)
        assert counted(server, "countdown") == (0, 0, 0)


def test_sequences_with_slots_that_are_only_filled_up(tmp_path):
    sum_model(tmp_path, "sums", "direct { }")
    with InProcessServer(tmp_path) as server:
        for flags in (("start",), (), ("end",)):
            ended([server.submit("sums", row(1), parameters=part(number, *flags)) for number in (1, 2, 3)])
        ended([server.submit("sums", row(1), parameters=part(9))])
        assert counted(server, "sums") == (0, 0, 0)


def test_decoupled_models(tmp_path):
    write_model(tmp_path, "repeat", REPEAT, more=DECOUPLED)
    with InProcessServer(tmp_path) as server:
        pending = [server.submit("repeat", ROW) for _ in range(5)]
        ended_streams(pending)
        assert [len(each.answers) for each in pending] == [3] * 5
        assert counted(server, "repeat") == (0, 0, 0)


def ended_streams(pending):
    for each in pending:
        wait_until(lambda each=each: each.done, "the last answer")


def test_deadlines_and_cancellation(tmp_path):
    gate = Gate(tmp_path, "gated", max_batch_size=1)
    with InProcessServer(tmp_path) as server:
        running = server.submit("gated", ROW)
        gate.wait_for_batches(1)
        late = [server.submit("gated", ROW, parameters={"deadline_us": 30_000}) for _ in range(3)]
        gone, stays = (server.submit("gated", ROW) for _ in range(2))
        for each in late:
            with pytest.raises(DeadlineExceededError):
                each.outputs()
        assert counted(server, "gated") == (2, 8, 2)
        server.cancel(gone)
        with pytest.raises(CancelledError):
            gone.outputs()
        assert counted(server, "gated") == (1, 4, 1)
        gate.open()
        ended([running, stays])
        assert counted(server, "gated") == (0, 0, 0)
