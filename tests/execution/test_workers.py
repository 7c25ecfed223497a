"""Workers that die, hang or refuse: their requests are told why, they are replaced, and nobody else notices."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest

from shoal.errors import CancelledError, InternalError, ModelError, ShoalError, UnavailableError, WorkerError
from shoal.testing.in_process import InProcessServer
from tests.execution.models import write_model

MODEL = "class TritonPythonModel:\n    def execute(self, requests): pass\n"
CRASHING = """
class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            code = float(value(request)[0, 0])
            if code == 9:
                os.kill(os.getpid(), signal.SIGKILL)
            if code == 11:
                print("about to touch address zero", flush=True)
                import ctypes
                ctypes.string_at(0)
            if code == 3:
                print("leaving now", flush=True)
                os._exit(3)
            if code == 5:
                raise ValueError("five is right out")
            if code == 100:
                time.sleep(600)
        return [answer(value(request) * 2) for request in requests]
"""


def array(value: float, rows: int = 1) -> np.ndarray:
    return np.full((rows, 2), value, np.float32)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write_model(tmp_path, "good")
    return tmp_path


def wait_until(condition) -> None:
    """Wait for something that happens on the server's thread, up to ten seconds."""
    waiting = threading.Event()
    for _ in range(1000):
        if condition():
            return
        waiting.wait(0.01)
    raise AssertionError("it did not happen within ten seconds")


def runtime(server: InProcessServer, model: str):
    return server.server.catalog.find(model).runtime


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (9, "was killed by signal 9 (SIGKILL)"),
        (11, "was killed by signal 11 (SIGSEGV); its last output:\nabout to touch address zero"),
        (3, "exited with code 3; its last output:\nleaving now"),
    ],
)
def test_a_dead_worker_is_named_and_replaced_while_others_go_on(repository, code, said):
    write_model(repository, "crashing", CRASHING)
    with InProcessServer(repository) as server:
        pending = server.submit("crashing", {"IN": array(code)})
        for value in range(20):
            np.testing.assert_array_equal(server.infer("good", {"IN": array(value)})["OUT"], array(2 * value))
        with pytest.raises(WorkerError) as failure:
            pending.outputs()
        assert said in failure.value.message
        assert "model 'crashing'" in failure.value.message
        np.testing.assert_array_equal(server.infer("crashing", {"IN": array(1)})["OUT"], array(2))
        assert server.call(server.server.model_ready, "crashing")
        assert runtime(server, "crashing").groups[0].restarts == 1


def test_a_model_is_not_ready_until_its_worker_is_replaced(repository, tmp_path):
    gate = tmp_path / "gate"
    gate.touch()
    code = f"""
        class TritonPythonModel:
            def initialize(self, args):
                while not os.path.exists({str(gate)!r}):
                    time.sleep(0.01)
            def execute(self, requests):
                return [answer(value(request)) for request in requests]
        """
    write_model(repository, "gated", code)
    with InProcessServer(repository) as server:
        gate.unlink()
        server.call(os.kill, runtime(server, "gated").groups[0].pid, signal.SIGKILL)
        wait_until(lambda: not server.call(server.server.model_ready, "gated"))
        assert not server.call(lambda: server.server.ready)
        assert server.call(server.server.model_ready, "good")
        waiting = server.submit("gated", {"IN": array(1)})
        gate.touch()
        assert waiting.outputs()["OUT"][0, 0] == 1
        assert server.call(server.server.model_ready, "gated")


def test_requests_that_waited_when_the_worker_died_are_served_by_the_next(repository):
    write_model(repository, "crashing", CRASHING, more="")
    with InProcessServer(repository) as server:
        first = server.submit("crashing", {"IN": array(3)})
        waiting = [server.submit("crashing", {"IN": array(value)}) for value in (1, 2)]
        with pytest.raises(WorkerError):
            first.outputs()
        assert [pending.outputs()["OUT"][0, 0] for pending in waiting] == [2, 4]


def test_every_request_of_the_batch_is_told(repository):
    write_model(repository, "crashing", CRASHING)
    with InProcessServer(repository) as server:
        batch = [server.submit("crashing", {"IN": array(value)}) for value in (1, 3, 2)]
        outcomes = [_outcome(pending) for pending in batch]
        assert outcomes[1] == "died"
        assert set(outcomes) <= {2.0, 4.0, "died"}


def _outcome(pending) -> float | str:
    try:
        return float(pending.outputs()["OUT"][0, 0])
    except WorkerError:
        return "died"


def test_a_hanging_worker_is_killed_after_the_execution_timeout(repository):
    write_model(repository, "crashing", CRASHING)
    with InProcessServer(repository, execution_timeout_s=0.5) as server:
        with pytest.raises(WorkerError, match=r"did not answer within the execution timeout of 0.5 s"):
            server.infer("crashing", {"IN": array(100)})
        np.testing.assert_array_equal(server.infer("crashing", {"IN": array(1)})["OUT"], array(2))


def test_an_exception_fails_its_batch_only(repository):
    write_model(repository, "crashing", CRASHING)
    with InProcessServer(repository) as server:
        with pytest.raises(ModelError, match="five is right out"):
            server.infer("crashing", {"IN": array(5)})
        np.testing.assert_array_equal(server.infer("crashing", {"IN": array(1)})["OUT"], array(2))
        assert runtime(server, "crashing").groups[0].restarts == 0


def test_a_worker_that_cannot_come_back_fails_those_who_wait_and_those_who_come(repository, tmp_path):
    folder = write_model(repository, "fading", CRASHING)
    with InProcessServer(repository) as server:
        model = folder / "1" / "model.py"
        good = model.read_text()
        model.write_text("raise RuntimeError('the file is broken now')")
        with pytest.raises(WorkerError):
            server.infer("fading", {"IN": array(9)})
        with pytest.raises(UnavailableError, match="the file is broken now"):
            server.infer("fading", {"IN": array(1)})
        assert not server.call(server.server.model_ready, "fading")
        model.write_text(good)
        wait_until(lambda: server.call(server.server.model_ready, "fading"))
        np.testing.assert_array_equal(server.infer("fading", {"IN": array(1)})["OUT"], array(2))


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (MODEL + "    def initialize(self, args):\n        raise KeyError('no weights')", "no weights"),
        ("import a_module_that_is_not_there", "a_module_that_is_not_there"),
        ("class TritonPythonModel(:", "SyntaxError"),
        ("class Other: pass", "TritonPythonModel"),
        (MODEL + "    def initialize(self, args):\n        os._exit(7)", "exited with code 7"),
        ("sys.exit('no')", "no"),
    ],
)
def test_a_model_that_cannot_start_says_why_and_leaves_nothing_behind(repository, code, said):
    write_model(repository, "broken", code)
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    with pytest.raises(InternalError, match="failed to load model 'broken'") as failure:
        InProcessServer(repository).__enter__()
    assert said in failure.value.message
    assert "good" not in failure.value.message
    wait_until(lambda: {process.pid for process in psutil.Process().children(recursive=True)} <= before)


def test_without_exit_on_error_the_others_serve(repository):
    write_model(repository, "broken", "raise ImportError('nothing here')")
    with InProcessServer(repository, exit_on_error=False) as server:
        np.testing.assert_array_equal(server.infer("good", {"IN": array(4)})["OUT"], array(8))
        with pytest.raises(ShoalError, match="'broken' has no available versions"):
            server.infer("broken", {"IN": array(4)})
        assert not server.call(lambda: server.server.ready)
        assert "nothing here" in server.call(lambda: server.server.failures["broken"])


def test_instances_have_processes_of_their_own_and_share_the_load(repository):
    write_model(
        repository,
        "pids",
        """
        class TritonPythonModel:
            def execute(self, requests):
                time.sleep(0.05)
                return [answer(np.full_like(value(request), os.getpid())) for request in requests]
        """,
        count=2,
        max_batch_size=1,
    )
    with InProcessServer(repository) as server:
        answers = [server.submit("pids", {"IN": array(0)}) for _ in range(8)]
        pids = {int(pending.outputs()["OUT"][0, 0]) for pending in answers}
        assert pids == {group.pid for group in runtime(server, "pids").groups}
        assert len(pids) == 2
        assert os.getpid() not in pids


def test_a_queued_request_can_be_cancelled_and_a_running_one_is_marked(repository):
    write_model(
        repository,
        "slow",
        """
        class TritonPythonModel:
            def execute(self, requests):
                time.sleep(0.3)
                return [answer(value(request)) for request in requests]
        """,
        max_batch_size=1,
    )
    with InProcessServer(repository) as server:
        running = server.submit("slow", {"IN": array(1)})
        wait_until(lambda: runtime(server, "slow").groups[0].channels[0].batch is not None)
        queued = server.submit("slow", {"IN": array(2)})
        last = server.submit("slow", {"IN": array(3)})
        server.cancel(queued)
        server.cancel(running)
        with pytest.raises(CancelledError):
            queued.outputs()
        assert running.request is not None
        assert running.request.cancelled
        assert running.outputs()["OUT"][0, 0] == 1
        assert last.outputs()["OUT"][0, 0] == 3


def test_outputs_larger_than_the_room_that_was_guessed(repository):
    write_model(
        repository,
        "growing",
        """
        class TritonPythonModel:
            def execute(self, requests):
                return [answer(np.repeat(value(request), 100_000, axis=1)) for request in requests]
        """,
    )
    with InProcessServer(repository) as server:
        for value in (1, 2, 3):
            out = server.infer("growing", {"IN": array(value)})["OUT"]
            assert out.shape == (1, 200_000)
            assert (out == value).all()


def test_no_worker_outlives_a_server_that_was_killed(repository):
    code = (
        "import sys, time\n"
        "from shoal.testing.in_process import InProcessServer\n"
        "with InProcessServer(sys.argv[1]):\n"
        "    print('up', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(repository)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 2
        process.kill()
    gone, alive = psutil.wait_procs(family, timeout=10)
    assert not alive
    assert len(gone) == len(family)


def test_workers_come_back_after_the_fork_server_was_killed(repository):
    with InProcessServer(repository) as server:
        server.call(os.kill, server.server.client.pid, signal.SIGKILL)
        wait_until(lambda: not server.call(server.server.model_ready, "good"))
        wait_until(lambda: server.call(server.server.model_ready, "good"))
        np.testing.assert_array_equal(server.infer("good", {"IN": array(4)})["OUT"], array(8))


def test_a_model_that_prints_without_end_holds_nobody_up(repository):
    code = """
        class TritonPythonModel:
            def execute(self, requests):
                stop = time.monotonic() + 1.0
                while time.monotonic() < stop:
                    print("x" * 200)
                return [answer(value(request)) for request in requests]
        """
    write_model(repository, "chatty", code)
    with InProcessServer(repository) as server:
        chatty = server.submit("chatty", {"IN": array(1)})
        served = 0
        while not chatty.done:
            server.infer("good", {"IN": array(served)})
            served += 1
        assert served > 20
        assert chatty.outputs()["OUT"][0, 0] == 1


@pytest.mark.parametrize("parameters", ['{"n": np.float64(0.5)}', '{"n": "\\udcff"}', '{"n": np.bool_(True)}'])
def test_response_parameters_of_any_kind_do_not_harm_the_worker(repository, parameters):
    code = f"""
        class TritonPythonModel:
            def execute(self, requests):
                return [
                    pb_utils.InferenceResponse([pb_utils.Tensor("OUT", value(request))], parameters={parameters})
                    for request in requests
                ]
        """
    write_model(repository, "telling", code)
    with InProcessServer(repository) as server:
        with contextlib.suppress(ShoalError):
            server.infer("telling", {"IN": array(1)})
        assert runtime(server, "telling").groups[0].restarts == 0


def test_an_error_text_that_is_no_utf8_reaches_the_client(repository):
    code = """
        class TritonPythonModel:
            def execute(self, requests):
                raise ValueError("broken \\udcff name")
        """
    write_model(repository, "telling", code)
    with InProcessServer(repository) as server:
        with pytest.raises(ModelError, match=r"broken . name"):
            server.infer("telling", {"IN": array(1)})
        assert runtime(server, "telling").groups[0].restarts == 0


def test_an_output_without_elements_is_cut_for_every_request(repository):
    code = """
        class TritonPythonModel:
            def execute(self, requests):
                return [answer(value(request)[:, :0]) for request in requests]
        """
    write_model(repository, "nothing", code)
    with InProcessServer(repository) as server:
        pending = [server.submit("nothing", {"IN": array(value)}) for value in range(6)]
        assert [one.outputs()["OUT"].shape for one in pending] == [(1, 0)] * 6


def test_queue_timeouts_are_answered_while_every_instance_is_busy(repository):
    code = """
        class TritonPythonModel:
            def execute(self, requests):
                time.sleep(1.5)
                return [answer(value(request)) for request in requests]
        """
    policy = "dynamic_batching { default_queue_policy { default_timeout_microseconds: 50000 } }"
    write_model(repository, "slow", code, max_batch_size=1, more=policy)
    with InProcessServer(repository) as server:
        first = server.submit("slow", {"IN": array(1)})
        wait_until(lambda: runtime(server, "slow").groups[0].channels[0].batch is not None)
        with pytest.raises(UnavailableError, match="Request timeout expired"):
            server.infer("slow", {"IN": array(2)})
        assert not first.done
        assert first.outputs()["OUT"][0, 0] == 1


KEEPING = """
class TritonPythonModel:
    def initialize(self, args):
        self.last = None

    def execute(self, requests):
        answers = []
        for request in requests:
            before, self.last = self.last, value(request)
            answers.append(answer(np.zeros_like(self.last) if before is None else before))
        return answers
"""


@pytest.mark.parametrize("columns", [2, 100_000])
def test_an_input_that_the_model_keeps_does_not_change_under_it(repository, columns):
    """As in Triton, where a tensor lives as long as the model holds it."""
    write_model(repository, "keeping", KEEPING)
    with InProcessServer(repository) as server:
        previous = 0.0
        for number in range(1, 12):
            given = np.full((1, columns), number, np.float32)
            got = server.infer("keeping", {"IN": given})["OUT"]
            assert (got == previous).all(), number
            previous = number
        used = server.call(lambda: runtime(server, "keeping").arena.used_nbytes)
        assert used <= 16 * given.nbytes + (1 << 20), "what the model let go of is free again"


def test_large_tensors_of_several_requests_are_not_mixed_up(repository):
    """A Python model gets them one by one, where they arrived or in a block of their own."""
    with InProcessServer(repository) as server:
        given = [np.full((1 + number % 2, 50_000), number, np.float32) for number in range(24)]
        pending = [server.submit("good", {"IN": one}) for one in given]
        for one, answer in zip(given, pending, strict=True):
            np.testing.assert_array_equal(answer.outputs()["OUT"], one * 2)
        (statistics,) = server.call(lambda: server.server.statistics("good"))["model_stats"]
        assert statistics["execution_count"] < len(given)
