"""Overload is told honestly: who finds no place is refused at once and told when to come back, in both protocols."""

from __future__ import annotations

import threading

import grpc
import pytest
from tritonclient.grpc import service_pb2

from shoal.frontends import grpc_stream
from tests.clients import TIMEOUT_S, channel_to, grpc_row, infer, row, tensor, unary
from tests.execution.models import write_model
from tests.gated import Gate, wait_until
from tests.in_process import ServingThread

PUSHBACK = "grpc-retry-pushback-ms"
BIG = tensor("IN", [1, 100], [0.5] * 100)


@pytest.fixture
def gates(tmp_path):
    """Two gated models, of which the second has a queue of one, and a third whose queue times out."""
    limited = "dynamic_batching { default_queue_policy { max_queue_size: 1 } }"
    expiring = "dynamic_batching { default_queue_policy { default_timeout_microseconds: 20000 } }"
    return {
        "first": Gate(tmp_path, "first", max_batch_size=1),
        "limited": Gate(tmp_path, "limited", max_batch_size=1, more=limited),
        "expiring": Gate(tmp_path, "expiring", max_batch_size=1, more=expiring),
    }


class Clients:
    """Requests that wait for their answers, each on a thread of its own."""

    def __init__(self, shoal: ServingThread) -> None:
        self._shoal = shoal
        self._threads: list[threading.Thread] = []
        self.statuses: list[int] = []

    def send(self, model: str, what=None) -> None:
        def ask():
            self.statuses.append(infer(self._shoal.http, model, what or row(1)).status)

        self._threads.append(threading.Thread(target=ask))
        self._threads[-1].start()

    def wait(self) -> list[int]:
        for thread in self._threads:
            thread.join(TIMEOUT_S)
        return self.statuses


def fill(shoal, gates, clients, model, waiting):
    """Have one request of the model run and others wait."""
    clients.send(model)
    gates[model].wait_for_batches(1)
    for count in range(waiting):
        clients.send(model)
        wait_until(lambda count=count: shoal.waiting(model) == count + 1, "it waits")


def queue_of(shoal):
    queue = shoal.runtime("first")._queued
    return shoal.call(lambda: (queue.requests, queue.server.nbytes))


def refused(shoal, model, what=None):
    """What HTTP and gRPC say."""
    reply = infer(shoal.http, model, what or row(1))
    assert reply.status == 503
    with channel_to(shoal.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
        unary(channel, "ModelInfer")(grpc_row(model, *([1] * 100 if what else [1])), timeout=TIMEOUT_S)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    trailers = dict(caught.value.trailing_metadata())
    assert caught.value.details() == reply.error
    assert int(reply.headers["retry-after"]) >= 1
    assert int(trailers[PUSHBACK]) == 1000 * int(reply.headers["retry-after"])
    return reply.error


def test_requests_of_all_models_together_are_limited_by_number(tmp_path, gates):
    with ServingThread(tmp_path, max_queued_requests=2) as shoal:
        clients = Clients(shoal)
        fill(shoal, gates, clients, "first", 2)
        assert refused(shoal, "first").endswith("limit of 2 waiting requests (--max-queued-requests)")
        assert queue_of(shoal)[0] == 2
        for gate in gates.values():
            gate.open()
        assert clients.wait() == [200] * 3
        assert queue_of(shoal) == (0, 0)


def test_a_model_may_wait_no_more_when_another_has_filled_the_server(tmp_path, gates):
    with ServingThread(tmp_path, max_queued_requests=1) as shoal:
        clients = Clients(shoal)
        fill(shoal, gates, clients, "first", 1)
        assert refused(shoal, "limited").endswith("limit of 1 waiting requests (--max-queued-requests)")
        for gate in gates.values():
            gate.open()
        assert clients.wait() == [200, 200]
        assert infer(shoal.http, "limited", row(1)).status == 200


def test_requests_of_all_models_together_are_limited_by_bytes(tmp_path, gates):
    with ServingThread(tmp_path, max_queued_nbytes=200) as shoal:
        clients = Clients(shoal)
        fill(shoal, gates, clients, "first", 1)
        assert queue_of(shoal) == (1, 4)
        assert refused(shoal, "first", BIG).endswith("limit of 200 waiting bytes (--max-queued-nbytes)")
        gates["first"].open()
        assert clients.wait() == [200, 200]
        assert infer(shoal.http, "first", BIG).status == 200, "what finds nothing waiting is served, however large"
        assert queue_of(shoal) == (0, 0)


def test_a_full_queue_says_when_to_come_back(tmp_path, gates):
    with ServingThread(tmp_path) as shoal:
        clients = Clients(shoal)
        fill(shoal, gates, clients, "limited", 1)
        assert refused(shoal, "limited") == "[request id: <id_unknown>] Exceeds maximum queue size"
        gates["limited"].open()
        assert clients.wait() == [200, 200]


def test_a_queue_timeout_says_when_to_come_back(tmp_path, gates):
    with ServingThread(tmp_path) as shoal:
        clients = Clients(shoal)
        fill(shoal, gates, clients, "expiring", 0)
        assert refused(shoal, "expiring") == "Request timeout expired"
        assert queue_of(shoal) == (0, 0)
        gates["expiring"].open()
        assert clients.wait() == [200]


def test_other_errors_do_not_say_to_come_back(tmp_path, gates):
    del gates
    with ServingThread(tmp_path) as shoal:
        assert "retry-after" not in infer(shoal.http, "nope", row(1)).headers
        with channel_to(shoal.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
            unary(channel, "ModelInfer")(grpc_row("nope", 1), timeout=TIMEOUT_S)
        assert PUSHBACK not in dict(caught.value.trailing_metadata())


def test_a_stream_with_too_many_unanswered_requests_ends(tmp_path, gates, monkeypatch):
    """Each would be kept until those before it are answered, whatever the limits of the queues."""
    monkeypatch.setattr(grpc_stream, "MOST_UNANSWERED", 3)
    with ServingThread(tmp_path) as shoal, channel_to(shoal.grpc) as channel:
        stream = channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
        )
        with pytest.raises(grpc.RpcError) as caught:
            list(stream(iter([grpc_row("first", 1)] * 4), timeout=TIMEOUT_S))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert caught.value.details().startswith("3 requests of this stream are not answered yet")
        wait_until(lambda: queue_of(shoal) == (0, 0), "what waited is cancelled")
        gates["first"].open()


def test_what_is_cancelled_or_lost_or_left_at_the_end_waits_no_more(tmp_path, gates):
    """The count is that of the queues at every moment, whatever takes requests out of them."""
    crash = "class TritonPythonModel:\n    def execute(self, requests):\n        os._exit(1)\n"
    write_model(tmp_path, "crash", crash)
    with ServingThread(tmp_path) as shoal:
        with channel_to(shoal.grpc) as channel:
            ask = unary(channel, "ModelInfer")
            running = ask.future(grpc_row("first", 1))
            gates["first"].wait_for_batches(1)
            waiting = [ask.future(grpc_row("first", 1)) for _ in range(5)]
            wait_until(lambda: queue_of(shoal)[0] == 5, "all wait")
            for call in waiting[:3]:
                call.cancel()
            wait_until(lambda: queue_of(shoal) == (2, 8), "those cancelled wait no more")
            assert infer(shoal.http, "crash", row(1)).status == 500
            assert queue_of(shoal) == (2, 8)
        running.cancel()
        wait_until(lambda: queue_of(shoal) == (0, 0), "the clients are gone")
        gates["first"].open()
