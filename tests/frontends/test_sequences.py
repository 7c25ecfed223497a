"""Sequences with the official clients, over HTTP, gRPC and gRPC streams, against ``shoal serve``."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from tritonclient.utils import InferenceServerException

from tests.clients import HttpConnection, body_of, channel_to, infer, tensor, unary
from tests.clients import row as json_row
from tests.execution.models import write_model
from tests.execution.sequence_models import IDLE, accumulator, batches_of, countdown_model, state_config, sum_model
from tests.frontends.ensemble_lines import write_line
from tests.gated import Gate
from tests.serving import ShoalProcess

TIMEOUT_S = 20
MODULES = {"http": http_client, "grpc": grpc_client}


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    repository = tmp_path_factory.mktemp("models")
    sum_model(repository, "sum")
    sum_model(repository, "direct", "direct { }")
    sum_model(repository, "named", "oldest { max_candidate_sequences: 4 }", "STRING")
    sum_model(repository, "narrow", "oldest { max_candidate_sequences: 1 }", max_batch_size=1)
    write_line(repository, "line", "narrow", max_batch_size=1)
    accumulator(repository, state_config("1", strategy="direct { }"), width=1)
    countdown_model(repository)
    write_model(repository, "plain", max_batch_size=4, dims="1")
    return repository


@pytest.fixture(scope="module")
def shoal(repository) -> Iterator[ShoalProcess]:
    with ShoalProcess(repository) as shoal:
        yield shoal


@pytest.fixture(params=MODULES)
def module(request):
    return MODULES[request.param]


def an_input(module, number: float):
    array = np.full((1, 1), number, np.float32)
    made = module.InferInput("IN", array.shape, "FP32")
    made.set_data_from_numpy(array)
    return made


@contextmanager
def connected(module, shoal: ShoalProcess) -> Iterator[object]:
    client = module.InferenceServerClient(shoal.http if module is http_client else shoal.grpc)
    try:
        yield client
    finally:
        client.close()


def ask(module, client, model: str, number: float, sequence: int | str, **flags: bool) -> float:
    answer = client.infer(model, [an_input(module, number)], sequence_id=sequence, **flags)
    return answer.as_numpy("OUT").item()


@pytest.mark.parametrize("model", ["sum", "direct", "accumulator"])
def test_sequences_over_several_connections_at_once(module, shoal, model):
    """Each thread has a connection and a sequence of its own; none sees another's numbers."""

    def run(sequence: int) -> list[float]:
        with connected(module, shoal) as client:
            return [
                ask(module, client, model, sequence, sequence, sequence_start=step == 1, sequence_end=step == 8)
                for step in range(1, 9)
            ]

    with ThreadPoolExecutor(6) as threads:
        for sequence, sums in zip(range(1, 7), threads.map(run, range(1, 7)), strict=True):
            assert sums == [sequence * step for step in range(1, 9)]


def test_a_sequence_goes_on_over_another_connection_and_protocol(shoal):
    with connected(http_client, shoal) as client:
        assert ask(http_client, client, "sum", 1, 77, sequence_start=True) == 1
    with connected(grpc_client, shoal) as client:
        assert ask(grpc_client, client, "sum", 2, 77) == 3
    with connected(http_client, shoal) as client:
        assert ask(http_client, client, "sum", 4, 77, sequence_end=True) == 7


def test_rule_44_string_ids(module, shoal):
    with connected(module, shoal) as client:
        for step in (1, 2, 3):
            for name in ("first", "zwölf"):
                found = ask(module, client, "named", len(name), name, sequence_start=step == 1, sequence_end=step == 3)
                assert found == step * len(name)


def test_rule_44_requests_without_an_id_and_rule_45_without_a_start_are_refused(module, shoal):
    with connected(module, shoal) as client:
        with pytest.raises(InferenceServerException, match="must specify a non-zero or non-empty correlation ID"):
            client.infer("sum", [an_input(module, 1)])
        with pytest.raises(InferenceServerException, match="sequence 4711 to model 'sum' must specify the START flag"):
            ask(module, client, "sum", 1, 4711)


def test_a_plain_model_takes_no_notice_of_sequence_parameters(module, shoal):
    with connected(module, shoal) as client:
        assert ask(module, client, "plain", 4, 1) == 8


def test_iterative_requests_need_no_parameters(module, shoal):
    with ThreadPoolExecutor(8) as threads, connected(module, shoal):

        def run(number: int) -> float:
            with connected(module, shoal) as client:
                return client.infer("countdown", [an_input(module, number)]).as_numpy("OUT").item()

        assert list(threads.map(run, range(1, 9))) == [10 * number for number in range(1, 9)]


# --- streams ---------------------------------------------------------------------------------------------------------


class Stream:
    """A stream of requests, answered in their order; a context manager."""

    def __init__(self, shoal: ShoalProcess) -> None:
        self.client = grpc_client.InferenceServerClient(shoal.grpc)
        self.answers: queue.Queue = queue.Queue()

    def __enter__(self) -> Stream:
        self.client.start_stream(lambda result, error: self.answers.put(error or result))
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def send(self, model: str, number: float, sequence: int | str, *flags: str) -> None:
        self.client.async_stream_infer(
            model,
            [an_input(grpc_client, number)],
            sequence_id=sequence,
            **{f"sequence_{flag}": True for flag in flags},
        )

    def receive(self) -> float:
        answer = self.answers.get(timeout=TIMEOUT_S)
        if isinstance(answer, Exception):
            raise answer
        return answer.as_numpy("OUT").item()

    def ask(self, *request) -> float:
        self.send(*request)
        return self.receive()


@pytest.mark.parametrize("model", ["sum", "direct", "accumulator"])
def test_interleaved_sequences_on_one_stream(shoal, model):
    with Stream(shoal) as stream:
        sent = [(sequence, step) for step in range(1, 6) for sequence in (11, 12, 13)]
        for sequence, step in sent:
            flags = [*(["start"] if step == 1 else []), *(["end"] if step == 5 else [])]
            stream.send(model, sequence, sequence, *flags)
        assert [stream.receive() for _ in sent] == [sequence * step for sequence, step in sent]


def test_several_streams_with_string_ids(shoal):
    with Stream(shoal) as first, Stream(shoal) as second:
        for step in range(1, 4):
            flags = [*(["start"] if step == 1 else []), *(["end"] if step == 3 else [])]
            first.send("named", 1, "a", *flags)
            second.send("named", 2, "b", *flags)
        assert [first.receive() for _ in range(3)] == [1, 2, 3]
        assert [second.receive() for _ in range(3)] == [2, 4, 6]


@pytest.mark.parametrize("model", ["narrow", "line"])
def test_a_cancelled_stream_ends_the_sequences_that_it_began(shoal, model):
    """The one slot of the model is free again at once, although the sequence was neither ended nor idle for long."""
    with Stream(shoal) as stream, connected(grpc_client, shoal) as client:
        assert stream.ask(model, 1, 5, "start") == 1
        with ThreadPoolExecutor(1) as thread:
            waiting = thread.submit(ask, grpc_client, client, "narrow", 3, 6, sequence_start=True, sequence_end=True)
            stream.client.stop_stream(cancel_requests=True)
            assert waiting.result(TIMEOUT_S) == 3
        with pytest.raises(InferenceServerException, match="must specify the START flag"):
            ask(grpc_client, client, "narrow", 1, 5)


def test_a_stream_that_ends_in_good_order_leaves_its_sequences_alone(shoal):
    with Stream(shoal) as stream:
        assert stream.ask("sum", 1, 21, "start") == 1
        stream.client.stop_stream()
    with connected(grpc_client, shoal) as client:
        assert ask(grpc_client, client, "sum", 2, 21, sequence_end=True) == 3


def test_a_broken_stream_does_not_end_a_sequence_that_another_one_began_anew(shoal):
    with Stream(shoal) as first, Stream(shoal) as second:
        assert first.ask("sum", 1, 31, "start") == 1
        assert second.ask("sum", 2, 31, "start") == 2
        first.client.stop_stream(cancel_requests=True)
        assert first.client.is_server_live(), "asked on the same connection: the server has seen the end of the stream"
        assert second.ask("sum", 3, 31, "end") == 5


def test_an_http_client_that_goes_away_ends_its_sequence(tmp_path):
    """Its request runs when it goes; the next sequence gets the slot when that batch is done."""
    gate = Gate(tmp_path, dims="1", max_batch_size=1, more=f"sequence_batching {{ direct {{ }} {IDLE} }}")
    with ShoalProcess(tmp_path) as shoal:
        body, headers = body_of(json_row(1), parameters={"sequence_id": 5, "sequence_start": True})
        with HttpConnection(shoal.http) as connection:
            connection.connection.request("POST", "/v2/models/gated/infer", body, headers)
            gate.wait_for_batches(1)
        with ThreadPoolExecutor(1) as thread:
            parameters = {"sequence_id": 6, "sequence_start": True, "sequence_end": True}
            waiting = thread.submit(infer, shoal.http, "gated", json_row(2), parameters=parameters)
            gate.open()
            assert waiting.result(TIMEOUT_S).json["outputs"][0]["data"] == [2]
        refused = infer(shoal.http, "gated", json_row(1), parameters={"sequence_id": 5})
        assert "must specify the START flag" in refused.error


def test_a_grpc_client_that_cancels_ends_its_sequence(tmp_path):
    gate = Gate(tmp_path, dims="1", max_batch_size=1, more=f"sequence_batching {{ direct {{ }} {IDLE} }}")
    with ShoalProcess(tmp_path) as shoal, connected(grpc_client, shoal) as client, channel_to(shoal.grpc) as channel:
        request = grpc_client.service_pb2.ModelInferRequest(
            model_name="gated",
            inputs=[an_input(grpc_client, 1)._get_tensor()],
            raw_input_contents=[np.float32(1).tobytes()],
        )
        request.parameters["sequence_id"].int64_param = 5
        request.parameters["sequence_start"].bool_param = True
        call = unary(channel, "ModelInfer").future(request)
        gate.wait_for_batches(1)
        call.cancel()
        with ThreadPoolExecutor(1) as thread:
            waiting = thread.submit(ask, grpc_client, client, "gated", 2, 6, sequence_start=True, sequence_end=True)
            gate.open()
            assert waiting.result(TIMEOUT_S) == 2
        with pytest.raises(InferenceServerException, match="must specify the START flag"):
            ask(grpc_client, client, "gated", 1, 5)


def test_perf_style_json_requests_carry_controls_to_the_model(shoal, repository):
    """Raw JSON without any client library: what the model saw is what the request said."""
    parameters = {"sequence_id": "json", "sequence_start": True, "sequence_end": True}
    answer = infer(shoal.http, "named", tensor("IN", [1, 1], [2.5]), parameters=parameters, id="j1")
    assert answer.json["outputs"][0]["data"] == [2.5]
    seen = batches_of(repository / "named")[-1]
    assert [each["controls"]["CORRID"][2] for each in seen] == [["json"]]
    assert [each["flags"] for each in seen] == [3]
