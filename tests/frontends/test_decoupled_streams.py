"""Decoupled models over real sockets: ModelStreamInfer with grpcio and tritonclient, and the ways that refuse them."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import signal
import struct
import threading

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import service_pb2

from tests.clients import SERVICE, channel_to, get, grpc_row, infer, row, unary
from tests.execution.decoupled_models import write_decoupled
from tests.gated import wait_until
from tests.in_process import ServingThread
from tests.serving import ShoalProcess

EMPTY_FINAL = "triton_enable_empty_final_response"
TIMEOUT_S = 30

THREADED = """
class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            in_thread(self.send, request.get_response_sender(), number(request))

    def send(self, sender, count):
        for place in range(count):
            time.sleep(0.02)
            sender.send(answer(np.full((1, 2), place, np.float32)))
        sender.send(flags=FINAL)
"""

UNTIL_CANCELLED = """
class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            in_thread(self.send, request)

    def send(self, request):
        sender, kept = request.get_response_sender(), value(request)
        until, sent = time.monotonic() + 20, 0
        while not sender.is_cancelled() and time.monotonic() < until:
            sender.send(answer(kept))
            sent += 1
            time.sleep(0.002)
        with open(os.path.join(os.path.dirname(__file__), "ended"), "a") as file:
            file.write("cancelled " if sender.is_cancelled() else "tired ")
        sender.send(flags=FINAL)
"""

CRASHING = """
class TritonPythonModel:
    def execute(self, requests):
        sender = requests[0].get_response_sender()
        sender.send(answer(value(requests[0])))
        if number(requests[0]) == 1:
            os._exit(7)
        time.sleep(600)
"""


def stream(channel: grpc.Channel, requests, **more):
    """ModelStreamInfer with these requests."""
    call = channel.stream_stream(
        SERVICE + "ModelStreamInfer",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
    )
    return call(iter(requests), timeout=more.pop("timeout", TIMEOUT_S), **more)


def asked(model: str, number: float, request_id: str = "", *, end: bool = False):
    message = grpc_row(model, number, number, id=request_id)
    if end:
        message.parameters[EMPTY_FINAL].bool_param = True
    return message


def summary(message) -> tuple:
    """The id, the first element if there is one, the error, and whether it is final."""
    response = message.infer_response
    raw = response.raw_output_contents
    number = struct.unpack("<f", raw[0][:4])[0] if raw else None
    return response.id, number, message.error_message, response.parameters["triton_final_response"].bool_param


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    repository = tmp_path_factory.mktemp("decoupled")
    write_decoupled(repository, "repeat")
    write_decoupled(repository, "threaded", THREADED)
    write_decoupled(repository, "endless", UNTIL_CANCELLED, max_batch_size=4)
    write_decoupled(repository, "crashing", CRASHING)
    return repository


@pytest.fixture(scope="module")
def serving(repository):
    with ServingThread(repository) as serving:
        yield serving


@pytest.fixture
def channel(serving):
    with channel_to(serving.grpc) as channel:
        yield channel


@pytest.mark.parametrize("count", [0, 1, 3, 1000])
def test_rule_24_every_response_says_whether_it_is_the_last(channel, count):
    expected = [("r", float(place), "", False) for place in range(count)]
    assert list(map(summary, stream(channel, [asked("repeat", count, "r")]))) == expected
    found = list(map(summary, stream(channel, [asked("repeat", count, "r", end=True)])))
    assert found == [*expected, ("r", None, "", True)]


def test_requests_of_one_stream_are_answered_side_by_side(channel):
    found = list(
        map(summary, stream(channel, [asked("threaded", count, f"r{count}", end=True) for count in (4, 1, 3)]))
    )
    for count in (4, 1, 3):
        own = [each for each in found if each[0] == f"r{count}"]
        assert own == [
            *((f"r{count}", float(place), "", False) for place in range(count)),
            (f"r{count}", None, "", True),
        ]
    ends = [request_id for request_id, _, _, final in found if final]
    assert ends == ["r1", "r3", "r4"]


@pytest.mark.parametrize("model", ["repeat", "nowhere"])
def test_a_refused_request_leaves_the_stream_open(channel, model):
    bad = asked(model, 1, "bad")
    bad.inputs[0].name = "NO"
    found = list(map(summary, stream(channel, [asked("repeat", 1, "a"), bad, asked("repeat", 1, "b")])))
    assert sorted(request_id for request_id, _, error, _ in found if not error) == ["a", "b"]
    assert [request_id for request_id, _, error, _ in found if error] == ["bad"]


def test_one_answer_is_all_that_unary_calls_can_give(serving, channel):
    """1.5: HTTP /infer and ModelInfer refuse decoupled models, whatever else is wrong with the request."""
    for message in (asked("repeat", 1), grpc_row("repeat", 1, 2, 3)):
        for _ in range(2):
            with pytest.raises(grpc.RpcError) as failure:
                unary(channel, "ModelInfer")(message, timeout=TIMEOUT_S)
            assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED
            assert failure.value.details() == "ModelInfer RPC doesn't support models with decoupled transaction policy"
            list(stream(channel, [asked("repeat", 1)]))  # the same bytes are known from a stream then
    for inputs in ([row(1, 2)], [], [{"name": "NO"}]):
        reply = infer(serving.http, "repeat", *inputs)
        assert reply.status == 501
        assert reply.error == "HTTP end point doesn't support models with decoupled transaction policy"
    assert infer(serving.http, "nowhere", row(1, 2)).status == 404


def test_tritonclient_streams(serving):
    came: queue.Queue = queue.Queue()
    with triton.InferenceServerClient(serving.grpc) as client:
        client.start_stream(lambda result, error: came.put((result, error)))
        tensor = triton.InferInput("IN", [1, 2], "FP32")
        tensor.set_data_from_numpy(np.full((1, 2), 3, np.float32))
        client.async_stream_infer("repeat", [tensor], request_id="r", enable_empty_final_response=True)
        got = [came.get(timeout=TIMEOUT_S) for _ in range(4)]
        client.stop_stream()
    assert [error for _, error in got] == [None] * 4
    assert [result.as_numpy("OUT")[0, 0] for result, _ in got[:3]] == [0, 1, 2]
    finals = [result.get_response().parameters["triton_final_response"].bool_param for result, _ in got]
    assert finals == [False, False, False, True]


def test_tritonclient_aio_streams(serving):
    async def ask():
        async with triton_aio.InferenceServerClient(serving.grpc) as client:

            async def requests():
                tensor = triton.InferInput("IN", [1, 2], "FP32")
                tensor.set_data_from_numpy(np.full((1, 2), 3, np.float32))
                yield {"model_name": "threaded", "inputs": [tensor], "request_id": "r"}

            return [(result.as_numpy("OUT")[0, 0], error) async for result, error in client.stream_infer(requests())]

    assert asyncio.run(ask()) == [(0, None), (1, None), (2, None)]


# --- clients that leave ---------------------------------------------------------------------------------------------


def endings(repository) -> list[str]:
    try:
        return (repository / "endless" / "1" / "ended").read_text().split()
    except FileNotFoundError:
        return []


@pytest.mark.parametrize("way", ["cancel", "deadline", "connection"])
def test_a_client_that_leaves_in_the_middle_is_noticed_by_the_model(repository, serving, way):
    """Rule 26, for streams. The large input that the model holds is free again afterwards."""
    count = len(endings(repository))
    raw = np.ones((2, 200_000), np.float32).tobytes()
    message = grpc_row("endless", 1)
    message.inputs[0].shape[:] = [2, 200_000]
    message.raw_input_contents[0] = raw
    opened = channel_to(serving.grpc)
    channel = opened.__enter__()
    call = stream(channel, held(message), timeout=0.5 if way == "deadline" else TIMEOUT_S)
    try:
        for _ in range(3):
            next(call)
        if way == "cancel":
            call.cancel()
        elif way == "connection":
            channel.close()
        wait_until(lambda: len(endings(repository)) > count, "the model has noticed")
    finally:
        opened.__exit__(None, None, None)
    assert endings(repository)[count:] == ["cancelled"]
    wait_until(lambda: serving.call(lambda: serving.runtime("endless").in_flight) == 0, "nothing is left")
    wait_until(lambda: serving.used_nbytes("endless") < len(raw), "the memory is free")


def held(*messages):
    """Requests of a client that does not close its side."""
    yield from messages
    threading.Event().wait(TIMEOUT_S)


SLOW = """
class TritonPythonModel:
    def execute(self, requests):
        in_thread(self.send, requests[0].get_response_sender())

    def send(self, sender):
        block = np.ones((1, 262_144), np.float32)
        for place in range(200):
            sender.send(answer(block * place))
            with open(os.path.join(os.path.dirname(__file__), "sent"), "w") as file:
                file.write(str(place + 1))
        sender.send(flags=FINAL)
"""


def test_a_client_that_reads_slowly_makes_its_model_wait(tmp_path):
    """200 MB do not pile up in the server: what its client leaves unread bounds what the model has sent."""
    folder = write_decoupled(tmp_path, "slow", SLOW)

    def sent() -> int:
        text = (folder / "1" / "sent").read_text() if (folder / "1" / "sent").exists() else ""
        return int(text or 0)

    def rests() -> bool:
        count = sent()
        threading.Event().wait(0.3)
        return count > 0 and sent() == count

    with ServingThread(tmp_path) as serving, channel_to(serving.grpc) as channel:
        call = stream(channel, [asked("slow", 1)])
        assert summary(next(call))[1] == 0
        wait_until(rests, "the model waits")
        assert sent() < 60, "a few in the server, in the sockets and in the client's library"
        assert [summary(message)[1] for message in call] == list(range(1, 200))


# --- models that die ------------------------------------------------------------------------------------------------


def test_a_model_that_dies_in_the_middle_ends_its_requests_and_not_the_stream(serving, channel):
    messages: queue.Queue = queue.Queue()
    call = stream(channel, iter(messages.get, None))
    messages.put(asked("crashing", 1, "dies"))
    assert summary(next(call))[:2] == ("dies", 1)
    request_id, _, error, final = summary(next(call))
    assert (request_id, final) == ("dies", True)
    assert "exited with code 7" in error
    messages.put(asked("crashing", 2, "killed"))
    assert summary(next(call))[:2] == ("killed", 2)
    serving.call(lambda: os.kill(serving.runtime("crashing").groups[0].pid, signal.SIGKILL))
    request_id, _, error, final = summary(next(call))
    assert (request_id, final) == ("killed", True)
    assert "was killed by signal 9 (SIGKILL)" in error
    messages.put(asked("repeat", 1, "well"))
    assert summary(next(call))[:2] == ("well", 0)
    messages.put(None)
    assert list(call) == []


# --- one answer: HTTP and ModelInfer --------------------------------------------------------------------------------

PATIENT = """
class TritonPythonModel:
    def execute(self, requests):
        until = time.monotonic() + 20
        with open(os.path.join(os.path.dirname(__file__), "begun"), "a") as file:
            file.write("x")
        while not requests[0].is_cancelled() and time.monotonic() < until:
            time.sleep(0.002)
        with open(os.path.join(os.path.dirname(__file__), "ended"), "a") as file:
            file.write("cancelled " if requests[0].is_cancelled() else "tired ")
        return [answer(value(request)) for request in requests]
"""


@pytest.mark.parametrize("way", ["http", "grpc cancel", "grpc deadline", "stream"])
def test_rule_26_a_running_model_learns_that_its_client_is_gone(tmp_path, way):
    folder = write_decoupled(tmp_path, "patient", PATIENT, more="")

    def text(name: str) -> str:
        file = folder / "1" / name
        return file.read_text() if file.exists() else ""

    with ServingThread(tmp_path) as serving:
        leave = leave_http(serving) if way == "http" else leave_grpc(serving, way)
        wait_until(lambda: text("begun"), "the model runs")
        leave()
        wait_until(lambda: text("ended"), "the model has ended")
        assert text("ended").split() == ["cancelled"]
        assert get(serving.http, "/v2/models/patient/ready").status == 200


def leave_http(serving):
    import http.client  # noqa: PLC0415 - its name would hide a fixture's

    connection = http.client.HTTPConnection(serving.http, timeout=TIMEOUT_S)
    connection.request("POST", "/v2/models/patient/infer", json.dumps({"inputs": [row(1, 2)]}))
    return connection.close


def leave_grpc(serving, way):
    channel = grpc.insecure_channel(serving.grpc)
    if way == "stream":
        return stream(channel, held(asked("patient", 1))).cancel
    timeout_s = 1.0 if way == "grpc deadline" else TIMEOUT_S
    call = unary(channel, "ModelInfer").future(asked("patient", 1), timeout=timeout_s)
    return call.cancel if way == "grpc cancel" else call.exception


# --- what is told of it ---------------------------------------------------------------------------------------------


def test_the_access_log_has_one_line_for_each_request_of_a_stream(repository):
    with ShoalProcess(repository, "--access-log") as shoal, channel_to(shoal.grpc) as channel:
        list(stream(channel, [asked("repeat", 5, "five"), asked("repeat", 0, "none")]))
        wait_until(lambda: len(requests_logged(shoal)) == 2, "both are logged")
        lines = requests_logged(shoal)
        assert {request_id: line["status"] for request_id, line in lines.items()} == {"five": 0, "none": 0}
        assert lines["five"]["nbytes"] > 5 * 8 > lines["none"]["nbytes"] == 0


def requests_logged(shoal) -> dict:
    return {record["request_id"]: record for record in shoal.records if record.get("request_id")}


def test_grpc_statistics_have_the_responses_by_index(serving, channel):
    list(stream(channel, [asked("repeat", 2)]))
    answer = unary(channel, "ModelStatistics")(service_pb2.ModelStatisticsRequest(name="repeat"), timeout=TIMEOUT_S)
    stats = answer.model_stats[0].response_stats
    assert {"0", "1", "2"} <= set(stats)
    assert stats["1"].success.count > 0
    assert stats["2"].empty_response.count > 0
    over_http = get(serving.http, "/v2/models/repeat/stats").json["model_stats"][0]["response_stats"]
    assert over_http["1"]["success"]["count"] == stats["1"].success.count
