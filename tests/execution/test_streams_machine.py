"""Random lives of a decoupled model's runtime: responses at any time, cancellations, failures, deaths, shutdown.

The real runtime on a manual clock with instances that are none. Protects: every request ends exactly once and hears
nothing afterwards; its responses come in their order; a response of a request that has ended reaches nobody; marks tell
of cancellations and of nothing else; with preserve_ordering no request is answered before an earlier one has ended.
"""

from __future__ import annotations

import struct
from dataclasses import replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, precondition, rule

from shoal.config.spec import BatchingSpec, InstanceKind, InstanceSpec, ModelSpec, TensorSpec
from shoal.datatypes import DataType
from shoal.errors import ShoalError
from shoal.execution.marks import CANCELLED, HELD, byte_of_number
from shoal.execution.messages import Outcome, Streamed
from shoal.requests import LATEST, InferHead, InferRequest, InferResponse, InputHead, RequestState
from shoal.scheduling.admission import plan_request
from tests.execution.fake_instances import FakeWorld

TENSOR = TensorSpec("IN", DataType.INT32, (-1,))
MODEL = ModelSpec(
    "m", 1, "python", "python", 4, (TENSOR,), (replace(TENSOR, name="OUT"),), (), decoupled=True
)  # fmt: skip


class Counter:
    """A recorder that counts ends."""

    def __init__(self) -> None:
        self.streamed = self.failed = self.responses = 0

    def batch_done(self, batch, times, answered):
        assert answered == [], "a decoupled request is counted when its last response came"

    def request_failed(self, request, reason, now_ns):
        self.failed += 1

    def request_streamed(self, request, times):
        self.streamed += 1

    def response_sent(self, index, times, error, *, empty):
        self.responses += 1


class Sent:
    """A request that a worker works on: where, under which number, and what the worker has said of it so far."""

    def __init__(self, channel, number, request) -> None:
        self.channel, self.number, self.request = channel, number, request
        self.responses = 0
        self.over = False


class StreamsMachine(RuleBasedStateMachine):
    entered = Bundle("entered")

    def __init__(self) -> None:
        super().__init__()
        self.world = None
        self.requests = []
        self.heard = {}
        self.ends = {}
        self.end_order = []
        self.sent = []
        self.seen = 0
        self.closed = False

    @initialize(instances=st.integers(1, 2), preserve=st.booleans())
    def make(self, instances, preserve):
        self.preserve = preserve
        specs = tuple(InstanceSpec(f"m_{number}", InstanceKind.CPU, 0) for number in range(instances))
        self.spec = replace(MODEL, instances=specs, batching=BatchingSpec(preserve_ordering=preserve))
        self.counter = Counter()
        self.world = FakeWorld(self.spec, self.counter)

    def teardown(self):
        if self.world is None:
            return
        self.world.close()
        assert len(self.ends) == len(self.requests), "a request was left without an end"
        assert self.counter.streamed + self.counter.failed == len(self.requests)
        assert self.world.runtime.in_flight == 0

    # --- what the requests are told ---

    def completed(self, request, response):
        raise AssertionError("a decoupled request has no single answer")

    def failed(self, request, error):
        assert isinstance(error, ShoalError)
        self.end(request)

    def responded(self, request, answer, *, final):
        assert request.context not in self.ends, "a request heard something after its end"
        if isinstance(answer, InferResponse):
            heard = self.heard.setdefault(request.context, [])
            assert struct.unpack("<ii", answer.data[0]) == (request.context, len(heard))
            heard.append(answer)
        if final:
            self.end(request)

    def end(self, request):
        assert request.context not in self.ends, "a request ended twice"
        assert request.state is RequestState.DONE
        self.ends[request.context] = True
        self.end_order.append(request)

    # --- what happens ---

    @rule(target=entered, count=st.integers(1, 5))
    def submit(self, count):
        return multiple(*(self.ask() for _ in range(count)))

    def ask(self):
        number = len(self.requests)
        head = InferHead("m", LATEST, "", (InputHead("IN", DataType.INT32, (1, 1), 4),))
        plan = plan_request(head, self.spec, self.world.runtime)
        request = InferRequest(plan, (struct.pack("<i", number),), self, number, self.world.clock.now_ns())
        self.requests.append(request)
        self.world.runtime.submit(request)
        return request

    @rule()
    def turn(self):
        self.world.loop.settle()
        self.note_dispatched()

    def note_dispatched(self):
        for batch, _ in self.world.dispatched[self.seen :]:
            channel = next(channel for channel in self.world.busy if channel.batch is batch)
            pairs = zip(channel.numbers, batch.requests, strict=True)
            self.sent += [Sent(channel, number, request) for number, request in pairs]
        self.seen = len(self.world.dispatched)

    @rule(victim=entered)
    def cancel(self, victim):
        self.world.runtime.cancel(victim)
        for each in self.sent:
            if each.request is victim and not each.over:
                assert self.marks(each) & CANCELLED

    @rule(slow=entered, held=st.booleans())
    def hold(self, slow, held):
        self.world.runtime.hold(slow, held=held)
        for each in self.sent:
            if each.request is slow and not each.over and (held or not self.preserve):
                assert bool(self.marks(each) & HELD) is held

    def marks(self, each):
        return each.channel.blocks.marks._view[byte_of_number(each.number)]

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), final=st.sampled_from([False, False, True]), what=st.sampled_from(["data", "error", "none"]))
    def response(self, data, final, what):
        """A response comes, possibly of a request that the server has ended."""
        each = data.draw(st.sampled_from(self.sent), "request")
        if not self.world.group_of(each.channel).up or (what == "none" and not final):
            return
        outcome, inline = None, b""
        if what == "data":
            inline = struct.pack("<ii", each.request.context, each.responses)
            outcome = Outcome([(0, 0, 8, (1, 2))])
            each.responses += 1
        elif what == "error":
            outcome = Outcome([], "INTERNAL", "refused")
        now_ns = self.world.clock.now_ns()
        message = Streamed(each.number, outcome, memoryview(inline), final, (now_ns, now_ns, now_ns))
        self.world.group_of(each.channel).events.streamed(each.channel, message)
        if each.over:
            each.responses -= what == "data"  # nobody heard it
        each.over = each.over or final

    @precondition(lambda self: self.world.busy)
    @rule(data=st.data(), failing=st.sampled_from(["", "", "", "the model failed"]))
    def finish(self, data, failing):
        self.note_dispatched()
        channel = data.draw(st.sampled_from(self.world.busy), "instance")
        batch = channel.batch
        self.world.finish(channel, failing)
        if failing:
            assert self.preserve or all(request.context in self.ends for request in batch.requests)
            self.mark_over(lambda each: each.channel is channel and each.request in batch.requests)
        self.note_dispatched()

    def mark_over(self, ended):
        for each in self.sent:
            each.over = each.over or ended(each)

    @precondition(lambda self: any(group.up for group in self.world.groups))
    @rule(data=st.data())
    def worker_dies(self, data):
        self.turn()
        group = data.draw(st.sampled_from([group for group in self.world.groups if group.up]), "group")
        channels = group.channels
        group.die()
        self.world.loop.settle()
        group.bury()
        self.sent = [each for each in self.sent if each.channel not in channels]
        group.restart()
        self.turn()

    @rule()
    def close(self):
        self.turn()
        self.world.runtime.close("the server is stopping")

    # --- what always holds ---

    @invariant()
    def in_flight_is_what_has_not_ended(self):
        """Where order is kept, an answer that waits for others is not in flight itself; they are."""
        if self.world is not None:
            in_flight, open_count = self.world.runtime.in_flight, len(self.requests) - len(self.ends)
            assert (in_flight > 0) == (open_count > 0)
            assert in_flight == open_count or self.preserve

    @invariant()
    def no_ended_request_leaves_a_mark(self):
        if self.world is None:
            return
        alive = {(each.channel, byte_of_number(each.number)) for each in self.sent if not each.over}
        for group in self.world.groups:
            for channel in group.channels:
                view = channel.blocks.marks._view
                assert all((channel, byte) in alive for byte in channel.blocks.marks.marked if view[byte])

    @invariant()
    def ends_are_in_order(self):
        """Of the requests that ran; one that was refused or cancelled in the queue was never in the row."""
        if self.world is None or not self.preserve:
            return
        ran = [request for batch, _ in self.world.dispatched for request in batch.requests]
        ended = [request for request in self.end_order if request in ran]
        assert ended == ran[: len(ended)]


TestStreams = StreamsMachine.TestCase
TestStreams.settings = settings(
    max_examples=120, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
