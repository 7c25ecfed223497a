"""The instances that share a worker process, and their supervision: start, replace with back-off, stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from shoal.config.spec import InstanceSpec
from shoal.errors import ShoalError, WorkerError
from shoal.execution.arena import Arena
from shoal.execution.fork_client import ForkClient
from shoal.execution.instance import ChannelEvents, InstanceChannel
from shoal.execution.messages import BatchDone, LoadModel, StartInstances, Streamed
from shoal.execution.worker_process import WorkerProcess

FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 30.0
STABLE_S = 60.0
"""A worker that lived this long starts the back-off anew."""
LINGER_S = 1.0
"""How long a worker that closed its channels may take to end before it is killed."""

log = logging.getLogger("shoal.worker")


@dataclass(frozen=True, slots=True)
class WorkerOrder:
    """What it takes to start a worker for a model.

    Attributes:
        client: the fork server.
        arena: the model's shared memory.
        modules: what the fork server is to import first.
        load: the message that loads the model, its configuration completed.
        takes_pieces: whether large inputs may stay ungathered.
    """

    client: ForkClient
    arena: Arena
    modules: list[str]
    load: LoadModel
    takes_pieces: bool


@dataclass(slots=True)
class GroupEvents:
    """Whom a group tells what: all called on the event loop.

    Attributes:
        idle: an instance is up and takes its first batch.
        done: a batch is done.
        streamed: a request that is answered response by response got one.
        down: these instances' worker is gone: no more batches for them.
        lost: how it ended is known now, for the batches that it had.
        not_restarted: another worker could not be started either.
    """

    idle: Callable[[InstanceChannel], None]
    done: Callable[[InstanceChannel, BatchDone], None]
    streamed: Callable[[InstanceChannel, Streamed], None]
    down: Callable[[list[InstanceChannel]], None]
    lost: Callable[[list[InstanceChannel], WorkerError], None]
    not_restarted: Callable[[ShoalError], None]


@dataclass(slots=True)
class _State:
    worker: WorkerProcess | None = None
    channels: list[InstanceChannel] = field(default_factory=list)
    started_s: float = 0.0
    reason: str = ""


class WorkerGroup:
    """One worker process after another, running the same instances.

    Attributes:
        up: whether the instances can take batches.
        restarts: how often the worker was replaced.
        last_error: why the group is not up, None when it is.
    """

    def __init__(self, model: str, order: WorkerOrder, instances: dict[int, InstanceSpec], events: GroupEvents) -> None:
        self.up = False
        self.restarts = 0
        self.last_error: ShoalError | None = None
        self._model = model
        self._order = order
        self._instances = instances
        self._events = events
        self._state = _State()
        self._backoff_s = 0.0
        self._stopping = False
        self._replacing: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """The worker's process id, 0 when there is none."""
        return self._state.worker.pid if self._state.worker is not None and self.up else 0

    @property
    def channels(self) -> list[InstanceChannel]:
        """The instances' channels."""
        return self._state.channels

    async def start(self, loaded: WorkerProcess | None = None) -> None:
        """Start the worker and its instances.

        Args:
            loaded: a worker that has completed the configuration already and waits to be told its instances.

        Raises:
            ShoalError: it could not start; nothing is left behind.
        """
        worker = loaded or WorkerProcess(self._model)
        channels: list[InstanceChannel] = []
        try:
            if loaded is None:
                await worker.start(self._order.client, self._order.modules, self._order.arena)
                await worker.load(self._order.load)
            for number in self._instances:
                channels.append(self._channel(number))  # noqa: PERF401 - those made before a failure must be closed
            worker.instances = ", ".join(spec.name for spec in self._instances.values())
            marks = [channel.blocks.marks.offset for channel in channels]
            message = StartInstances(self._order.load.config, list(self._instances), marks)
            await worker.start_instances(message, [end for channel in channels for end in channel.worker_ends])
        except BaseException:
            worker.abandon()
            for channel in channels:
                channel.close()
                channel.blocks.release()
            raise
        finally:
            for channel in channels:
                channel.close_worker_ends()
        self._state = _State(worker, channels, asyncio.get_running_loop().time())
        self.up, self.last_error = True, None
        worker.exited.add_done_callback(lambda _: self._worker_gone(worker))
        for channel in channels:
            self._events.idle(channel)

    def _channel(self, number: int) -> InstanceChannel:
        events = ChannelEvents(self._events.done, self._events.streamed, self._channel_closed)
        return InstanceChannel(number, self._instances[number], self._order.arena, events)

    def kill(self, reason: str) -> None:
        """Kill the worker, for this reason; it is replaced."""
        self._state.reason = reason
        if self._state.worker is not None:
            self._state.worker.kill()

    def _channel_closed(self, channel: InstanceChannel) -> None:
        if channel in self._state.channels:
            self._lost()

    def _worker_gone(self, worker: WorkerProcess) -> None:
        """Its channels may still be open: a process that the model started can hold copies of them."""
        if worker is self._state.worker:
            self._lost()

    def _lost(self) -> None:
        if self._stopping or not self.up:
            return
        self.up = False
        self._events.down(self._state.channels)
        self._replacing = asyncio.get_running_loop().create_task(self._replace(), name=f"replace {self._model}")

    async def _replace(self) -> None:
        """The worker is gone: tell its requests, then start another until one stays up."""
        lost = self._state
        assert lost.worker is not None
        error = await self._bury(lost.worker, lost.channels)
        log.error("%s", error.message, extra={"model": self._model})
        if asyncio.get_running_loop().time() - lost.started_s > STABLE_S:
            self._backoff_s = 0.0
        while not self._stopping:
            await asyncio.sleep(self._backoff_s)
            self._backoff_s = min(max(2 * self._backoff_s, FIRST_BACKOFF_S), LONGEST_BACKOFF_S)
            self.restarts += 1
            try:
                await self.start()
            except Exception as failure:  # such as no more descriptors: whatever it is, the next try may succeed
                reason: ShoalError = WorkerError(f"{type(failure).__name__}: {failure}")
                if isinstance(failure, ShoalError):
                    reason = failure
                self.last_error = reason
                log.error("model '%s' could not be started again: %s", self._model, reason.message)  # noqa: TRY400
                self._events.not_restarted(reason)
            else:
                log.info("model '%s' is up again, worker %d", self._model, self.pid)
                return

    async def _bury(self, worker: WorkerProcess, channels: list[InstanceChannel]) -> WorkerError:
        """Wait for the worker's end, free what it held, and tell the requests that it had."""
        for channel in channels:
            channel.receive()  # an answer may lie unread in the channel of a worker that died right after it
            channel.close()
        await worker.stop(LINGER_S)
        text = self._state.reason or worker.describe_end(worker.exited.result())
        error = self.last_error = WorkerError(text)
        self._events.lost(channels, error)
        for channel in channels:
            channel.blocks.release()
        return error

    async def stop(self, timeout_s: float) -> None:
        """End the worker: its instances are closed and finalized, or killed after the timeout."""
        self._stopping = True
        self.up = False
        if self._replacing is not None:
            self._replacing.cancel()
            await asyncio.gather(self._replacing, return_exceptions=True)
        if self._state.worker is None:
            return
        for channel in self._state.channels:
            channel.close()
        await self._state.worker.stop(timeout_s)
        for channel in self._state.channels:
            channel.blocks.release()
