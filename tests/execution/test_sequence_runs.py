"""Sequences from the first request to the last, through workers: iterative ones, lost workers, clients that go away."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shoal.errors import CancelledError, InvalidArgumentError, ModelError, ShoalError, UnavailableError, WorkerError
from shoal.testing.in_process import InProcessServer
from tests.execution.models import write_model
from tests.execution.sequence_models import (
    COUNTDOWN,
    IDLE,
    accumulator,
    batches_of,
    countdown_model,
    part,
    row,
    sum_model,
)
from tests.gated import wait_until

ITERATIVE = "iterative_sequence: true"


def test_iterative_requests_run_as_often_as_each_needs_in_batches_that_mix(tmp_path: Path):
    """Continuous batching: who is done leaves, who comes joins, and every request is answered once."""
    folder = countdown_model(tmp_path)
    steps = [3, 7, 1, 5, 2, 6, 4, 8]
    with InProcessServer(tmp_path) as server:
        pending = [server.submit("countdown", row(number)) for number in steps]
        assert [each.outputs()["OUT"].item() for each in pending] == [10 * number for number in steps]
        statistics = server.call(server.server.statistics, "countdown")["model_stats"][0]
        explained = server.call(server.server.explanation, "countdown")
    batches = batches_of(folder)
    runs = [each["id"] for batch in batches for each in batch]
    assert sorted(runs.count(number) for number in set(runs)) == sorted(steps)
    assert [each["flags"] for batch in batches for each in batch].count(1) == len(steps), "each starts once"
    assert max(len(batch) for batch in batches) == 4, "four sequences are candidates at a time"
    mixed = [batch for batch in batches if {each["flags"] for each in batch} == {0, 1}]
    assert mixed, "new requests joined a batch with old ones"
    assert statistics["inference_stats"]["success"]["count"] == len(steps)
    assert statistics["execution_count"] == len(batches)
    assert explained["batches"]["waited_us"] >= 0, "a run's wait counts up to that run, though its request waits again"
    assert all(each["first_queued_us"] >= each["taken_us"] for each in explained["recent"]), "both are ages"


def test_iterative_with_the_direct_strategy(tmp_path: Path):
    """Rows stay in their slots; a slot whose request is done is filled up with null requests."""
    code = COUNTDOWN.replace("key = request.correlation_id()", "key = request.correlation_id()\n        "
                             "if not key:\n            return answer(value(request))")  # fmt: skip
    countdown_model(tmp_path, batching=f"sequence_batching {{ {IDLE} direct {{ }} {ITERATIVE} }}", code=code)
    with InProcessServer(tmp_path) as server:
        pending = [server.submit("countdown", row(number)) for number in (3, 1, 5, 2, 4)]
        assert [each.outputs()["OUT"].item() for each in pending] == [30, 10, 50, 20, 40]


def test_an_iterative_sequence_may_bring_its_own_id(tmp_path: Path):
    folder = countdown_model(tmp_path)
    with InProcessServer(tmp_path) as server:
        assert server.infer("countdown", row(2), parameters=part("mine", "start"))["OUT"].item() == 20
        with pytest.raises(InvalidArgumentError, match="must specify the START flag"):
            server.infer("countdown", row(2), parameters=part("other"))
    assert [[each["id"] for each in batch] for batch in batches_of(folder)] == [["mine"], ["mine"]]


def test_a_cancelled_iterative_request_runs_no_more(tmp_path: Path):
    folder = countdown_model(tmp_path)
    with InProcessServer(tmp_path) as server:
        pending = server.submit("countdown", row(1_000_000))
        wait_until(lambda: batches_of(folder), "the first run")
        server.cancel(pending)
        with pytest.raises(CancelledError):
            pending.outputs()
        assert server.infer("countdown", row(1))["OUT"].item() == 10
        runs = len(batches_of(folder))
        assert server.infer("countdown", row(1))["OUT"].item() == 10
        assert len(batches_of(folder)) == runs + 1, "nothing else runs"


@pytest.mark.parametrize("batching", ["dynamic_batching { }", "sequence_batching { oldest { } }"])
def test_rescheduling_needs_an_iterative_model(tmp_path: Path, batching: str):
    countdown_model(tmp_path, batching=batching, code=COUNTDOWN.replace("self.left.get(key, 0)", "3"))
    parameters = part(1, "start") if "sequence" in batching else None
    with (
        InProcessServer(tmp_path) as server,
        pytest.raises(ModelError, match=r"RELEASE_RESCHEDULE.*iterative_sequence"),
    ):
        server.infer("countdown", row(2), parameters=parameters)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("return None", "return answer(value(request))", "Expected a None object in the execute function return list"),
        (
            "request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)",
            "pass",
            "Expected an 'InferenceResponse' object",
        ),
        ("TRITONSERVER_REQUEST_RELEASE_RESCHEDULE", "TRITONSERVER_REQUEST_RELEASE_ALL + 6", "not 7"),
    ],
)
def test_what_a_model_does_wrong_about_rescheduling_is_told(tmp_path: Path, old: str, new: str, message: str):
    assert old in COUNTDOWN
    countdown_model(tmp_path, code=COUNTDOWN.replace(old, new))
    with InProcessServer(tmp_path) as server:
        with pytest.raises(ModelError, match=message):
            server.infer("countdown", row(2))
        assert server.infer("countdown", row(1))["OUT"].item() == 10, "the model lives on"


STATEFUL_COUNTDOWN = """
class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            done = pb_utils.get_input_tensor_by_name(request, "S").as_numpy()
            done += 1
            if done[0, 0] < value(request)[0, 0]:
                request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
                responses.append(None)
            else:
                responses.append(answer(done * 100))
        return responses
"""


def test_the_state_of_an_iterative_sequence_is_kept_while_it_is_rescheduled(tmp_path: Path):
    state = "input_name: 'S' output_name: 'T' data_type: TYPE_FP32 dims: [ 1 ] use_same_buffer_for_input_output: true"
    more = f"sequence_batching {{ {IDLE} oldest {{ }} {ITERATIVE} state [ {{ {state} }} ] }}"
    write_model(tmp_path, "m", STATEFUL_COUNTDOWN, dims="1", more=more)
    with InProcessServer(tmp_path) as server:
        pending = [server.submit("m", row(number)) for number in (4, 2, 3)]
        assert [each.outputs()["OUT"].item() for each in pending] == [400, 200, 300]


def test_a_killed_worker_ends_its_sequences_and_a_new_start_begins_them_again(tmp_path: Path):
    sum_model(tmp_path)
    with InProcessServer(tmp_path) as server:
        for number in (1, 2):
            assert server.infer("sum", row(5), parameters=part(number, "start"))["OUT"].item() == 5
        with pytest.raises(WorkerError, match=r"SIGKILL|killed"):
            server.infer("sum", row(9), parameters=part(1))
        for number in (1, 2):
            with pytest.raises((InvalidArgumentError, UnavailableError), match="lost"):
                server.infer("sum", row(1), parameters=part(number))
        wait_until(lambda: server.call(server.server.model_ready, "sum"), "a new worker")
        assert server.infer("sum", row(7), parameters=part(1, "start"))["OUT"].item() == 7
        assert server.infer("sum", row(1), parameters=part(1, "end"))["OUT"].item() == 8


def test_implicit_states_of_a_killed_worker_are_forgotten(tmp_path: Path):
    accumulator(tmp_path)
    with InProcessServer(tmp_path) as server:
        server.infer("accumulator", row(5, 5), parameters=part(1, "start"))
        runtime = server.server.catalog.find("accumulator", -1).runtime
        server.call(lambda: runtime.groups[0].kill("a test killed it"))
        wait_until(lambda: not server.call(lambda: runtime.ready), "the end of the worker")
        with pytest.raises(ShoalError):
            server.infer("accumulator", row(1, 1), parameters=part(1))
        wait_until(lambda: server.call(lambda: runtime.ready), "a new worker")
        assert server.infer("accumulator", row(1, 1), parameters=part(1, "start"))["OUT"].tolist() == [[1, 1]]


def test_several_instances_keep_each_sequence_on_one_of_them(tmp_path: Path):
    """Were a request to reach the other instance, it would answer -1000 and less."""
    sum_model(tmp_path, strategy="oldest { max_candidate_sequences: 2 }", count=2)
    with InProcessServer(tmp_path) as server:
        for step in range(1, 6):
            flags = ["start"] if step == 1 else ["end"] if step == 5 else []
            pending = [server.submit("sum", row(number), parameters=part(number, *flags)) for number in (1, 2, 3, 4)]
            assert [each.outputs()["OUT"].item() for each in pending] == [step * number for number in (1, 2, 3, 4)]


def test_an_idle_sequence_is_forgotten(tmp_path: Path):
    accumulator(tmp_path)
    config = tmp_path / "accumulator" / "config.pbtxt"
    config.write_text(config.read_text().replace(IDLE, "max_sequence_idle_microseconds: 50000"))
    with InProcessServer(tmp_path) as server:
        server.infer("accumulator", row(1, 1), parameters=part(1, "start"))
        runtime = server.server.catalog.find("accumulator", -1).runtime
        wait_until(lambda: server.call(lambda: len(runtime._sequences._states)) == 0, "the end of an idle sequence")
        with pytest.raises(InvalidArgumentError, match="must specify the START flag"):
            server.infer("accumulator", row(1, 1), parameters=part(1))


def test_abandoning_ends_a_sequence_unless_it_was_begun_anew(tmp_path: Path):
    sum_model(tmp_path)
    with InProcessServer(tmp_path) as server:
        runtime = server.server.catalog.find("sum", -1).runtime
        first = server.submit("sum", row(1), parameters=part(1, "start"))
        first.outputs()
        again = server.submit("sum", row(1), parameters=part(1, "start"))
        again.outputs()
        server.call(runtime.abandon, 1, first.request.arrival_ns)
        assert server.infer("sum", row(1), parameters=part(1))["OUT"].item() == 2
        server.call(runtime.abandon, 1, again.request.arrival_ns)
        with pytest.raises(InvalidArgumentError, match="must specify the START flag"):
            server.infer("sum", row(1), parameters=part(1))


def test_cancelling_a_running_request_ends_its_sequence_and_frees_its_slot(tmp_path: Path):
    code = """
class TritonPythonModel:
    def execute(self, requests):
        open(os.path.join(os.path.dirname(__file__), "begun"), "a").close()
        while not os.path.exists(os.path.join(os.path.dirname(__file__), "open")):
            time.sleep(0.002)
        return [answer(value(request)) for request in requests]
"""
    more = f"sequence_batching {{ {IDLE} oldest {{ max_candidate_sequences: 1 }} }}"
    folder = write_model(tmp_path, "m", code, max_batch_size=1, dims="1", more=more)
    with InProcessServer(tmp_path) as server:
        running = server.submit("m", row(1), parameters=part(1, "start"))
        wait_until((folder / "1" / "begun").exists, "the first batch")
        queued = server.submit("m", row(2), parameters=part(1))
        backlog = server.submit("m", row(3), parameters=part(2, "start", "end"))
        server.cancel(running)
        with pytest.raises(CancelledError):
            queued.outputs()
        (folder / "1" / "open").touch()
        assert backlog.outputs()["OUT"].item() == 3
        with pytest.raises(InvalidArgumentError, match="must specify the START flag"):
            server.infer("m", row(1), parameters=part(1))


DECOUPLED = """
class TritonPythonModel:
    def initialize(self, args):
        self.left = {}

    def execute(self, requests):
        for request in requests:
            key = request.correlation_id()
            if request.flags() & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START:
                self.left[key] = int(value(request).flat[0])
            self.left[key] -= 1
            sender = request.get_response_sender()
            sender.send(answer(np.full((1, 1), self.left[key], np.float32)))
            if self.left[key]:
                request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
            else:
                sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        return None
"""


def test_a_decoupled_iterative_model_answers_at_every_step(tmp_path: Path):
    """One response for each run, as a text generator streams its tokens, and the end when the model says so."""
    batching = f"sequence_batching {{ {IDLE} oldest {{ max_candidate_sequences: 4 }} {ITERATIVE} }}"
    countdown_model(tmp_path, batching=f"{batching} model_transaction_policy {{ decoupled: true }}", code=DECOUPLED)
    with InProcessServer(tmp_path) as server:
        pending = [server.submit("countdown", row(steps)) for steps in (3, 5, 1, 2, 4)]
        wait_until(lambda: all(each.done for each in pending), "the end of all")
        told = [[np.frombuffer(answer.data[0], np.float32).item() for answer in each.answers] for each in pending]
    assert told == [list(range(steps - 1, -1, -1)) for steps in (3, 5, 1, 2, 4)]
