"""Models under the rate limiter: resources always come back, and a batch is formed when its turn comes."""

from __future__ import annotations

import os
import re
import signal

import numpy as np
import pytest

from shoal.errors import CancelledError, QueueTimeoutError, ShoalError, UnavailableError, WorkerError
from shoal.scheduling.rate_limiter import ResourceLimit
from shoal.testing.in_process import InProcessServer
from tests.execution.models import write_model
from tests.execution.sequence_models import countdown_model, part, row, sum_model
from tests.gated import Gate, wait_until

GROUP = 'instance_group {{ kind: KIND_CPU count: {count} rate_limiter {{ resources {{ name: "R" count: {units} }} }} }}'
ROW = np.ones((1, 1), np.float32)
TWO_ROWS = np.ones((2, 1), np.float32)

PLAIN = """
backend: "python"
max_batch_size: 8
input {{ name: "IN" data_type: TYPE_FP32 dims: 1 }}
output {{ name: "OUT" data_type: TYPE_FP32 dims: 1 }}
{group}
{more}
"""


def limited(repository, name, *, count=1, units=1, more="dynamic_batching { }"):
    """A gated model whose instances need ``units`` of R."""
    gate = Gate(repository, name)
    config = PLAIN.format(group=GROUP.format(count=count, units=units), more=more)
    (repository / name / "config.pbtxt").write_text(config)
    return gate


def waiting(server, model):
    return server.call(lambda: server.server.catalog.find(model).runtime.queue_statistics().requests)


def used(server):
    """What is held of each resource."""
    gate = server.call(lambda: server.server.catalog.find("a").runtime._rate_gate)
    return server.call(lambda: {name: units for (_, name), units in gate.limiter._used.items()})


@pytest.fixture
def gates(tmp_path):
    return limited(tmp_path, "a"), limited(tmp_path, "b")


def serve(tmp_path, *limits):
    return InProcessServer(tmp_path, rate_limits=limits)


def one_waits_for_another(server, first):
    """A request that runs in model a, and one that waits in model b for its resource."""
    running = server.submit("a", {"IN": ROW})
    first.wait_for_batches(1)
    other = server.submit("b", {"IN": ROW})
    wait_until(lambda: waiting(server, "b") == 1, "it waits for the resource")
    return running, other


def test_one_runs_at_a_time_and_a_batch_holds_all_that_came_until_its_turn(tmp_path, gates):
    first, second = gates
    with serve(tmp_path) as server:
        running = server.submit("a", {"IN": ROW})
        first.wait_for_batches(1)
        others = [server.submit("b", {"IN": rows}) for rows in (ROW, TWO_ROWS, ROW)]
        wait_until(lambda: waiting(server, "b") == 3, "they wait for the resource")
        assert second.batches == []
        second.open()
        first.open()
        for answer in (running, *others):
            answer.outputs()
        assert second.batches == [[1, 2, 1]]
        wait_until(lambda: used(server) == {"R": 0}, "all is given back")


def test_a_worker_that_dies_gives_its_resources_back(tmp_path, gates):
    first, second = gates
    second.open()
    with serve(tmp_path) as server:
        running, other = one_waits_for_another(server, first)
        (group,) = server.server.catalog.find("a").runtime.groups
        os.kill(group.pid, signal.SIGKILL)
        other.outputs()
        with pytest.raises(WorkerError):
            running.outputs()
        first.open()
        wait_until(lambda: group.up, "its worker is replaced")
        assert server.infer("a", {"IN": ROW})["OUT"] == 1
        wait_until(lambda: used(server) == {"R": 0}, "all is given back")


def test_a_model_whose_worker_died_while_it_waited_for_its_turn(tmp_path, gates):
    first, second = gates
    second.open()
    with serve(tmp_path) as server:
        running, other = one_waits_for_another(server, first)
        (group,) = server.server.catalog.find("b").runtime.groups
        os.kill(group.pid, signal.SIGKILL)
        wait_until(lambda: group.restarts == 1 and group.up, "its worker is replaced")
        first.open()
        running.outputs()
        other.outputs()
        wait_until(lambda: used(server) == {"R": 0}, "all is given back")


def test_a_model_that_fails_gives_its_resources_back(tmp_path, gates):
    del gates
    fails = "class TritonPythonModel:\n    def execute(self, requests):\n        raise ValueError('boom')\n"
    folder = write_model(tmp_path, "fails", fails)
    (folder / "config.pbtxt").write_text(PLAIN.format(group=GROUP.format(count=1, units=1), more=""))
    with serve(tmp_path) as server:
        for _ in range(3):
            with pytest.raises(ShoalError, match="boom"):
                server.infer("fails", {"IN": ROW})
        assert used(server) == {"R": 0}


def test_a_cancelled_request_leaves_its_turn_to_others(tmp_path, gates):
    first, second = gates
    second.open()
    with serve(tmp_path) as server:
        running = server.submit("a", {"IN": ROW})
        first.wait_for_batches(1)
        gone, stays = (server.submit("b", {"IN": ROW}) for _ in range(2))
        wait_until(lambda: waiting(server, "b") == 2, "they wait for the resource")
        server.cancel(gone)
        with pytest.raises(CancelledError):
            gone.outputs()
        first.open()
        running.outputs()
        stays.outputs()
        assert second.batches == [[1]]


def test_a_queue_timeout_passes_also_while_the_resource_is_taken(tmp_path, gates):
    first, _ = gates
    expiring = "dynamic_batching { default_queue_policy { default_timeout_microseconds: 20000 } }"
    limited(tmp_path, "c", more=expiring)
    with serve(tmp_path) as server:
        running = server.submit("a", {"IN": ROW})
        first.wait_for_batches(1)
        with pytest.raises(QueueTimeoutError):
            server.infer("c", {"IN": ROW})
        first.open()
        running.outputs()


def test_a_delay_for_more_rows_holds_no_resource(tmp_path, gates):
    first, _ = gates
    first.open()
    delayed = "dynamic_batching { preferred_batch_size: 2 max_queue_delay_microseconds: 60000000 }"
    limited(tmp_path, "c", more=delayed).open()
    with serve(tmp_path) as server:
        held = server.submit("c", {"IN": ROW})
        wait_until(lambda: waiting(server, "c") == 1, "it is held for another row")
        server.infer("a", {"IN": ROW})
        server.infer("c", {"IN": ROW})
        held.outputs()


def test_as_many_instances_run_as_there_are_units(tmp_path, gates):
    del gates
    many = limited(tmp_path, "c", count=3, more="")
    with serve(tmp_path, ResourceLimit("R", 2)) as server:
        answers = [server.submit("c", {"IN": ROW}) for _ in range(4)]
        many.wait_for_batches(2)
        assert waiting(server, "c") == 2
        many.open()
        for answer in answers:
            answer.outputs()


def test_requests_that_wait_for_a_turn_are_refused_when_the_server_stops(tmp_path, gates):
    first, _ = gates
    with serve(tmp_path) as server:
        server.submit("a", {"IN": ROW})
        first.wait_for_batches(1)
        left = server.submit("b", {"IN": ROW})
        wait_until(lambda: waiting(server, "b") == 1, "it waits for the resource")
        first.open()
        server.run(server.server.stop(0.0))
        with pytest.raises(UnavailableError):
            left.outputs()


REPEAT = """
class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            sender.send(answer(value(request)))
            sender.send(answer(value(request)), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""


def test_every_kind_of_model_takes_turns(tmp_path):
    """Sequences in slots, requests that run again and decoupled models ask like the others, and never stand still."""
    countdown_model(tmp_path)
    sum_model(tmp_path, "sums", "direct { }")
    write_model(tmp_path, "repeat", REPEAT, more="model_transaction_policy { decoupled: true }")
    for name in ("countdown", "sums", "repeat"):
        config = tmp_path / name / "config.pbtxt"
        group = GROUP.replace("{{", "{").replace("}}", "}").replace("{count}", "1").replace("{units}", "1")
        config.write_text(re.sub(r"instance_group \[.*\]", group, config.read_text()))
    with serve(tmp_path) as server:
        again = [server.submit("countdown", row(number)) for number in (3, 5, 1, 4)]
        begun = [server.submit("sums", row(1), parameters=part(number, "start")) for number in (1, 2)]
        ended = [server.submit("sums", row(2), parameters=part(number, "end")) for number in (1, 2)]
        streams = [server.submit("repeat", {"IN": ROW}) for _ in range(4)]
        assert [each.outputs()["OUT"].item() for each in again] == [30, 50, 10, 40]
        for each in (*begun, *ended):
            each.outputs()
        wait_until(lambda: all(each.done for each in streams), "the last answers")
        assert [len(each.answers) for each in streams] == [2] * 4
        limiter = server.call(lambda: server.server.catalog.find("sums").runtime._rate_gate.limiter)
        wait_until(lambda: set(server.call(limiter.free).values()) == {1}, "all is given back")


def test_a_passive_instance_is_never_given_a_batch(tmp_path):
    gate = limited(tmp_path, "c", more="")
    config = tmp_path / "c" / "config.pbtxt"
    config.write_text(config.read_text() + 'instance_group { name: "idle" kind: KIND_CPU passive: true }')
    gate.open()
    with InProcessServer(tmp_path) as server:
        for _ in range(5):
            server.infer("c", {"IN": ROW})
        runtime = server.server.catalog.find("c").runtime
        assert [channel.spec.name for group in runtime.groups for channel in group.channels] == ["c_0_0", "idle_0"]
        idle = server.call(lambda: [channel.spec.name for channel in runtime._idle])
    assert idle == ["c_0_0"]
