"""Ensembles through a whole server, with real clients: answers, batches, memory, cancellation, crashes and the end."""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.grpc import service_pb2

from tests.clients import TIMEOUT_S, channel_to, get, grpc_row, infer, row, tensor, unary
from tests.execution.models import write_model
from tests.frontends.ensemble_lines import write_line
from tests.frontends.metrics_page import MetricsPage
from tests.gated import Gate, wait_until
from tests.in_process import ServingThread

WIDTH = 300_000
"""Of a large tensor: its bytes leave a model as a view of shared memory."""
KEPT_NBYTES = 2 << 20
SHOUT = """
class TritonPythonModel:
    def execute(self, requests):
        return [answer(value(request) + b"!") for request in requests]
"""
CRASH = """
class TritonPythonModel:
    def execute(self, requests):
        if value(requests[0])[0, 0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return [answer(value(request)) for request in requests]
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_model(folder, "double")
    write_model(folder, "double_again")
    write_model(folder, "crash", CRASH)
    texts = write_model(folder, "shout", SHOUT) / "config.pbtxt"
    texts.write_text(texts.read_text().replace("TYPE_FP32", "TYPE_STRING"))
    write_line(folder, "twice", "double", "double_again")
    write_line(folder, "shouting", "shout", "shout")
    texts = folder / "shouting" / "config.pbtxt"
    texts.write_text(texts.read_text().replace("TYPE_FP32", "TYPE_STRING"))
    write_line(folder, "cached", "double", "double_again", more="response_cache { enable: true }")
    write_line(folder, "four_times", "twice", "twice")
    write_line(folder, "crashing", "double", "crash")
    write_line(folder, "gated_line", "double", "gated")
    write_line(folder, "narrow_line", "double", "narrow", max_batch_size=1)
    return folder


@pytest.fixture(scope="module")
def gate(repository):
    return Gate(repository, max_batch_size=8)


@pytest.fixture(scope="module")
def narrow(repository):
    policy = "dynamic_batching { default_queue_policy { max_queue_size: 1 } }"
    return Gate(repository, "narrow", max_batch_size=1, more=policy)


@pytest.fixture(scope="module")
def serving(repository, gate, narrow):
    options = {"response_cache_byte_size": 1 << 20}
    with ServingThread(repository, **options) as serving:
        yield serving


@pytest.fixture(autouse=True)
def nothing_is_left(serving, gate):
    gate.close()
    gate.forget()
    yield
    gate.open()
    for model in ("gated", "double", "double_again", "twice", "gated_line"):
        wait_until(lambda model=model: in_flight(serving, model) == 0, f"all requests of {model} are done")
    for model in ("gated", "double", "double_again"):
        wait_until(lambda model=model: serving.used_nbytes(model) <= KEPT_NBYTES, f"the memory of {model} is free")


def in_flight(serving, model):
    return serving.call(lambda: serving.runtime(model).in_flight)


def tensor_of(client, array):
    made = client.InferInput("IN", list(array.shape), "FP32")
    made.set_data_from_numpy(array)
    return made


def statistics(serving, model):
    return json.loads(get(serving.http, f"/v2/models/{model}/stats").body)["model_stats"][0]


# --- answers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", [tritonclient.http, tritonclient.grpc], ids=["http", "grpc"])
@pytest.mark.parametrize(("model", "factor"), [("twice", 4), ("four_times", 16)])
def test_an_ensemble_answers_like_any_model(serving, client, model, factor):
    address = serving.http if client is tritonclient.http else serving.grpc
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    with client.InferenceServerClient(address) as connection:
        result = connection.infer(model, [tensor_of(client, array)], request_id="seven")
        np.testing.assert_array_equal(result.as_numpy("OUT"), array * factor)
        assert connection.is_model_ready(model)


def test_class_labels_are_made_of_the_answer_only(serving):
    array = np.array([[1, 3, 2]], np.float32)
    with tritonclient.http.InferenceServerClient(serving.http) as client:
        wanted = tritonclient.http.InferRequestedOutput("OUT", class_count=2)
        result = client.infer("twice", [tensor_of(tritonclient.http, array)], outputs=[wanted])
        assert result.as_numpy("OUT").tolist() == [[b"12.000000:1", b"8.000000:2"]]


def test_metadata_and_configuration(serving):
    metadata = json.loads(get(serving.http, "/v2/models/twice").body)
    assert metadata["platform"] == "ensemble"
    assert metadata["inputs"] == [{"name": "IN", "datatype": "FP32", "shape": [-1, -1]}]
    config = json.loads(get(serving.http, "/v2/models/twice/config").body)
    assert [step["model_name"] for step in config["ensemble_scheduling"]["step"]] == ["double", "double_again"]
    assert config["instance_group"] == []


def test_statistics_hold_the_whole_way(serving):
    """Section 2.9: an ensemble's times are those of its steps added up."""
    before = {model: statistics(serving, model) for model in ("twice", "double", "double_again")}
    for _ in range(5):
        assert infer(serving.http, "twice", row(1, 2)).status == 200
    after = {model: statistics(serving, model) for model in before}

    def grown(model, part):
        return after[model]["inference_stats"][part]["ns"] - before[model]["inference_stats"][part]["ns"]

    assert after["twice"]["execution_count"] - before["twice"]["execution_count"] == 5
    for part in ("compute_input", "compute_infer", "compute_output"):
        assert grown("twice", part) == grown("double", part) + grown("double_again", part) > 0
    assert grown("twice", "success") >= grown("double", "success") + grown("double_again", "success")


def test_metrics_have_the_ensemble(serving):
    infer(serving.http, "four_times", row(1))
    page = MetricsPage(SimpleNamespace(metrics=serving.address("metrics")))
    assert page.value("nv_inference_request_success", model="four_times") >= 1


def test_a_cached_ensemble_is_looked_up_as_a_whole(serving):
    """Section 1.8: the cache stands before the ensemble; its steps do not run again."""
    assert infer(serving.http, "cached", row(5)).json["outputs"][0]["data"] == [20]
    before = statistics(serving, "double")["execution_count"]
    assert infer(serving.http, "cached", row(5)).json["outputs"][0]["data"] == [20]
    assert statistics(serving, "double")["execution_count"] == before
    assert statistics(serving, "cached")["inference_stats"]["cache_hit"]["count"] == 1


# --- batches and memory ---------------------------------------------------------------------------------------------


def test_requests_of_ensembles_and_clients_share_batches(serving, gate):
    gate.close()
    with ThreadPoolExecutor(6) as clients:
        first = clients.submit(infer, serving.http, "gated", row(0))
        gate.wait_for_batches(1)
        later = [clients.submit(infer, serving.http, model, row(1)) for model in ["gated_line", "gated"] * 2]
        wait_until(lambda: serving.waiting("gated") == 4, "four requests wait")
        gate.open()
        assert [answer.result().status for answer in (first, *later)] == [200] * 5
    assert gate.batches == [[1], [1, 1, 1, 1]]


@pytest.mark.parametrize("client", [tritonclient.http, tritonclient.grpc], ids=["http", "grpc"])
def test_large_tensors_pass_and_their_memory_is_free_again(serving, client):
    address = serving.http if client is tritonclient.http else serving.grpc
    array = np.random.default_rng(0).random((2, WIDTH), np.float32)
    with client.InferenceServerClient(address) as connection:
        for _ in range(5):
            result = connection.infer("four_times", [tensor_of(client, array)])
            np.testing.assert_array_equal(result.as_numpy("OUT"), array * 16)
        del result


def test_a_large_request_is_received_where_its_first_step_reads_it(serving):
    arena = serving.call(lambda: serving.runtime("four_times").receive_arena)
    assert arena is serving.runtime("double").arena

    def offset():
        buffer = serving.serving.server.receive_buffer("four_times", -1, 1 << 20, 0)
        return arena.mapping.offset_of(buffer)

    assert serving.call(offset) >= 0


def test_texts_of_any_length_pass_and_share_batches(serving):
    """Plans hold the lengths of tensors, and texts have many."""
    texts = ["x" * length for length in (0, 1, 7, 300, 7, 70_000, 1)] + [str(number) * number for number in range(30)]

    def ask(text):
        given = tensor("IN", [1, 1], [text], "BYTES")
        return infer(serving.http, "shouting", given).json["outputs"][0]["data"]

    with ThreadPoolExecutor(8) as clients:
        assert list(clients.map(ask, texts)) == [[text + "!!"] for text in texts]


# --- things that go wrong -------------------------------------------------------------------------------------------


def test_a_worker_that_dies_fails_the_requests_of_its_ensemble_only(serving):
    reply = infer(serving.http, "crashing", row(-1))
    assert reply.status == 500
    assert reply.error.startswith("in ensemble 'crashing', step[1] 'crash': ")
    assert "SIGKILL" in reply.error
    assert infer(serving.http, "twice", row(1)).status == 200
    wait_until(lambda: infer(serving.http, "crashing", row(1)).status == 200, "a new worker is up")


def test_a_client_that_is_gone_takes_its_steps_along(serving, gate):
    with channel_to(serving.grpc) as channel:
        method = unary(channel, "ModelInfer")
        running = method.future(grpc_row("gated", 1))
        gate.wait_for_batches(1)
        calls = [method.future(grpc_row("gated_line", 1)) for _ in range(4)]
        wait_until(lambda: serving.waiting("gated") == 4, "the second step of four requests waits")
        for call in calls:
            call.cancel()
        wait_until(lambda: serving.waiting("gated") == 0, "none waits")
        assert in_flight(serving, "gated_line") == 0
        gate.open()
        assert running.result(TIMEOUT_S).outputs


def test_a_full_queue_of_a_step_is_told_with_its_status(serving, narrow):
    """Rule 40: UNAVAILABLE, through the ensemble, with the name of the step."""
    with ThreadPoolExecutor(2) as clients:
        running = [clients.submit(infer, serving.http, "narrow_line", row(0))]
        narrow.wait_for_batches(1)
        running.append(clients.submit(infer, serving.http, "narrow_line", row(0)))
        wait_until(lambda: serving.waiting("narrow") == 1, "the queue is full")
        reply = infer(serving.http, "narrow_line", row(1))
        assert reply.status == 503
        assert reply.error.startswith(
            "in ensemble 'narrow_line', step[1] 'narrow': [request id: <id_unknown>] Exceeds "
        )
        narrow.open()
        assert [answer.result().status for answer in running] == [200, 200]


def test_streams_take_ensembles(serving):
    def requests():
        for number in range(3):
            yield grpc_row("twice", number, id=str(number))

    with channel_to(serving.grpc) as channel:
        call = channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
        )
        answers = list(call(requests(), timeout=TIMEOUT_S))
    assert [answer.infer_response.id for answer in answers] == ["0", "1", "2"]


# --- the end --------------------------------------------------------------------------------------------------------


@pytest.fixture
def ending(tmp_path):
    write_model(tmp_path, "double")
    gate = Gate(tmp_path)
    write_line(tmp_path, "line", "gated", "double")
    with ServingThread(tmp_path) as serving:
        yield serving, gate


def test_a_stopping_server_finishes_the_ensembles_that_it_began(ending):
    """The models behind take the steps of requests that were taken before, though no others."""
    serving, gate = ending
    with ThreadPoolExecutor(1) as clients:
        answer = clients.submit(infer, serving.http, "line", row(3))
        gate.wait_for_batches(1)
        stopping = asyncio.run_coroutine_threadsafe(serving.serving.stop(20.0), serving._loop)
        wait_until(lambda: serving.serving.server.stopping, "the server stops")
        threading.Timer(0.1, gate.open).start()
        assert answer.result().json["outputs"][0]["data"] == [6]
        assert stopping.result(20)


def test_a_server_that_may_not_wait_tells_those_who_do(ending):
    serving, gate = ending
    with ThreadPoolExecutor(1) as clients:
        answer = clients.submit(infer, serving.http, "line", row(3))
        gate.wait_for_batches(1)
        stopping = asyncio.run_coroutine_threadsafe(serving.serving.stop(0.1), serving._loop)
        reply = answer.result()
        assert reply.status == 503
        gate.open()
        assert not stopping.result(20)
