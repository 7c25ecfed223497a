"""Decoupled Python models end to end: every response comes, in order, and every request ends exactly once."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from shoal.errors import InternalError, ModelError, Status, UnavailableError, WorkerError
from shoal.testing.in_process import InProcessServer
from tests.execution.decoupled_models import write_decoupled
from tests.gated import wait_until

PATIENCE_S = 30.0


def ask(server: InProcessServer, model: str, number: float, rows: int = 1, width: int = 2, **more: object):
    return server.submit(model, {"IN": np.full((rows, width), number, np.float32)}, **more)


def firsts(pending) -> list[float]:
    """The first element of each response."""
    return [float(answer["OUT"].ravel()[0]) for answer in pending]


def runtime(server: InProcessServer, model: str):
    return server.server.catalog.find(model).runtime


def statistics(server: InProcessServer, model: str) -> dict:
    return server.call(server.server.statistics, model)["model_stats"][0]


@pytest.fixture(scope="module")
def repeat(tmp_path_factory):
    repository = tmp_path_factory.mktemp("repeat")
    write_decoupled(repository, "repeat")
    with InProcessServer(repository) as server:
        yield server


@pytest.mark.parametrize("count", [0, 1, 3, 1000])
def test_all_responses_come_in_their_order(repeat, count):
    assert firsts(ask(repeat, "repeat", count)) == list(range(count))


def test_many_requests_at_once_get_their_own(repeat):
    counts = [3, 0, 7, 1, 5] * 20
    pending = [ask(repeat, "repeat", count) for count in counts]
    assert [firsts(each) for each in pending] == [list(range(count)) for count in counts]


def test_the_single_answer_of_a_decoupled_model_is_not_to_be_had(repeat):
    with pytest.raises(ValueError, match="iterate over its answers"):
        ask(repeat, "repeat", 2).outputs()


def test_large_responses_pass_in_one_piece_each(tmp_path):
    """They are longer than the pipe between the processes, which must neither mix nor block."""
    code = """
    class TritonPythonModel:
        def execute(self, requests):
            for request in requests:
                in_thread(self.send, request.get_response_sender(), number(request))

        def send(self, sender, seed):
            for place in range(20):
                sender.send(answer(np.arange(seed + place, seed + place + 250_000, dtype=np.float32).reshape(1, -1)))
            sender.send(flags=FINAL)
    """
    write_decoupled(tmp_path, "large", code)
    with InProcessServer(tmp_path) as server:
        pending = {seed: ask(server, "large", seed) for seed in (0, 1000, 2000)}
        for seed, each in pending.items():
            for place, got in enumerate(each):
                assert got["OUT"].shape == (1, 250_000)
                assert got["OUT"][0, [0, -1]].tolist() == [seed + place, seed + place + 249_999]
            assert place == 19


def test_bytes_and_parameters_travel_with_a_response(tmp_path):
    code = """
    class TritonPythonModel:
        def execute(self, requests):
            for request in requests:
                sender = request.get_response_sender()
                text = np.array([["grüße", b"\\x00\\xff", ""]], dtype=object)
                sender.send(
                    pb_utils.InferenceResponse([pb_utils.Tensor("OUT", text)], parameters={"n": 1, "last": True}),
                    flags=FINAL,
                )
    """
    folder = write_decoupled(tmp_path, "text", code)
    config = folder / "config.pbtxt"
    config.write_text(config.read_text().replace('"OUT" data_type: TYPE_FP32', '"OUT" data_type: TYPE_STRING'))
    with InProcessServer(tmp_path) as server:
        pending = ask(server, "text", 1)
        assert [got["OUT"].tolist() for got in pending] == [[["grüße".encode(), b"\x00\xff", b""]]]
        assert pending.answers[0].parameters == {"n": 1, "last": True}


def test_an_error_in_the_middle_is_one_of_the_answers(tmp_path):
    code = """
    class TritonPythonModel:
        def execute(self, requests):
            for request in requests:
                sender = request.get_response_sender()
                sender.send(answer(value(request)))
                error = pb_utils.TritonError("in the middle", pb_utils.TritonError.INVALID_ARG)
                sender.send(pb_utils.InferenceResponse(error=error))
                sender.send(answer(value(request)), flags=FINAL)
    """
    write_decoupled(tmp_path, "errors", code)
    with InProcessServer(tmp_path) as server:
        first, error, last = ask(server, "errors", 7)
        assert (first["OUT"][0, 0], last["OUT"][0, 0]) == (7, 7)
        assert (type(error), error.message, error.status) == (ModelError, "in the middle", Status.INVALID_ARG)


def test_execute_may_be_a_coroutine(tmp_path):
    code = """
    import asyncio

    class TritonPythonModel:
        async def execute(self, requests):
            await asyncio.gather(*map(self.send, requests))

        async def send(self, request):
            sender = request.get_response_sender()
            for place in range(number(request)):
                await asyncio.sleep(0.001)
                sender.send(answer(np.full((1, 2), place, np.float32)))
            sender.send(flags=FINAL)
    """
    write_decoupled(tmp_path, "coroutine", code)
    with InProcessServer(tmp_path) as server:
        pending = [ask(server, "coroutine", count) for count in (3, 5)]
        assert [firsts(each) for each in pending] == [[0, 1, 2], [0, 1, 2, 3, 4]]


THREADED = """
class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            in_thread(self.send, request.get_response_sender(), number(request))

    def send(self, sender, count):
        sender.send(answer(np.full((1, 2), -1, np.float32)))
        wait_for(os.path.join(os.path.dirname(__file__), f"go{count}"))
        sender.send(answer(np.full((1, 2), count, np.float32)))
        sender.send(flags=FINAL)
"""


def test_the_instance_takes_the_next_batch_while_earlier_requests_still_stream(tmp_path):
    folder = write_decoupled(tmp_path, "threaded", THREADED)
    with InProcessServer(tmp_path) as server:
        slow = ask(server, "threaded", 1)
        wait_until(lambda: len(slow.answers) == 1, "the first answer")
        (folder / "1" / "go2").touch()
        assert firsts(ask(server, "threaded", 2)) == [-1, 2]
        assert not slow.done
        assert server.call(lambda: runtime(server, "threaded").in_flight) == 1
        (folder / "1" / "go1").touch()
        assert firsts(slow) == [-1, 1]


# --- requests that the model does not end ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        "return None",
        "requests[0].get_response_sender().send(answer(value(requests[0])))",
        "in_thread(lambda sender: sender.send(answer(value(requests[0]))), requests[0].get_response_sender())",
        "self.cycle = [requests[0].get_response_sender()]; self.cycle.append(self.cycle); del self.cycle; gc.collect()",
    ],
)
def test_a_request_that_is_given_up_without_a_final_response_fails_at_once(tmp_path, body):
    write_decoupled(
        tmp_path,
        "forgetful",
        f"import gc\nclass TritonPythonModel:\n    def execute(self, requests):\n        {body}\n",
    )
    with InProcessServer(tmp_path) as server:
        pending = ask(server, "forgetful", 1)
        *_, last = pending
        assert isinstance(last, ModelError)
        assert last.message.startswith("the model gave up its request without a final response")
        assert last.status is Status.INTERNAL


def test_a_request_that_the_model_holds_and_never_ends_fails_with_the_execution_timeout(tmp_path):
    code = """
    class TritonPythonModel:
        def initialize(self, args):
            self.held = []

        def execute(self, requests):
            for request in requests:
                sender = request.get_response_sender()
                sender.send(answer(value(request)))
                self.held.append(sender)
                if number(request) == 2:
                    sender.send(flags=FINAL)
    """
    write_decoupled(tmp_path, "holding", code)
    with InProcessServer(tmp_path, execution_timeout_s=0.4) as server:
        pid = runtime(server, "holding").groups[0].pid
        lost = ask(server, "holding", 1)
        with pytest.raises(WorkerError, match="returned from execute and sent nothing more"):
            list(lost)
        assert firsts(ask(server, "holding", 2)) == [2]
        assert runtime(server, "holding").groups[0].pid == pid, "nobody else was harmed"


def test_a_model_that_goes_on_sending_may_take_longer_than_the_execution_timeout(tmp_path):
    code = """
    class TritonPythonModel:
        def execute(self, requests):
            sender = requests[0].get_response_sender()
            for place in range(12):
                time.sleep(0.1)
                sender.send(answer(np.full((1, 2), place, np.float32)))
            sender.send(flags=FINAL)
    """
    write_decoupled(tmp_path, "steady", code)
    with InProcessServer(tmp_path, execution_timeout_s=0.6) as server:
        assert firsts(ask(server, "steady", 1)) == list(range(12))


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("os._exit(3)", "exited with code 3"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by signal 9 (SIGKILL)"),
    ],
)
def test_a_worker_that_dies_in_the_middle_ends_every_request_that_it_had(tmp_path, end, said):
    code = f"""
    class TritonPythonModel:
        def execute(self, requests):
            for request in requests:
                in_thread(self.send, request.get_response_sender(), number(request))

        def send(self, sender, code):
            sender.send(answer(np.full((1, 2), code, np.float32)))
            if code == 9:
                time.sleep(0.2)
                {end}
            if code == 1:
                sender.send(flags=FINAL)
            else:
                time.sleep(600)
    """
    write_decoupled(tmp_path, "crashing", code)
    with InProcessServer(tmp_path) as server:
        pending = [ask(server, "crashing", number) for number in (5, 5, 1, 9)]
        for each, number in zip(pending, (5, 5, 1, 9), strict=True):
            if number == 1:
                assert firsts(each) == [1]
                continue
            answers = iter(each)
            assert next(answers)["OUT"][0, 0] == number
            with pytest.raises(WorkerError) as failure:
                next(answers)
            assert said in failure.value.message
        assert firsts(ask(server, "crashing", 1)) == [1]
        assert server.call(lambda: runtime(server, "crashing").in_flight) == 0


def test_when_the_server_stops_open_requests_are_told(tmp_path):
    write_decoupled(tmp_path, "threaded", THREADED)
    with InProcessServer(tmp_path) as server:
        pending = ask(server, "threaded", 1)
        wait_until(lambda: len(pending.answers) == 1, "the first answer")
    with pytest.raises(UnavailableError):
        list(pending)


def test_draining_waits_for_open_requests(tmp_path):
    folder = write_decoupled(tmp_path, "threaded", THREADED)
    with InProcessServer(tmp_path) as server:
        pending = ask(server, "threaded", 1)
        wait_until(lambda: len(pending.answers) == 1, "the first answer")
        opener = threading.Timer(0.3, (folder / "1" / "go1").touch)
        opener.start()
        assert server.run(server.server.drain(PATIENCE_S)) is True
        assert firsts(pending) == [-1, 1]


# --- failures of execute --------------------------------------------------------------------------------------------


def test_what_is_sent_after_execute_failed_reaches_nobody_and_says_so(tmp_path):
    code = """
    class TritonPythonModel:
        def initialize(self, args):
            self.said = None

        def execute(self, requests):
            sender = requests[0].get_response_sender()
            if self.said:
                sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError(self.said)), flags=FINAL)
                return
            in_thread(self.late, sender)
            raise ValueError("no")

        def late(self, sender):
            time.sleep(0.1)
            try:
                sender.send(flags=FINAL)
            except pb_utils.TritonModelException as error:
                self.said = str(error)
    """
    write_decoupled(tmp_path, "failing", code)
    with InProcessServer(tmp_path) as server:
        with pytest.raises(ModelError, match="ValueError: no"):
            list(ask(server, "failing", 1))

        def said():
            try:
                return list(ask(server, "failing", 1))
            except ModelError:
                return []

        found: list = []
        wait_until(lambda: found.extend(said()) or found, "the thread has tried")
        assert found[0].message == "Unable to send response. Response sender has been closed."


# --- numbers --------------------------------------------------------------------------------------------------------


def test_statistics_count_requests_once_and_responses_by_their_index(tmp_path):
    """Section 2.9: response_stats by index; a request counts as one success, whatever its responses were."""
    code = """
    class TritonPythonModel:
        def execute(self, requests):
            if number(requests[0]) == 9:
                raise ValueError("no")
            sender = requests[0].get_response_sender()
            sender.send(answer(value(requests[0])))
            sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError("no")))
            sender.send(pb_utils.InferenceResponse([]))
            cancelled = pb_utils.TritonError("gone", pb_utils.TritonError.CANCELLED)
            sender.send(pb_utils.InferenceResponse(error=cancelled))
            sender.send(flags=FINAL)
    """
    write_decoupled(tmp_path, "kinds", code)
    with InProcessServer(tmp_path) as server:
        for _ in range(2):
            assert len(list(ask(server, "kinds", 1, rows=3))) == 4
        with pytest.raises(ModelError):
            list(ask(server, "kinds", 9))
        found = statistics(server, "kinds")
    stats = found["inference_stats"]
    assert (stats["success"]["count"], stats["fail"]["count"]) == (2, 1)
    assert (found["inference_count"], found["execution_count"]) == (6, 3)
    assert stats["queue"]["count"] == stats["compute_infer"]["count"] == 2
    assert stats["success"]["ns"] >= stats["compute_infer"]["ns"] > 0
    kinds = ("success", "fail", "empty_response", "cancel", "compute_infer", "compute_output")
    counts = {index: [entry[kind]["count"] for kind in kinds] for index, entry in found["response_stats"].items()}
    assert counts == {
        "0": [2, 0, 0, 0, 2, 2],
        "1": [0, 2, 0, 0, 2, 2],
        "2": [0, 0, 2, 0, 0, 0],
        "3": [0, 0, 0, 2, 0, 0],
        "4": [0, 0, 2, 0, 0, 0],
    }
    first = found["response_stats"]["0"]
    assert first["success"]["ns"] == first["compute_infer"]["ns"] + first["compute_output"]["ns"] > 0


ITERATIVE = """
sequence_batching { iterative_sequence: true oldest { max_candidate_sequences: 4 } }
model_transaction_policy { decoupled: true }
"""


def test_an_iterative_sequence_answers_once_in_every_turn(tmp_path):
    """Continuous batching: the request runs again and again, each time under another number, until it is final."""
    code = """
    class TritonPythonModel:
        def initialize(self, args):
            self.counts = {}

        def execute(self, requests):
            for request in requests:
                starts = request.flags() & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START
                count = 0 if starts else self.counts[request.correlation_id()] + 1
                self.counts[request.correlation_id()] = count
                last = count == number(request) - 1
                response = answer(np.full((1, 2), count, np.float32))
                request.get_response_sender().send(response, flags=FINAL if last else 0)
                if not last:
                    request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
    """
    write_decoupled(tmp_path, "iterative", code, more=ITERATIVE)
    with InProcessServer(tmp_path) as server:
        pending = {number: ask(server, "iterative", number) for number in (3, 1, 5)}
        assert {number: firsts(each) for number, each in pending.items()} == {
            number: list(range(number)) for number in pending
        }
        assert statistics(server, "iterative")["inference_stats"]["success"]["count"] == 3


def test_more_requests_than_can_be_told_apart_are_refused(tmp_path, monkeypatch):
    folder = write_decoupled(
        tmp_path, "threaded", THREADED, max_batch_size=0, more="model_transaction_policy { decoupled: true }"
    )
    file = folder / "1" / "model.py"
    file.write_text(file.read_text().replace("value(request)[0, 0]", "value(request)[0]").replace("(1, 2)", "2"))
    monkeypatch.setattr("shoal.execution.streams.StreamTable", lambda: StreamTable(3))
    from shoal.execution.stream_table import StreamTable  # noqa: PLC0415 - the real one, for the small one

    with InProcessServer(tmp_path) as server:

        def send(number):
            return server.submit("threaded", {"IN": np.full(2, number, np.float32)})

        pending = [send(1) for _ in range(3)]
        wait_until(lambda: all(each.answers for each in pending), "all have begun")
        with pytest.raises(UnavailableError, match="3 requests of this model instance are still being answered"):
            list(send(1))
        (folder / "1" / "go1").touch()
        assert [firsts(each) for each in pending] == [[-1, 1]] * 3
        assert firsts(send(1)) == [-1, 1]


def test_a_response_of_the_wrong_type_is_an_error_and_the_stream_goes_on(tmp_path):
    code = """
    class TritonPythonModel:
        def execute(self, requests):
            sender = requests[0].get_response_sender()
            sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.zeros((1, 2)))]))
            sender.send(answer(value(requests[0])), flags=FINAL)
    """
    write_decoupled(tmp_path, "wrong", code)
    with InProcessServer(tmp_path) as server:
        error, good = ask(server, "wrong", 4)
        assert isinstance(error, InternalError | ModelError)
        assert "output 'OUT' with data type FP64, but its configuration says FP32" in error.message
        assert good["OUT"][0, 0] == 4
