"""The inputs of requests that still stream stay as they are, and their memory comes back."""

from __future__ import annotations

import numpy as np
import pytest

from shoal.testing.in_process import InProcessServer
from tests.execution.decoupled_models import write_decoupled
from tests.execution.test_decoupled import ask, firsts, runtime
from tests.gated import wait_until


def used_nbytes(server: InProcessServer) -> int:
    """Shared memory of the model that is in use."""
    return int(server.call(lambda: runtime(server, "lazy").arena.used_nbytes))


LAZY = """
class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            if number(request) == 1:
                in_thread(self.send, request)
            else:
                request.get_response_sender().send(answer(value(request)), flags=FINAL)

    def send(self, request):
        sender, folder = request.get_response_sender(), os.path.dirname(__file__)
        sender.send(answer(np.zeros((1, 2), np.float32)))
        wait_for(os.path.join(folder, "go"))
        sender.send(answer(value(request).copy()), flags=FINAL)
        del request, sender
"""


@pytest.mark.parametrize("width", [2, 50_000])
def test_the_input_of_a_request_that_still_streams_is_not_overwritten(tmp_path, width):
    """Small ones lie in the instance's block, which the next batch fills; large ones where they arrived."""
    folder = write_decoupled(tmp_path, "lazy", LAZY)
    with InProcessServer(tmp_path) as server:
        before = used_nbytes(server)
        slow = ask(server, "lazy", 1, width=width)
        wait_until(lambda: len(slow.answers) == 1, "it has begun")
        for number in range(2, 30):
            assert firsts(ask(server, "lazy", number, rows=2, width=width)) == [number]
        (folder / "1" / "go").touch()
        _, last = slow
        np.testing.assert_array_equal(last["OUT"], np.ones((1, width), np.float32))
        slow.answers.clear()
        del last
        limit = before + 2 * (1 << 20)  # what an instance keeps of its blocks
        wait_until(lambda: used_nbytes(server) <= limit, "the memory is free")


def test_inputs_are_free_when_their_request_is_let_go_without_another_batch(tmp_path):
    """The release comes by a message of its own: there may never be another batch to tell it with."""
    folder = write_decoupled(tmp_path, "lazy", LAZY)
    with InProcessServer(tmp_path) as server:
        pending = [ask(server, "lazy", 1, rows=8, width=100_000) for _ in range(8)]
        wait_until(lambda: all(each.answers for each in pending), "all have begun")
        assert used_nbytes(server) > 8 * 3_200_000
        (folder / "1" / "go").touch()
        for each in pending:
            assert [got["OUT"].shape for got in each] == [(1, 2), (8, 100_000)]
        wait_until(lambda: used_nbytes(server) < 3_200_000, "it is free")
