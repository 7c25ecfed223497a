"""Ensembles with a decoupled model through a whole server: many answers to one request, and none too fast."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from tritonclient.grpc import service_pb2

from tests.clients import TIMEOUT_S, channel_to, grpc_row, infer, row
from tests.execution.models import write_model
from tests.frontends.ensemble_lines import write_line
from tests.gated import Gate, wait_until
from tests.in_process import ServingThread

LIMIT = 3
REPEAT = """
from pathlib import Path

SENT = Path(__file__).parent / "sent"

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender, given = request.get_response_sender(), value(request)
            for turn in range(int(given.flat[0])):
                if request.is_cancelled():
                    break
                sender.send(answer(given + turn))
                SENT.write_text(str(turn + 1))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""
CRASH_AT_TWELVE = """
class TritonPythonModel:
    def execute(self, requests):
        if any(value(request).flat[0] == 12 for request in requests):
            os.kill(os.getpid(), signal.SIGKILL)
        return [answer(value(request)) for request in requests]
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_model(folder, "repeat", REPEAT, more="model_transaction_policy { decoupled: true }")
    write_model(folder, "double", count=2)
    write_model(folder, "crash", CRASH_AT_TWELVE, max_batch_size=1)
    write_line(folder, "repeat_double", "repeat", "double")
    write_line(folder, "repeat_crash", "repeat", "crash", max_batch_size=1)
    write_line(folder, "repeat_gated", "repeat", "gated")
    write_line(folder, "limited", "repeat", "gated")
    config = folder / "limited" / "config.pbtxt"
    config.write_text(config.read_text().replace("scheduling {", f"scheduling {{ max_inflight_requests: {LIMIT}"))
    return folder


@pytest.fixture(scope="module")
def gate(repository):
    return Gate(repository, max_batch_size=8)


@pytest.fixture(scope="module")
def serving(repository, gate):
    with ServingThread(repository) as serving:
        yield serving


@pytest.fixture(autouse=True)
def nothing_is_left(serving, gate, repository):
    gate.close()
    gate.forget()
    (repository / "repeat" / "1" / "sent").unlink(missing_ok=True)
    yield
    gate.open()
    for model in ("repeat", "gated", "repeat_double", "limited", "repeat_gated", "repeat_crash"):
        wait_until(
            lambda model=model: serving.call(lambda: serving.runtime(model).in_flight) == 0, f"{model} has nothing left"
        )


def stream(channel, *requests) -> Iterator:
    call = channel.stream_stream(
        "/inference.GRPCInferenceService/ModelStreamInfer",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
    )
    return call(iter(requests), timeout=TIMEOUT_S)


def number(answer) -> float:
    return struct.unpack("<f", answer.infer_response.raw_output_contents[0])[0]


def sent(repository) -> int:
    try:
        return int((repository / "repeat" / "1" / "sent").read_text() or 0)
    except FileNotFoundError:
        return 0


def test_every_response_runs_the_rest_and_answers_keep_their_order(serving):
    """With two instances behind it, which can be done in any order."""
    with channel_to(serving.grpc) as channel:
        answers = [number(answer) for answer in stream(channel, grpc_row("repeat_double", 200))]
    assert answers == [2 * (200 + turn) for turn in range(200)]


def test_a_decoupled_ensemble_is_refused_where_decoupled_models_are(serving):
    reply = infer(serving.http, "repeat_double", row(2))
    assert reply.error == infer(serving.http, "repeat", row(2)).error
    assert "decoupled" in reply.error


def test_max_inflight_requests_holds_the_model_in_front(serving, gate, repository):
    """No more than the limit wait and run behind it, and it does not go on sending into the void."""
    with channel_to(serving.grpc) as channel:
        answers = stream(channel, grpc_row("limited", 100))
        gate.wait_for_batches(1)
        wait_until(lambda: serving.call(lambda: serving.runtime("gated").in_flight) == LIMIT, "the step is full")
        at_most = sent(repository)
        assert at_most < 50
        gate.open()
        most = 0
        for answer in answers:
            assert answer.error_message == ""
            most = max(most, serving.call(lambda: serving.runtime("gated").in_flight))
        assert most <= LIMIT
    assert sent(repository) == 100


def test_without_a_limit_nothing_is_held(serving, gate):
    with channel_to(serving.grpc) as channel:
        answers = stream(channel, grpc_row("repeat_gated", 40))
        wait_until(lambda: serving.call(lambda: serving.runtime("gated").in_flight) == 40, "all responses wait or run")
        gate.open()
        assert len(list(answers)) == 40


def test_a_client_that_is_gone_stops_the_decoupled_model_and_what_is_behind_it(serving, gate, repository):
    with channel_to(serving.grpc) as channel:
        answers = stream(channel, grpc_row("repeat_gated", 1_000_000))
        wait_until(lambda: serving.waiting("gated") > 2, "responses wait at the second step")
        answers.cancel()
        wait_until(lambda: serving.waiting("gated") == 0, "none waits any more")
        wait_until(lambda: serving.call(lambda: serving.runtime("repeat").in_flight) == 0, "the model has stopped")
    assert sent(repository) < 1_000_000


def test_a_step_that_fails_ends_the_stream_of_answers_once(serving):
    with channel_to(serving.grpc) as channel:
        answers = list(stream(channel, grpc_row("repeat_crash", 10)))
    errors = [answer.error_message for answer in answers if answer.error_message]
    assert len(errors) == 1
    assert errors[0].startswith("in ensemble 'repeat_crash', step[1] 'crash': ")
    assert [number(answer) for answer in answers if not answer.error_message] == [10, 11][: len(answers) - 1]
