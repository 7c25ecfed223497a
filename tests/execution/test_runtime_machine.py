"""Random lives of a model's runtime: arrivals, cancellations, batches that fail, workers that die, shutdown.

The real runtime, scheduler, gathering and scattering, on a manual clock with instances that are none. Protects: every
request ends exactly once, with its own rows; batches keep to the maximum and to one shape; first in, first out within a
level; no request waits beside a free instance longer than the delay; none runs after its timeout; answers come in the
order of dispatch where that is asked for.
"""

from __future__ import annotations

import struct
from dataclasses import replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, precondition, rule

from shoal.config.spec import BatchingSpec, InstanceKind, InstanceSpec, ModelSpec, TensorSpec, TimeoutAction
from shoal.datatypes import DataType
from shoal.errors import ModelError, QueueTimeoutError, ShoalError, UnavailableError
from shoal.execution.runtime import BUSY_CHECK_NS
from shoal.requests import LATEST, InferHead, InferRequest, InputHead, RequestState
from shoal.scheduling.admission import plan_request
from shoal.testing.strategies import batching_specs
from tests.execution.fake_instances import FakeWorld

MAX_BATCH_SIZE = 8
TENSOR = TensorSpec("IN", DataType.INT32, (-1,))
MODEL = ModelSpec("m", 1, "python", "python", MAX_BATCH_SIZE, (TENSOR,), (replace(TENSOR, name="OUT"),), ())
ARRIVALS = st.tuples(
    st.integers(1, MAX_BATCH_SIZE),  # rows
    st.sampled_from([1, 1, 1, 2]),  # width
    st.integers(0, 4),  # priority
    st.one_of(st.just(0), st.integers(1, 6_000)),  # timeout in microseconds
)
LATENCY_TARGETS = st.builds(BatchingSpec, latency_target_us=st.integers(500, 20_000))


def ordered(batching: BatchingSpec) -> bool:
    """Whether the configuration check lets this be ordered: nothing in it may overtake."""
    policies = (batching.default_queue_policy, *batching.priority_queue_policies.values())
    delays = any(each.default_timeout_us and each.timeout_action is TimeoutAction.DELAY for each in policies)
    return batching.priority_levels <= 1 and not delays


class Counter:
    """A recorder that counts ends."""

    def __init__(self) -> None:
        self.ends = 0

    def batch_done(self, batch, times, answered):
        assert len(answered) <= len(batch.requests)
        self.ends += len(answered)

    def request_failed(self, request, reason, now_ns):
        self.ends += 1


class RuntimeMachine(RuleBasedStateMachine):
    entered = Bundle("entered")

    def __init__(self) -> None:
        super().__init__()
        self.world = None
        self.requests = []
        self.ended = {}
        self.end_order = []
        self.seen = 0
        self.closed = False

    @initialize(
        batching=st.none() | batching_specs(MAX_BATCH_SIZE) | LATENCY_TARGETS,
        preserve=st.booleans(),
        instances=st.integers(1, 3),
    )
    def make(self, batching, preserve, instances):
        if batching is not None and preserve and ordered(batching):
            batching = replace(batching, preserve_ordering=True)
        self.batching = batching or BatchingSpec()
        self.batches = batching is not None
        specs = tuple(InstanceSpec(f"m_{number}", InstanceKind.CPU, 0) for number in range(instances))
        self.spec = replace(MODEL, instances=specs, batching=batching)
        self.counter = Counter()
        self.world = FakeWorld(self.spec, self.counter)

    def teardown(self):
        if self.world is None:
            return
        self.world.close()
        assert len(self.ended) == len(self.requests), "a request was left without an answer"
        assert self.counter.ends == len(self.requests)

    # --- what the requests are told ---

    def completed(self, request, response):
        assert bytes(response.data[0]) == request.payload[0], "an answer has the rows of another request"
        self.end(request, None)

    def failed(self, request, error):
        assert isinstance(error, ShoalError)
        self.end(request, error)

    def end(self, request, error):
        assert request.context not in self.ended, "a request was answered twice"
        assert request.state is RequestState.DONE
        self.ended[request.context] = error
        self.end_order.append(request)

    # --- what happens ---

    @rule(target=entered, arrivals=st.lists(ARRIVALS, min_size=1, max_size=6))
    def submit(self, arrivals):
        """Requests that one read of a socket brought."""
        return multiple(*(self.send(*each) for each in arrivals))

    def send(self, rows, width, level, timeout_us):
        number = len(self.requests)
        data = struct.pack("<i", number) * (rows * width)
        head = InferHead(
            "m",
            LATEST,
            "",
            (InputHead("IN", DataType.INT32, (rows, width), len(data)),),
            parameters={"priority": level, "timeout": timeout_us},
        )
        plan = plan_request(head, self.spec, self.world.runtime)
        request = InferRequest(plan, (data,), self, number, self.world.clock.now_ns())
        self.requests.append(request)
        self.world.runtime.submit(request)
        if self.closed:
            assert isinstance(self.ended[number], UnavailableError)
        return request

    @rule(victim=entered)
    def cancel(self, victim):
        state = victim.state
        self.world.runtime.cancel(victim)
        if state is RequestState.QUEUED:
            assert victim.state is RequestState.DONE

    @rule()
    def turn(self):
        self.world.loop.settle()

    @rule(step_us=st.integers(0, 3_000))
    def let_time_pass(self, step_us):
        self.world.advance_us(step_us)

    @precondition(lambda self: self.world.busy)
    @rule(data=st.data(), how=st.sampled_from(["", "", "", "the model failed", "one by one"]))
    def finish(self, data, how):
        channel = data.draw(st.sampled_from(self.world.busy), "instance")
        count = len(channel.batch.requests)
        failed = (
            data.draw(st.frozensets(st.integers(0, count - 1), min_size=1), "failed") if how == "one by one" else ()
        )
        self.world.finish(channel, "" if failed else how, frozenset(failed))

    @precondition(lambda self: any(group.up for group in self.world.groups))
    @rule(data=st.data(), arrivals_between=st.booleans(), comes_back=st.sampled_from([True, True, False]))
    def worker_dies(self, data, arrivals_between, comes_back):
        group = data.draw(st.sampled_from([group for group in self.world.groups if group.up]), "group")
        group.die()
        if arrivals_between:
            self.send(1, 1, 0, 0)
        self.world.loop.settle()
        group.bury()
        if comes_back:
            group.restart()
        elif not any(each.up for each in self.world.groups):
            group.events.not_restarted(ModelError("it does not load any more"))
            assert self.world.runtime.queue_statistics().requests == 0
        self.world.loop.settle()

    @precondition(lambda self: any(not group.up for group in self.world.groups))
    @rule()
    def workers_come_back(self):
        for group in self.world.groups:
            if not group.up:
                group.restart()
        self.world.loop.settle()

    @rule()
    def serve_until_empty(self):
        """Instances that go on finishing, and time, end every request that was taken."""
        self.workers_come_back()
        for _ in range(3 * len(self.requests) + 3):
            self.world.advance_us(7_000)
            for channel in self.world.busy:
                self.world.finish(channel)
        assert len(self.ended) == len(self.requests)
        assert self.world.runtime.in_flight == 0

    @precondition(lambda self: len(self.requests) > 20 and not self.closed)
    @rule()
    def close(self):
        """No more requests are taken; those that are there are served yet."""
        self.world.runtime.close("the model is being unloaded")
        self.closed = True

    # --- what must hold ---

    @invariant()
    def batches_are_sound(self):
        if self.world is None:
            return
        for batch, _ in self.world.dispatched[self.seen :]:
            assert batch.rows == sum(each.plan.rows for each in batch.requests) <= MAX_BATCH_SIZE
            assert len({each.plan.batch_key for each in batch.requests}) == 1
            assert self.batches or len(batch.requests) == 1
        self.seen = len(self.world.dispatched)

    @invariant()
    def first_in_is_first_out_within_a_level(self):
        if self.world is None or not ordered(replace(self.batching, priority_levels=0)):
            return
        last = {}
        for batch, _ in self.world.dispatched:
            for request in batch.requests:
                assert last.get(request.plan.priority, -1) < request.context
                last[request.plan.priority] = request.context

    @invariant()
    def nobody_waits_beside_a_free_instance_for_longer_than_the_delay(self):
        if self.world is None:
            return
        self.world.loop.settle()
        oldest_ns = self.world.runtime.queue_statistics().oldest_ns
        if oldest_ns is None or not self.world.idle:
            return
        batching = self.batching
        limit_us = batching.latency_target_us or batching.max_queue_delay_us
        assert self.world.clock.now_ns() - oldest_ns < limit_us * 1_000

    @invariant()
    def answers_are_in_the_order_of_dispatch(self):
        if self.world is None or not self.batching.preserve_ordering:
            return
        place = {id(each): index for index, (batch, _) in enumerate(self.world.dispatched) for each in batch.requests}
        ran = [place[id(request)] for request in self.end_order if id(request) in place]
        assert ran == sorted(ran)

    @invariant()
    def rules_38_and_39_late_requests_are_refused_and_never_run(self):
        if self.world is None:
            return
        now_ns = self.world.clock.now_ns()
        taken_ns = {id(each): at_ns for batch, at_ns in self.world.dispatched for each in batch.requests}
        for request in self.requests:
            due_ns = self.due_ns(request)
            refused = isinstance(self.ended.get(request.context), QueueTimeoutError)
            if due_ns is None:
                assert not refused
            elif id(request) in taken_ns:
                assert taken_ns[id(request)] < due_ns
                assert not refused
            elif request.state is RequestState.QUEUED:
                assert now_ns < due_ns + BUSY_CHECK_NS

    def due_ns(self, request):
        """When the queue policy of its level refuses a request that still waits; None for never."""
        policy = self.batching.priority_queue_policies.get(request.plan.priority, self.batching.default_queue_policy)
        timeout_us = policy.default_timeout_us
        if not timeout_us or policy.timeout_action is not TimeoutAction.REJECT:
            return None
        if policy.allow_timeout_override and 0 < request.plan.timeout_us < timeout_us:
            timeout_us = request.plan.timeout_us
        return request.queued_ns + timeout_us * 1_000


RuntimeMachine.TestCase.settings = settings(
    max_examples=200, stateful_step_count=35, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestRuntimeMachine = RuntimeMachine.TestCase
