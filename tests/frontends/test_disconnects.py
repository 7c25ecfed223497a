"""Clients that go away: what they asked for is taken back, nobody else notices, and nothing of them stays."""

from __future__ import annotations

import contextlib
import socket
import struct

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from tests.clients import (
    SERVICE,
    TIMEOUT_S,
    HttpConnection,
    body_of,
    channel_to,
    get,
    grpc_input,
    grpc_request,
    grpc_row,
    infer,
    row,
    tensor,
    unary,
)
from tests.execution.models import write_model
from tests.gated import Gate, wait_until
from tests.in_process import ServingThread

LARGE = 300_000
ABORTED = 2000


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def gate(repository):
    return Gate(repository, max_batch_size=1)


@pytest.fixture(scope="module")
def serving(repository, gate):
    write_model(repository, "double")
    with ServingThread(repository) as serving:
        yield serving


@pytest.fixture(autouse=True)
def closed_gate(serving, gate):
    """Each test begins with a closed gate and no batch, and must leave nothing behind."""
    gate.close()
    gate.forget()
    before = {name: serving.used_nbytes(name) for name in ("gated", "double")}
    yield
    gate.open()
    wait_until(lambda: serving.call(lambda: serving.runtime("gated").in_flight) == 0, "all requests are done")
    wait_until(lambda: serving.connections() == 0, "all connections are closed")
    wait_until(lambda: {name: serving.used_nbytes(name) for name in before} == before, "all memory is free")


def cancelled(serving):
    """Requests that were cancelled so far, as the metrics have them."""
    page = get(serving.address("metrics"), "/metrics").body.decode()
    line = next(line for line in page.splitlines() if 'reason="CANCELED"' in line and 'model="gated"' in line)
    return int(float(line.split()[-1]))


def post(connection, model, *inputs, tail=None):
    """Send an infer request without reading the answer."""
    body, headers = body_of(*inputs, tail=tail)
    connection.connection.request("POST", f"/v2/models/{model}/infer", body, headers)


def test_http_client_in_the_queue(serving, gate):
    before = cancelled(serving)
    with HttpConnection(serving.http) as first, HttpConnection(serving.http) as third:
        post(first, "gated", row(1))
        gate.wait_for_batches(1)
        with HttpConnection(serving.http) as second:
            post(second, "gated", row(2))
            wait_until(lambda: serving.waiting("gated") == 1, "the second request waits")
            post(third, "gated", row(3))
            wait_until(lambda: serving.waiting("gated") == 2, "the third request waits")
        wait_until(lambda: serving.waiting("gated") == 1, "the second request is taken back")
        gate.open()
        assert first.answer().json["outputs"][0]["data"] == [1]
        assert third.answer().json["outputs"][0]["data"] == [3]
    assert len(gate.batches) == 2
    assert cancelled(serving) == before + 1


def test_http_client_whose_request_runs(serving, gate):
    with HttpConnection(serving.http) as connection:
        post(connection, "gated", row(1))
        gate.wait_for_batches(1)
    wait_until(lambda: serving.call(lambda: serving.serving.listeners["http"].in_flight) == 0, "the server has noticed")
    gate.open()
    assert infer(serving.http, "gated", row(2)).json["outputs"][0]["data"] == [2]


def test_pipelined_requests_leave_with_their_connection(serving, gate):
    body, _ = body_of(row(1))
    request = b"POST /v2/models/gated/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    with connect(serving.http) as client:
        client.sendall(request * 5)
        gate.wait_for_batches(1)
        wait_until(lambda: serving.waiting("gated") == 4, "four wait")
    wait_until(lambda: serving.waiting("gated") == 0, "none waits")
    gate.open()
    assert len(gate.batches) == 1


def test_grpc_client_in_the_queue_and_its_neighbours(serving, gate):
    """All on one HTTP/2 connection."""
    before = cancelled(serving)
    with channel_to(serving.grpc) as channel:
        method = unary(channel, "ModelInfer")
        first = method.future(grpc_row("gated", 1))
        gate.wait_for_batches(1)
        second, third = method.future(grpc_row("gated", 2)), method.future(grpc_row("gated", 3))
        wait_until(lambda: serving.waiting("gated") == 2, "two requests wait")
        second.cancel()
        wait_until(lambda: serving.waiting("gated") == 1, "one is taken back")
        assert method(grpc_row("double", 4), timeout=TIMEOUT_S).outputs
        gate.open()
        assert first.result(TIMEOUT_S).raw_output_contents == [struct.pack("<f", 1)]
        assert third.result(TIMEOUT_S).raw_output_contents == [struct.pack("<f", 3)]
    assert len(gate.batches) == 2
    assert cancelled(serving) == before + 1


def test_grpc_client_whose_request_runs(serving, gate):
    with channel_to(serving.grpc) as channel:
        method = unary(channel, "ModelInfer")
        running = method.future(grpc_row("gated", 1))
        gate.wait_for_batches(1)
        running.cancel()
        gate.open()
        assert method(grpc_row("gated", 2), timeout=TIMEOUT_S).raw_output_contents == [struct.pack("<f", 2)]


def test_grpc_client_whose_time_is_up(serving, gate):
    with channel_to(serving.grpc) as channel:
        method = unary(channel, "ModelInfer")
        running = method.future(grpc_row("gated", 1))
        gate.wait_for_batches(1)
        with pytest.raises(grpc.RpcError) as error:
            method(grpc_row("gated", 2), timeout=0.05)
        assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        wait_until(lambda: serving.waiting("gated") == 0, "it is taken back")
        gate.open()
        assert running.result(TIMEOUT_S).outputs


def test_grpc_stream_in_the_queue(serving, gate):
    with channel_to(serving.grpc) as channel:
        method = channel.stream_stream(
            SERVICE + "ModelStreamInfer",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
        )
        call = method(iter([grpc_row("gated", number) for number in range(4)]))
        gate.wait_for_batches(1)
        wait_until(lambda: serving.waiting("gated") == 3, "three wait")
        call.cancel()
        wait_until(lambda: serving.waiting("gated") == 0, "none waits")
        gate.open()
        assert unary(channel, "ModelInfer")(grpc_row("gated", 5), timeout=TIMEOUT_S).outputs
    assert len(gate.batches) == 2


def test_grpc_connection_that_breaks(serving, gate):
    with channel_to(serving.grpc) as channel:
        calls = [unary(channel, "ModelInfer").future(grpc_row("gated", number)) for number in range(4)]
        gate.wait_for_batches(1)
        wait_until(lambda: serving.waiting("gated") == 3, "three wait")
        serving.call(serving.serving.listeners["grpc"].abort)
        wait_until(lambda: serving.waiting("gated") == 0, "none waits")
        assert all(call.exception(TIMEOUT_S) is not None for call in calls)


# --- large bodies, which are received in shared memory --------------------------------------------------------------


def connect(address):
    host, port = address.split(":")
    return socket.create_connection((host, int(port)), TIMEOUT_S)


def abort(client):
    """Close with a reset, as a process that is killed does."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def large_request(model):
    """The head and body of a request of a megabyte."""
    data = np.zeros(LARGE, np.float32).tobytes()
    body, headers = body_of(tensor("IN", [1, LARGE], binary_data_size=len(data)), tail=data)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: x\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.mark.parametrize("sent", [0.3, 0.999])
def test_a_large_body_that_breaks_off_gives_its_memory_back(serving, sent):
    before = serving.used_nbytes("double")
    request = large_request("double")
    for _ in range(10):
        client = connect(serving.http)
        client.sendall(request[: int(len(request) * sent)])
        wait_until(lambda: serving.used_nbytes("double") > before, "the body is received in shared memory")
        abort(client)
        wait_until(lambda: serving.used_nbytes("double") == before, "its memory is free")


def test_a_large_grpc_message_that_breaks_off_gives_its_memory_back(serving):
    before = serving.used_nbytes("double")
    raw = bytes(4 * LARGE)
    with channel_to(serving.grpc) as channel:
        for _ in range(10):
            request = grpc_request("double", grpc_input("IN", 1, LARGE), raw=(raw,))
            unary(channel, "ModelInfer").future(request).cancel()
    wait_until(lambda: serving.used_nbytes("double") == before, "its memory is free")


def test_large_requests_that_wait_give_their_memory_back(serving, gate):
    before = serving.used_nbytes("gated")
    request = large_request("gated")
    with HttpConnection(serving.http) as first:
        post(first, "gated", row(1))
        gate.wait_for_batches(1)
        clients = [connect(serving.http) for _ in range(8)]
        for client in clients:
            client.sendall(request)
        wait_until(lambda: serving.waiting("gated") == 8, "eight requests wait")
        assert serving.used_nbytes("gated") > before
        for client in clients:
            abort(client)
        wait_until(lambda: serving.waiting("gated") == 0, "none waits")
        wait_until(lambda: serving.used_nbytes("gated") == before, "their memory is free")
        gate.open()
        assert first.answer().status == 200


def test_answers_that_nobody_reads_give_their_memory_back(serving):
    """The clients send, and leave while their answers wait to be read."""
    request = large_request("double")
    before = serving.used_nbytes("double")
    for _ in range(3):
        clients = [connect(serving.http) for _ in range(8)]
        for client in clients:
            client.sendall(request)
        wait_until(lambda: serving.call(lambda: serving.runtime("double").in_flight) == 0, "all were answered")
        for client in clients:
            abort(client)
        wait_until(lambda: serving.connections() == 0, "their connections are closed")
        wait_until(lambda: serving.used_nbytes("double") == before, "their memory is free")


# --- many -----------------------------------------------------------------------------------------------------------


def test_thousands_of_broken_connections_leave_nothing(serving):
    """Each breaks off at another place of what it sends."""
    body, _ = body_of(row(1))
    over_http = b"POST /v2/models/double/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    over_http2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0" + b"\0\0\5\1\4\0\0\0\1\x83\x86\x84\x41\x8a"
    for number in range(ABORTED):
        request, address = (over_http, serving.http) if number % 2 else (over_http2, serving.grpc)
        client = connect(address)
        client.sendall(request[: number % (len(request) + 1)])
        with contextlib.suppress(OSError):
            abort(client)
    assert infer(serving.http, "double", row(1)).status == 200
    wait_until(lambda: serving.connections() == 0, "all connections are closed")
    wait_until(lambda: serving.call(lambda: serving.runtime("double").in_flight) == 0, "all requests are done")
    page = get(serving.address("metrics"), "/metrics").body.decode()
    assert 'shoal_open_connections{service="http"} 0.0' in page
    assert 'shoal_open_connections{service="grpc"} 0.0' in page


def test_hundreds_of_cancelled_calls_leave_no_stream(serving, gate):
    with channel_to(serving.grpc) as channel:
        method = unary(channel, "ModelInfer")
        running = method.future(grpc_row("gated", 1))
        gate.wait_for_batches(1)
        for _ in range(9):  # more at once are taken for an attack: a rapid reset
            calls = [method.future(grpc_row("gated", 2)) for _ in range(100)]
            for call in calls:
                call.cancel()
        wait_until(lambda: serving.waiting("gated") == 0, "none waits")
        wait_until(lambda: serving.call(lambda: serving.serving.listeners["grpc"].in_flight) == 1, "one is left")
        gate.open()
        assert running.result(TIMEOUT_S).outputs
        assert serving.call(lambda: serving.serving.listeners["grpc"].in_flight) == 0
