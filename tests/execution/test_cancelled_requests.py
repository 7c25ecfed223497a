"""request.is_cancelled() and sender.is_cancelled() tell the truth while the model runs, of their own request only."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from shoal.errors import ModelError
from shoal.testing.in_process import InProcessServer
from tests.execution.decoupled_models import DECOUPLED, write_decoupled
from tests.gated import wait_until

WAITING = """
class TritonPythonModel:
    def execute(self, requests):
        begun = os.path.join(os.path.dirname(__file__), "begun")
        with open(begun, "a") as file:
            file.write("x" * len(requests))
        until = time.monotonic() + 20
        while not any(request.is_cancelled() for request in requests) and time.monotonic() < until:
            time.sleep(0.002)
        return [answer(np.full_like(value(request), request.is_cancelled())) for request in requests]
"""


def ask(server, model, number=1.0, width=2):
    return server.submit(model, {"IN": np.full((1, width), number, np.float32)})


def begun(folder) -> int:
    try:
        return len((folder / "1" / "begun").read_text())
    except FileNotFoundError:
        return 0


@pytest.mark.parametrize("width", [2, 50_000])
def test_a_running_request_of_a_batch_learns_that_it_is_cancelled_and_the_others_do_not(tmp_path, width):
    """Small inputs are gathered, large ones left in place: places in the batch are told apart either way."""
    folder = write_decoupled(
        tmp_path, "waiting", WAITING, more="dynamic_batching { max_queue_delay_microseconds: 200000 }", max_batch_size=3
    )
    with InProcessServer(tmp_path) as server:
        for victim in (1, 0, 2):
            count = begun(folder)
            pending = [ask(server, "waiting", width=width) for _ in range(3)]
            wait_until(lambda count=count: begun(folder) == count + 3, "the batch has begun")
            server.cancel(pending[victim])
            flags = [bool(each.outputs()["OUT"][0, 0]) for each in pending]
            assert flags == [place == victim for place in range(3)], "no mark is left from the batch before"


def test_a_cancelled_request_in_the_queue_marks_nobody(tmp_path):
    folder = write_decoupled(tmp_path, "waiting", WAITING, more="")
    with InProcessServer(tmp_path) as server:
        running, queued = ask(server, "waiting"), ask(server, "waiting")
        wait_until(lambda: begun(folder) == 1, "the first runs")
        server.cancel(queued)
        with pytest.raises(Exception, match="cancelled while it waited in the queue"):
            queued.outputs()
        server.cancel(running)
        assert running.outputs()["OUT"][0, 0] == 1


ENDLESS = """
class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            in_thread(self.send, request.get_response_sender(), number(request))

    def send(self, sender, seed):
        until, place = time.monotonic() + 20, 0
        while not sender.is_cancelled() and time.monotonic() < until:
            sender.send(answer(np.full((1, 2), seed, np.float32)))
            time.sleep(0.002)
        gone = pb_utils.TritonError(f"stopped: {sender.is_cancelled()}", pb_utils.TritonError.CANCELLED)
        sender.send(pb_utils.InferenceResponse(error=gone), flags=FINAL)
"""


def test_a_decoupled_request_learns_it_long_after_its_batch(tmp_path):
    write_decoupled(tmp_path, "endless", ENDLESS)
    with InProcessServer(tmp_path) as server:
        pending = [ask(server, "endless", seed) for seed in (1, 2, 3)]
        for each in pending:
            wait_until(lambda each=each: len(each.answers) > 3, "it sends")
        for each in (pending[1], pending[0], pending[2]):
            open_before = [other for other in pending if not other.done]
            server.cancel(each)
            *answers, last = each
            assert isinstance(last, ModelError)
            assert last.message == "stopped: True"
            assert {float(got["OUT"][0, 0]) for got in answers} == {pending.index(each) + 1.0}
            others = [other for other in open_before if other is not each]
            counts = [len(other.answers) for other in others]
            for other, count in zip(others, counts, strict=True):
                wait_until(lambda other=other, count=count: len(other.answers) > count + 3, "others go on")


LATER = """
class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            if number(request) == 1:
                in_thread(self.send, request, request.get_response_sender())
            else:
                request.get_response_sender().send(answer(value(request)))

    def send(self, request, sender):
        until = time.monotonic() + 20
        while not request.is_cancelled() and time.monotonic() < until:
            time.sleep(0.002)
        sender.send(answer(np.full((1, 2), float(sender.is_cancelled()), np.float32)))
"""


def test_a_request_that_is_answered_later_learns_it_too(tmp_path):
    write_decoupled(tmp_path, "later", LATER, more="")
    with InProcessServer(tmp_path) as server:
        pending = ask(server, "later", 1)
        for _ in range(5):
            assert ask(server, "later", 7).outputs()["OUT"][0, 0] == 7
        server.cancel(pending)
        assert pending.outputs()["OUT"][0, 0] == 1


def test_the_model_of_a_client_that_does_not_keep_up_waits_and_goes_on(tmp_path):
    code = """
    class TritonPythonModel:
        def execute(self, requests):
            sender = requests[0].get_response_sender()
            for place in range(200):
                sender.send(answer(np.full((1, 2), place, np.float32)))
                time.sleep(0.002)
            sender.send(flags=FINAL)
    """
    write_decoupled(tmp_path, "sending", code, more=DECOUPLED)
    with InProcessServer(tmp_path, execution_timeout_s=0.3) as server:
        pending = ask(server, "sending")
        wait_until(lambda: len(pending.answers) > 10, "it sends")
        sink = server.server.catalog.find("sending").runtime
        server.call(lambda: sink.hold(pending.request, held=True))
        wait_until(lambda: not grew(pending, 0.05), "it waits")
        held = len(pending.answers)
        assert not grew(pending, 0.8), "it is not killed for waiting, though the execution timeout passes"
        assert held < 200
        server.call(lambda: sink.hold(pending.request, held=False))
        assert [float(got["OUT"][0, 0]) for got in pending] == list(range(200))


@pytest.mark.parametrize("held", [False, True])
def test_a_model_that_sends_for_ever_is_told_when_it_is_stopped(tmp_path, held):
    """Also one that waits for its client: the worker ends by itself and is not killed."""
    code = """
    class TritonPythonModel:
        def execute(self, requests):
            sender, until = requests[0].get_response_sender(), time.monotonic() + 20
            while not sender.is_cancelled() and time.monotonic() < until:
                sender.send(answer(value(requests[0])))
                time.sleep(0.002)
            sender.send(flags=FINAL)

        def finalize(self):
            open(os.path.join(os.path.dirname(__file__), "finalized"), "w").close()
    """
    folder = write_decoupled(tmp_path, "endless", code)
    with InProcessServer(tmp_path) as server:
        pending = ask(server, "endless")
        wait_until(lambda: len(pending.answers) > 3, "it sends")
        if held:
            sink = server.server.catalog.find("endless").runtime
            server.call(lambda: sink.hold(pending.request, held=True))
            wait_until(lambda: not grew(pending, 0.05), "it waits")
    assert (folder / "1" / "finalized").exists()
    assert pending.done


def grew(pending, seconds: float) -> bool:
    """Whether more answers came within this time."""
    count = len(pending.answers)
    threading.Event().wait(seconds)
    return len(pending.answers) > count
