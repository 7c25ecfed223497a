"""Sequences that wait for a slot while every instance is busy: what must not wait for the instance too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shoal.errors import CancelledError, QueueTimeoutError, UnavailableError
from shoal.testing.in_process import InProcessServer
from tests.execution.models import write_model
from tests.execution.sequence_models import part, row
from tests.gated import wait_until

GATED = """
HERE = os.path.dirname(__file__)

class TritonPythonModel:
    def execute(self, requests):
        open(os.path.join(HERE, "begun"), "a").close()
        while not os.path.exists(os.path.join(HERE, "open")):
            time.sleep(0.002)
        return [answer(value(request)) for request in requests]
"""


class Gated:
    """A server with a model that has one slot and whose first batch runs until it is let go."""

    def __init__(self, server: InProcessServer, folder: Path) -> None:
        self.server = server
        self.first = self.send(1, 1, "start")
        self._gate = folder / "1" / "open"
        wait_until((folder / "1" / "begun").exists, "the first batch")

    def send(self, number: int, sequence: int, *flags: str, **parameters: int):
        return self.server.submit("m", row(number), parameters=part(sequence, *flags) | parameters)

    def let_go(self) -> None:
        self._gate.touch()


@pytest.fixture(params=["direct { }", "oldest { preserve_ordering: true }"])
def gated(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Gated]:
    more = f"sequence_batching {{ {request.param} }}"
    folder = write_model(tmp_path, "m", GATED, max_batch_size=1, dims="1", more=more)
    with InProcessServer(tmp_path) as server:
        model = Gated(server, folder)
        try:
            yield model
        finally:
            model.let_go()


def test_rule_41_a_timeout_in_the_backlog_is_answered_while_the_instance_is_busy(gated: Gated):
    late = gated.send(2, 2, "start", timeout=20_000)
    patient = gated.send(3, 3, "start", "end", timeout=60_000_000)
    with pytest.raises(QueueTimeoutError, match="timeout of the corresponding sequence has been expired"):
        late.outputs()
    assert not gated.first.done
    gated.let_go()
    assert gated.first.outputs()["OUT"].item() == 1
    gated.send(1, 1, "end").outputs()
    assert patient.outputs()["OUT"].item() == 3


def test_a_cancelled_sequence_is_answered_while_the_instance_is_busy(gated: Gated):
    others = [gated.send(2, 2, "start"), gated.send(3, 2)]
    behind = gated.send(4, 3, "start", "end")
    gated.server.cancel(others[1])
    for each in others:
        with pytest.raises(CancelledError):
            each.outputs()
    assert not gated.first.done
    gated.let_go()
    gated.send(1, 1, "end").outputs()
    assert behind.outputs()["OUT"].item() == 4


def test_sequences_go_on_in_order_when_they_get_their_slot(gated: Gated):
    later = [
        gated.send(1, 1, "end"),
        *(gated.send(number, 2, *flags) for number, flags in ((5, ["start"]), (6, ["end"]))),
    ]
    gated.let_go()
    assert [each.outputs()["OUT"].item() for each in (gated.first, *later)] == [1, 1, 5, 6]


def test_what_waits_for_a_slot_is_answered_when_the_server_stops(tmp_path: Path):
    folder = write_model(tmp_path, "m", GATED, max_batch_size=1, dims="1", more="sequence_batching { direct { } }")
    with InProcessServer(tmp_path) as server:
        gated = Gated(server, folder)
        waiting = [gated.send(2, 1), gated.send(3, 2, "start")]
        server.run(server.server.stop(timeout_s=0.1))
        for each in waiting:
            with pytest.raises(UnavailableError):
                each.outputs()
        gated.let_go()
