"""Clients that go away: what they asked for is dropped, and nobody else notices."""

from __future__ import annotations

import json
import socket
import struct

import grpc
import numpy as np
import psutil
import pytest
from tritonclient.grpc import service_pb2

from tests.clients import HEADER_LENGTH, body_of, channel_to, get, grpc_row, infer, row, tensor, unary
from tests.execution.models import write_model
from tests.frontends.metrics_page import cancelled, open_connections, pending
from tests.gated import Gate, wait_until
from tests.serving import ShoalProcess

TIMEOUT_S = 20
LARGE_NBYTES = 60 * 2**20
RESET = struct.pack("ii", 1, 0)  # with SO_LINGER: closing sends RST instead of FIN
ABORTED, ABORTED_UPLOADS = 500, 50


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A server with a fast model and a gated one that runs one row at a time."""
    repository = tmp_path_factory.mktemp("models")
    write_model(repository, "double")
    gate = Gate(repository, max_batch_size=1)
    with ShoalProcess(repository) as shoal:
        yield shoal, gate


@pytest.fixture
def shoal(served):
    return served[0]


@pytest.fixture
def gate(served):
    served[1].close()
    served[1].forget()
    return served[1]


def connect(address):
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), TIMEOUT_S)


def head_of(model, nbytes, **headers):
    lines = [f"POST /v2/models/{model}/infer HTTP/1.1", "Host: shoal", f"Content-Length: {nbytes}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def asking(shoal, model):
    """A connection over which an infer request has been sent, and nothing read."""
    body, _ = body_of(row(1))
    client = connect(shoal.http)
    client.sendall(head_of(model, len(body)) + body)
    return client


def test_the_queued_request_of_an_http_client_that_goes_away_never_runs(shoal, gate):
    before = cancelled(shoal, "gated")
    running = asking(shoal, "gated")
    gate.wait_for_batches(1)
    queued = asking(shoal, "gated")
    wait_until(lambda: pending(shoal, "gated") == 1, "the request is queued")
    queued.close()
    wait_until(lambda: pending(shoal, "gated") == 0, "the request is taken out of the queue")
    assert cancelled(shoal, "gated") == before + 1
    gate.open()
    assert running.recv(100).startswith(b"HTTP/1.1 200")
    running.close()
    assert infer(shoal.http, "gated", row(3)).status == 200
    assert gate.batches == [[1], [1]]


def test_the_queued_request_that_a_grpc_client_cancels_never_runs(shoal, gate):
    before = cancelled(shoal, "gated")
    with channel_to(shoal.grpc) as channel:
        ask = unary(channel, "ModelInfer")
        running = ask.future(grpc_row("gated", 1), timeout=TIMEOUT_S)
        gate.wait_for_batches(1)
        queued = ask.future(grpc_row("gated", 2), timeout=TIMEOUT_S)
        neighbour = ask.future(grpc_row("gated", 3), timeout=TIMEOUT_S)
        wait_until(lambda: pending(shoal, "gated") == 2, "both are queued")
        queued.cancel()
        wait_until(lambda: pending(shoal, "gated") == 1, "one is taken out of the queue")
        assert cancelled(shoal, "gated") == before + 1
        gate.open()
        assert running.result().outputs
        assert neighbour.result().raw_output_contents == [struct.pack("<f", 3)]
    assert gate.batches == [[1], [1]]


def test_all_that_a_grpc_client_had_queued_goes_with_its_connection(shoal, gate):
    before = cancelled(shoal, "gated")
    with channel_to(shoal.grpc) as channel:
        ask = unary(channel, "ModelInfer")
        asked = [ask.future(grpc_row("gated", 1), timeout=TIMEOUT_S)]
        gate.wait_for_batches(1)
        asked += [ask.future(grpc_row("gated", 2), timeout=TIMEOUT_S) for _ in range(4)]
        wait_until(lambda: pending(shoal, "gated") == 4, "four are queued")
    wait_until(lambda: pending(shoal, "gated") == 0, "the queue is empty")
    assert cancelled(shoal, "gated") == before + 4
    assert {each.code() for each in asked} == {grpc.StatusCode.CANCELLED}
    gate.open()
    assert infer(shoal.http, "gated", row(3)).status == 200
    assert gate.batches == [[1], [1]]


@pytest.mark.parametrize("end", ["closes", "resets"])
def test_a_running_request_whose_http_client_is_gone_does_no_harm(shoal, gate, end):
    gone = asking(shoal, "gated")
    gate.wait_for_batches(1)
    if end == "resets":
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    gone.close()
    wait_until(lambda: open_connections(shoal, "http") == 0, "the server sees that the client is gone")
    following = asking(shoal, "gated")
    wait_until(lambda: pending(shoal, "gated") == 1, "the next one is queued")
    gate.open()
    assert following.recv(100).startswith(b"HTTP/1.1 200")
    following.close()


def test_a_running_request_that_a_grpc_client_cancels_does_no_harm(shoal, gate):
    with channel_to(shoal.grpc) as channel:
        ask = unary(channel, "ModelInfer")
        gone = ask.future(grpc_row("gated", 1), timeout=TIMEOUT_S)
        gate.wait_for_batches(1)
        gone.cancel()
        neighbour = ask(grpc_row("double", 2), timeout=TIMEOUT_S)
        assert neighbour.raw_output_contents == [struct.pack("<f", 4)]
        following = ask.future(grpc_row("gated", 5), timeout=TIMEOUT_S)
        wait_until(lambda: pending(shoal, "gated") == 1, "the next one is queued")
        gate.open()
        assert following.result().raw_output_contents == [struct.pack("<f", 5)]


def test_the_requests_of_a_stream_that_is_cancelled_are_taken_out(shoal, gate):
    with channel_to(shoal.grpc) as channel:
        stream = channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
        )
        call = stream(iter([grpc_row("gated", number) for number in range(4)]), timeout=TIMEOUT_S)
        gate.wait_for_batches(1)
        wait_until(lambda: pending(shoal, "gated") == 3, "all but the first are queued")
        call.cancel()
        wait_until(lambda: pending(shoal, "gated") == 0, "the queue is empty")
        gate.open()
        assert unary(channel, "ModelInfer")(grpc_row("gated", 9), timeout=TIMEOUT_S).outputs
    assert gate.batches == [[1], [1]]


def test_connections_that_break_within_a_body_are_closed(shoal):
    for number in range(ABORTED):
        with connect(shoal.http) as client:
            client.sendall(head_of("double", 1000) + b'{"inputs":')
            if number % 2:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    # A connection is accepted after those that came before it, so from this answer on all of them are counted.
    assert infer(shoal.http, "double", row(2)).json["outputs"][0]["data"] == [4]
    wait_until(lambda: open_connections(shoal, "http") == 0, "every connection is closed")


def test_large_uploads_that_break_leave_their_memory_to_others(shoal):
    values = np.arange(LARGE_NBYTES // 4, dtype=np.float32)
    given = tensor("IN", [1, values.size], binary_data_size=values.nbytes)
    text = json.dumps({"inputs": [given]}).encode()
    head = head_of("double", len(text) + values.nbytes, **{HEADER_LENGTH: str(len(text))})
    process = psutil.Process(shoal.process.pid)
    before_nbytes = process.memory_info().vms
    for _ in range(ABORTED_UPLOADS):
        with connect(shoal.http) as client:
            client.sendall(head + text + bytes(10_000))
            wait_until(lambda: open_connections(shoal, "http") == 1, "the connection is accepted")
        wait_until(lambda: open_connections(shoal, "http") == 0, "the connection is closed")
    assert process.memory_info().vms - before_nbytes < ABORTED_UPLOADS * LARGE_NBYTES / 5
    reply = infer(shoal.http, "double", given, tail=values.tobytes(), parameters={"binary_data_output": True})
    np.testing.assert_array_equal(np.frombuffer(reply.binary, np.float32), values * 2)
    assert get(shoal.http, "/v2/health/ready").status == 200
