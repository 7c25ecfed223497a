"""Large requests and answers lie in shared memory: whatever becomes of their clients, it is free again afterwards."""

from __future__ import annotations

import socket
import struct

import numpy as np
import pytest

from tests.clients import (
    TIMEOUT_S,
    HttpConnection,
    body_of,
    channel_to,
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

WIDTH = 600_000
KEPT_NBYTES = 2 << 20
"""What an instance keeps for its next batch at most: room for inputs, and room for outputs."""


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
def nothing_is_left(serving, gate):
    gate.close()
    gate.forget()
    yield
    gate.open()
    for model in ("gated", "double"):
        wait_until(lambda model=model: in_flight(serving, model) == 0, "all requests are done")
        wait_until(lambda model=model: serving.used_nbytes(model) <= KEPT_NBYTES, "the memory is free")
    wait_until(lambda: serving.connections() == 0, "all connections are closed")


def in_flight(serving, model):
    return serving.call(lambda: serving.runtime(model).in_flight)


def connect(address):
    host, port = address.split(":")
    return socket.create_connection((host, int(port)), TIMEOUT_S)


def abort(client):
    """Close with a reset, as a process that is killed does."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def large_request(model):
    """The head and body of a request of more than a megabyte."""
    data = np.ones(WIDTH, np.float32).tobytes()
    body, headers = body_of(tensor("IN", [1, WIDTH], binary_data_size=len(data)), tail=data)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: x\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def large_message(model):
    return grpc_request(model, grpc_input("IN", 1, WIDTH), raw=(bytes(4 * WIDTH),))


@pytest.mark.parametrize("sent", [0.3, 0.999])
def test_http_bodies_that_break_off(serving, sent):
    request = large_request("double")
    for _ in range(10):
        client = connect(serving.http)
        client.sendall(request[: int(len(request) * sent)])
        wait_until(lambda: serving.used_nbytes("double") > KEPT_NBYTES, "the body is received in shared memory")
        abort(client)
        wait_until(lambda: serving.used_nbytes("double") <= KEPT_NBYTES, "its memory is free")


def test_grpc_messages_that_break_off(serving):
    with channel_to(serving.grpc) as channel:
        for _ in range(20):
            unary(channel, "ModelInfer").future(large_message("double")).cancel()


def test_requests_that_wait(serving, gate):
    request = large_request("gated")
    with HttpConnection(serving.http) as first:
        body, _ = body_of(row(1))
        first.connection.request("POST", "/v2/models/gated/infer", body)
        gate.wait_for_batches(1)
        clients = [connect(serving.http) for _ in range(8)]
        for client in clients:
            client.sendall(request)
        wait_until(lambda: serving.waiting("gated") == 8, "eight requests wait")
        assert serving.used_nbytes("gated") > 4 * WIDTH * 8
        for client in clients:
            abort(client)
        wait_until(lambda: serving.waiting("gated") == 0, "none waits")
        wait_until(lambda: serving.used_nbytes("gated") <= KEPT_NBYTES, "their memory is free")
        gate.open()
        assert first.answer().status == 200


def test_grpc_requests_that_wait(serving, gate):
    with channel_to(serving.grpc) as channel:
        method = unary(channel, "ModelInfer")
        running = method.future(grpc_row("gated", 1))
        gate.wait_for_batches(1)
        calls = [method.future(large_message("gated")) for _ in range(8)]
        wait_until(lambda: serving.waiting("gated") == 8, "eight requests wait")
        for call in calls:
            call.cancel()
        wait_until(lambda: serving.waiting("gated") == 0, "none waits")
        wait_until(lambda: serving.used_nbytes("gated") <= KEPT_NBYTES, "their memory is free")
        gate.open()
        assert running.result(TIMEOUT_S).outputs


def test_requests_that_run(serving, gate):
    client = connect(serving.http)
    client.sendall(large_request("gated"))
    gate.wait_for_batches(1)
    abort(client)
    wait_until(lambda: serving.connections() == 0, "the server has noticed")
    gate.open()


def test_answers_that_nobody_reads(serving):
    request = large_request("double")
    clients = [connect(serving.http) for _ in range(8)]
    for client in clients:
        client.sendall(request)
    wait_until(lambda: in_flight(serving, "double") == 0, "all are answered")
    for client in clients:
        abort(client)


def test_answers_that_are_read_at_last(serving):
    client = connect(serving.http)
    client.sendall(large_request("double") * 3)
    wait_until(lambda: in_flight(serving, "double") == 0, "all are answered")
    received = 0
    while received < 3 * 4 * WIDTH:
        received += len(client.recv(1 << 20))
    client.close()


def test_refused_requests(serving):
    """Large ones that are received in shared memory and do not fit the model."""
    data = bytes(4 * WIDTH)
    for _ in range(10):
        given = tensor("IN", [1, WIDTH + 1], binary_data_size=len(data))
        assert infer(serving.http, "double", given, tail=data).status == 400


def test_after_hundreds_of_cancelled_calls_no_stream_is_left(serving, gate):
    listener = serving.serving.listeners["grpc"]
    with channel_to(serving.grpc) as channel:
        method = unary(channel, "ModelInfer")
        running = method.future(grpc_row("gated", 1))
        gate.wait_for_batches(1)
        for _ in range(9):  # many more at once are taken for an attack (CVE-2023-44487)
            calls = [method.future(grpc_row("gated", 2)) for _ in range(100)]
            for call in calls:
                call.cancel()
        wait_until(lambda: serving.waiting("gated") == 0, "none waits")
        wait_until(lambda: serving.call(lambda: listener.in_flight) == 1, "one is left")
        gate.open()
        assert running.result(TIMEOUT_S).outputs
        assert serving.call(lambda: listener.in_flight) == 0
