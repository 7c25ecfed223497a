"""A ``ModelRuntime`` without processes: instances that a test lets finish, fail and die, on a loop with manual time."""

from __future__ import annotations

import asyncio
from unittest import mock

import msgspec

from shoal.config.spec import InstanceSpec, ModelSpec
from shoal.errors import WorkerError
from shoal.execution.arena import Arena
from shoal.execution.blocks import InstanceBlocks
from shoal.execution.messages import BatchDone, FrameReader, NumberRequests, Outcome, RunBatch
from shoal.execution.runtime import ModelRuntime, RuntimeSettings
from shoal.execution.worker_group import GroupEvents, WorkerOrder
from shoal.scheduling.make import make_scheduler
from shoal.testing.clock import ManualClock

ARENA_NBYTES = 1 << 24
TURNS = 3
"""Turns of the event loop after which nothing is left to do at this moment."""

_run_batch = msgspec.msgpack.Decoder(RunBatch).decode
_number_requests = msgspec.msgpack.Decoder(NumberRequests).decode


class ManualLoop(asyncio.SelectorEventLoop):
    """An event loop whose timers go by a manual clock."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self.clock = clock

    def time(self) -> float:
        return self.clock.now_ns() / 1e9

    def settle(self) -> None:
        """Do everything that is to be done at this moment."""
        for _ in range(TURNS):
            self.run_until_complete(asyncio.sleep(0))


class FakeChannel:
    """An instance that echoes its one input when it is told to.

    Attributes:
        numbers: those of the requests of its last batch, of a decoupled model.
    """

    def __init__(self, number: int, spec: InstanceSpec, arena: Arena, world: FakeWorld) -> None:
        self.number = number
        self.spec = spec
        self.blocks = InstanceBlocks(arena)
        self.up = True
        self.batch = None
        self.taken_ns = 0
        self._arena = arena
        self._world = world
        self._message: RunBatch | None = None
        self.numbers: list[int] = []

    def send(self, data: bytes) -> None:
        assert self.up
        assert self._message is None, "an instance runs one batch at a time"
        *before, message = FrameReader().split(data)
        self.numbers = [number for each in before for number in _number_requests(each).numbers]
        self._message = _run_batch(message)
        assert self._message.rows == [request.plan.rows for request in self.batch.requests]
        self._world.dispatched.append((self.batch, self._world.clock.now_ns()))

    @property
    def busy(self) -> bool:
        return self._message is not None

    def finish(self, failing: str, failed_requests: frozenset[int] = frozenset()) -> BatchDone:
        """What the worker would answer: ``failing`` is "" or why the whole batch failed."""
        message, self._message = self._message, None
        now_ns = self._world.clock.now_ns()
        if failing:
            return BatchDone(now_ns, now_ns, now_ns, [], status="INTERNAL", message=failing)
        ((index, offset, nbytes, shape),) = message.inputs
        view, room = self._arena.mapping.view, message.room_offset
        assert nbytes <= message.room_nbytes
        view[room : room + nbytes] = view[offset : offset + nbytes]
        if not failed_requests:
            return BatchDone(now_ns, now_ns, now_ns, [(index, room, nbytes, shape)])
        outcomes, row_nbytes = [], nbytes // shape[0]
        for position, rows in enumerate(message.rows):
            place = (index, room, rows * row_nbytes, (rows, *shape[1:]))
            room += rows * row_nbytes
            outcomes.append(Outcome([], "INTERNAL", "refused") if position in failed_requests else Outcome([place]))
        return BatchDone(now_ns, now_ns, now_ns, [], outcomes=outcomes)


class FakeGroup:
    """The group of one instance, in place of ``WorkerGroup``."""

    world: FakeWorld

    def __init__(self, model: str, order: WorkerOrder, instances: dict[int, InstanceSpec], events: GroupEvents) -> None:
        del model
        self.up = False
        self.pid = 0
        self.events = events
        self.channels: list[FakeChannel] = []
        self._instances = instances
        self._arena = order.arena
        self.world.groups.append(self)

    async def start(self, loaded: object = None) -> None:
        del loaded
        self.restart()

    def restart(self) -> None:
        """Another worker came up."""
        self.up = True
        self.channels = [FakeChannel(number, spec, self._arena, self.world) for number, spec in self._instances.items()]
        for channel in self.channels:
            self.events.idle(channel)

    def die(self) -> None:
        """The worker is gone: its requests are not told yet."""
        self.up = False
        self.events.down(self.channels)

    def bury(self) -> None:
        """It is known how it ended."""
        self.events.lost(self.channels, WorkerError("the worker died"))
        for channel in self.channels:
            channel.blocks.release()

    async def stop(self, timeout_s: float) -> None:
        del timeout_s
        self.up = False


class FakeWorld:
    """A runtime, its clock and its instances.

    Attributes:
        dispatched: every batch that was given to an instance, and when, in order.
    """

    def __init__(self, spec: ModelSpec, recorder: object) -> None:
        self.clock = ManualClock()
        self.loop = ManualLoop(self.clock)
        self.groups: list[FakeGroup] = []
        self.dispatched: list = []
        self.runtime: ModelRuntime = self.loop.run_until_complete(self._start(spec, recorder))

    async def _start(self, spec: ModelSpec, recorder: object) -> ModelRuntime:
        order = WorkerOrder(None, Arena(ARENA_NBYTES), [], None, takes_pieces=False)
        runtime = ModelRuntime(spec, make_scheduler(spec), recorder, order, RuntimeSettings(self.clock))
        group = type("Group", (FakeGroup,), {"world": self})
        with mock.patch("shoal.execution.runtime.WorkerGroup", group):
            await runtime.start(share_worker=False, loaded=None)
        return runtime

    @property
    def busy(self) -> list[FakeChannel]:
        """The instances that run a batch and live."""
        return [channel for group in self.groups if group.up for channel in group.channels if channel.busy]

    @property
    def idle(self) -> list[FakeChannel]:
        """The instances that could run a batch."""
        return [channel for group in self.groups if group.up for channel in group.channels if not channel.busy]

    def group_of(self, channel: FakeChannel) -> FakeGroup:
        return next(group for group in self.groups if channel in group.channels)

    def finish(self, channel: FakeChannel, failing: str = "", failed: frozenset[int] = frozenset()) -> None:
        """Let the instance answer, and everybody act on it."""
        self.group_of(channel).events.done(channel, channel.finish(failing, failed))
        self.loop.settle()

    def advance_us(self, step_us: int) -> None:
        """Let time pass: every timer goes off at its own moment."""
        end_ns = self.clock.now_ns() + step_us * 1_000
        self.loop.settle()
        while (due_ns := self._next_timer_ns()) is not None and due_ns <= end_ns:
            self.clock.move_to_ns(max(due_ns, self.clock.now_ns() + 1))
            self.loop.settle()
        self.clock.move_to_ns(end_ns)
        self.loop.settle()

    def _next_timer_ns(self) -> int | None:
        times = [handle.when() for handle in self.loop._scheduled if not handle.cancelled()]
        return round(min(times) * 1e9) if times else None

    def close(self) -> None:
        """Stop the runtime, which ends all requests."""
        self.loop.run_until_complete(self.runtime.stop(0.0))
        self.loop.settle()
        self.loop.close()
