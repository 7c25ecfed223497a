"""preserve_ordering where responses come one by one: requests that run again, and clients that do not keep up."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest

from shoal.config.spec import BatchingSpec, InstanceKind, InstanceSpec
from shoal.datatypes import DataType
from shoal.errors import CancelledError
from shoal.execution.marks import HELD, byte_of_number
from shoal.execution.messages import Outcome, Streamed
from shoal.requests import LATEST, NOBODY, InferHead, InferRequest, InputHead
from shoal.scheduling.admission import plan_request
from shoal.testing.in_process import InProcessServer
from tests.execution.decoupled_models import write_decoupled
from tests.execution.fake_instances import FakeWorld
from tests.execution.sequence_models import IDLE
from tests.execution.test_streams_machine import MODEL, Counter
from tests.gated import wait_until

AGAIN = """
HERE = os.path.dirname(__file__)

class TritonPythonModel:
    def initialize(self, args):
        self.seen = set()

    def execute(self, requests):
        for request in requests:
            self.run(request, request.get_response_sender(), int(value(request)[0, 0]))

    def run(self, request, sender, number):
        if number == 0:
            in_thread(self.end_later, sender)
            return
        first = number not in self.seen
        self.seen.add(number)
        with open(os.path.join(HERE, f"began{number}"), "a") as file:
            file.write("x")
        sender.send(answer(value(request)))
        wait_for(os.path.join(HERE, f"go{number}"))
        if number == 1 and first:
            request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
        else:
            sender.send(flags=FINAL)

    def end_later(self, sender):
        wait_for(os.path.join(HERE, "go0"))
        sender.send(flags=FINAL)
"""
ITERATIVE = f"""
sequence_batching {{ {IDLE} oldest {{ max_candidate_sequences: 4 preserve_ordering: true }} iterative_sequence: true }}
model_transaction_policy {{ decoupled: true }}
"""


class Again:
    """A server with a model whose request 0 ends when it is told, and whose request 1 runs twice."""

    def __init__(self, server, folder) -> None:
        self._server, self._folder = server, folder

    def ask(self, number):
        return self._server.submit("again", {"IN": np.full((1, 1), number, np.float32)})

    def cancel(self, pending) -> None:
        self._server.cancel(pending)

    def went(self, number) -> None:
        wait_until(lambda: self.runs(number), f"request {number} runs")

    def runs(self, number) -> int:
        path = self._folder / f"began{number}"
        return path.stat().st_size if path.exists() else 0

    def go(self, number) -> None:
        (self._folder / f"go{number}").touch()

    def runtime(self):
        return self._server.server.catalog.find("again").runtime


@pytest.fixture
def again(tmp_path):
    folder = write_decoupled(tmp_path, "again", AGAIN, more=ITERATIVE, max_batch_size=1, dims="1")
    with InProcessServer(tmp_path) as server:
        yield Again(server, folder / "1")


def test_a_request_that_runs_again_before_its_turn_came_is_answered(again):
    """Its first run must not count as its end, after which nothing more of it could be delivered."""
    before = again.ask(0)
    twice = again.ask(1)
    again.go(1)
    wait_until(lambda: again.runs(1) == 2, "request 1 runs again")
    after = again.ask(2)
    again.go(2)
    again.go(0)
    assert [float(each["OUT"][0, 0]) for each in before] == []
    assert [float(each["OUT"][0, 0]) for each in twice] == [1.0, 1.0]
    assert [float(each["OUT"][0, 0]) for each in after] == [2.0]


def test_a_request_that_is_cancelled_between_two_runs_hears_nothing_more(again):
    """What its first run gave waits for its turn, and must not come behind the error."""
    before = again.ask(0)
    twice = again.ask(1)
    again.went(1)
    between = again.ask(2)
    wait_until(lambda: again.runtime().queue_statistics().requests == 1, "request 2 waits")
    again.go(1)
    again.went(2)  # so request 1 waits for its second run
    again.cancel(twice)
    again.go(2)
    again.go(0)
    assert list(before) == []
    assert len(list(between)) == 1
    with pytest.raises(CancelledError):
        list(twice)
    assert twice.answers == []


def test_a_model_that_serves_its_requests_by_turns_gets_to_their_end(tmp_path):
    """The second request of a batch must not keep the thread that has the first one to end."""
    code = """
    class TritonPythonModel:
        def execute(self, requests):
            senders = [request.get_response_sender() for request in requests]
            for turn in range(3):
                for request, sender in zip(requests, senders):
                    sender.send(answer(value(request) + turn))
                time.sleep(0.02)
            for sender in senders:
                sender.send(flags=FINAL)
    """
    more = "dynamic_batching { preserve_ordering: true preferred_batch_size: 4 max_queue_delay_microseconds: 20000000 }"
    write_decoupled(tmp_path, "turns", code, more=f"{more}\nmodel_transaction_policy {{ decoupled: true }}")
    with InProcessServer(tmp_path) as server:
        pending = [server.submit("turns", {"IN": np.full((1, 1), number, np.float32)}) for number in (10, 20, 30, 40)]
        for number, each in zip((10, 20, 30, 40), pending, strict=True):
            wait_until(lambda each=each: each.done, "it is answered")
            assert [float(got["OUT"][0, 0]) for got in each] == [number, number + 1, number + 2]


def test_those_behind_a_slow_client_wait_with_it_and_go_on_with_it():
    world = ordered_world()
    first, _ = submit(world), submit(world)
    world.loop.settle()
    (channel,) = world.busy

    def held(place: int) -> int:
        return channel.blocks.marks._view[byte_of_number(channel.numbers[place])] & HELD

    world.runtime.hold(first, held=True)
    refused = Outcome([], "INTERNAL", "refused")
    one = Streamed(channel.numbers[1], refused, memoryview(b""), final=False, times=(1, 1, 1))
    world.group_of(channel).events.streamed(channel, one)
    assert held(0)
    assert held(1)
    world.runtime.hold(first, held=False)
    assert not held(0)
    assert not held(1)
    world.close()


def ordered_world(instances: int = 1) -> FakeWorld:
    specs = tuple(InstanceSpec(f"m_{number}", InstanceKind.CPU, 0) for number in range(instances))
    spec = replace(MODEL, instances=specs, batching=BatchingSpec(preserve_ordering=True))
    return FakeWorld(spec, Counter())


def submit(world: FakeWorld) -> InferRequest:
    head = InferHead("m", LATEST, "", (InputHead("IN", DataType.INT32, (1, 1), 4),))
    plan = plan_request(head, world.runtime.spec, world.runtime)
    request = InferRequest(plan, (struct.pack("<i", 1),), NOBODY, None, world.clock.now_ns())
    world.runtime.submit(request)
    return request


def test_a_slow_client_is_waited_for_also_when_another_request_ends():
    """Otherwise the model of the request whose turn it is would send without limit, into the server's memory."""
    world = ordered_world()
    first, _ = submit(world), submit(world)
    world.loop.settle()
    (channel,) = world.busy
    numbers = channel.numbers

    def held() -> int:
        return channel.blocks.marks._view[byte_of_number(numbers[0])] & HELD

    world.runtime.hold(first, held=True)
    assert held()
    end = Streamed(numbers[1], None, memoryview(b""), final=True, times=(1, 1, 1))
    world.group_of(channel).events.streamed(channel, end)
    assert held()
    world.runtime.hold(first, held=False)
    assert not held()
    world.finish(channel)
    world.close()


def test_an_instance_that_is_gone_is_not_remembered():
    """Also where the execution timeout is looked at before another worker is up."""
    world = ordered_world()
    submit(world)
    world.loop.settle()
    (group,) = world.groups
    group.die()
    group.bury()
    world.runtime._check_hung()
    assert not world.runtime._streams._tables
    world.close()
