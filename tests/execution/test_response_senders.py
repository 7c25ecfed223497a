"""Response senders in models that are not decoupled: exactly one answer, in execute or after it."""

from __future__ import annotations

import numpy as np
import pytest

from shoal.errors import ModelError, Status, WorkerError
from shoal.testing.in_process import InProcessServer
from tests.execution.decoupled_models import write_decoupled
from tests.gated import wait_until

BATCHED = "dynamic_batching { max_queue_delay_microseconds: 50000 }"


def ask(server, model, number, rows=1, width=2):
    return server.submit(model, {"IN": np.full((rows, width), number, np.float32)})


def first(pending) -> float:
    return float(pending.outputs()["OUT"][0, 0])


def runtime(server, model):
    return server.server.catalog.find(model).runtime


MIXED = """
class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        sender = request.get_response_sender() if number(request) != 0 else None
        if number(request) == 1:
            array = value(request) * 2
            sender.send(answer(array))
            array[:] = -1
            return None
        if number(request) == 2:
            in_thread(self.later, sender, value(request) * 2)
            return None
        if number(request) == 3:
            sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError("no", pb_utils.TritonError.NOT_FOUND)))
            return None
        return answer(value(request) * 2)

    def later(self, sender, array):
        time.sleep(0.05)
        sender.send(answer(array), flags=FINAL)
"""


def test_in_one_batch_some_answers_are_returned_some_sent_and_some_come_later(tmp_path):
    """What was sent is sent: a model may go on using its array."""
    write_decoupled(tmp_path, "mixed", MIXED, more=BATCHED)
    with InProcessServer(tmp_path) as server:
        for _ in range(5):
            pending = [ask(server, "mixed", number, rows=1 + number % 2) for number in (0, 1, 2, 3, 4)]
            assert [first(pending[number]) for number in (0, 1, 2, 4)] == [0, 2, 4, 8]
            with pytest.raises(ModelError, match="no") as failure:
                pending[3].outputs()
            assert failure.value.status is Status.NOT_FOUND
        stats = server.call(server.server.statistics, "mixed")["model_stats"][0]
        assert (stats["inference_stats"]["success"]["count"], stats["inference_stats"]["fail"]["count"]) == (20, 5)
        assert (stats["inference_count"], stats["response_stats"]) == (5 * 5, {})
        assert server.call(lambda: runtime(server, "mixed").in_flight) == 0


QUEUED = """
import queue

class TritonPythonModel:
    def initialize(self, args):
        self.queue, self.batches = queue.Queue(), 0
        in_thread(self.work)

    def execute(self, requests):
        self.batches += 1
        for request in requests:
            self.queue.put((request, request.get_response_sender()))

    def work(self):
        waiting = []
        while True:
            waiting.append(self.queue.get())
            if len(waiting) == 3:
                for request, sender in reversed(waiting):
                    sender.send(answer(value(request) + 100 * self.batches))
                waiting.clear()
                del request, sender
"""


def test_a_model_may_collect_requests_of_several_batches_before_it_answers(tmp_path):
    """The instance is free when execute has returned, although nothing is answered; inputs stay readable."""
    write_decoupled(tmp_path, "queued", QUEUED, more="")
    with InProcessServer(tmp_path) as server:
        pending = [ask(server, "queued", number, width=2) for number in (1, 2, 3)]
        assert [first(each) for each in pending] == [301, 302, 303]
        large = [ask(server, "queued", number, width=100_000) for number in (1, 2, 3)]
        assert [first(each) for each in large] == [601, 602, 603]


@pytest.mark.parametrize("returned", ["None", "[None] * len(requests)"])
def test_an_answer_that_nobody_can_send_any_more_is_an_error(tmp_path, returned):
    code = f"""
    class TritonPythonModel:
        def execute(self, requests):
            for request in requests:
                request.get_response_sender()
            return {returned}
    """
    write_decoupled(tmp_path, "forgetful", code, more="")
    with InProcessServer(tmp_path) as server, pytest.raises(ModelError, match="returned no response for its request"):
        ask(server, "forgetful", 1).outputs()


@pytest.mark.parametrize(
    ("returned", "text"),
    [
        ("None", "Expected a list in the execute return, found type '<class 'NoneType'>'"),
        ("[None]", "Expected an 'InferenceResponse' object in the execute function return list, found type"),
        ("(requests[0].get_response_sender(), [5])[1]", "found type '<class 'int'>'"),
        ("(requests[0].get_response_sender(), [])[1]", "Number of InferenceResponse objects do not match"),
    ],
)
def test_returning_nothing_without_a_sender_is_refused_as_before(tmp_path, returned, text):
    code = f"class TritonPythonModel:\n    def execute(self, requests):\n        return {returned}\n"
    write_decoupled(tmp_path, "nothing", code, more="")
    with InProcessServer(tmp_path) as server:
        with pytest.raises(ModelError) as failure:
            ask(server, "nothing", 1).outputs()
        assert text in failure.value.message


def test_what_was_sent_before_execute_failed_is_an_answer_and_the_rest_fails(tmp_path):
    code = """
    class TritonPythonModel:
        def execute(self, requests):
            requests[0].get_response_sender().send(answer(value(requests[0])), flags=FINAL)
            raise ValueError("too late")
    """
    write_decoupled(tmp_path, "failing", code, more=BATCHED)
    with InProcessServer(tmp_path) as server:
        good, bad = ask(server, "failing", 4), ask(server, "failing", 5)
        assert first(good) == 4
        with pytest.raises(ModelError, match="ValueError: too late"):
            bad.outputs()


def test_a_worker_that_dies_before_the_later_answer_ends_the_request(tmp_path):
    code = """
    class TritonPythonModel:
        def execute(self, requests):
            in_thread(self.die, requests[0].get_response_sender())
            return [None]

        def die(self, sender):
            time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    write_decoupled(tmp_path, "dying", code, more="")
    with InProcessServer(tmp_path) as server, pytest.raises(WorkerError, match="SIGKILL"):
        ask(server, "dying", 1).outputs()


def test_a_later_answer_that_never_comes_fails_with_the_execution_timeout(tmp_path):
    code = """
    class TritonPythonModel:
        held = []

        def execute(self, requests):
            self.held += [request.get_response_sender() for request in requests]
    """
    write_decoupled(tmp_path, "holding", code, more="")
    with InProcessServer(tmp_path, execution_timeout_s=0.3) as server:
        with pytest.raises(WorkerError, match="returned from execute and sent nothing more"):
            ask(server, "holding", 1).outputs()
        wait_until(lambda: server.call(lambda: runtime(server, "holding").in_flight) == 0, "nothing is left")
