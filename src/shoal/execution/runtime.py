"""ModelRuntime: one model version being served. Requests go in, batches go to instances, answers come out.

::

    submit -> scheduler -> (an instance is free) take -> gather -> instance ~~~> worker
    responder <- scatter <------------------------------------ done <~~~~~~~~~~~~~'

Requests that arrive in the same turn of the event loop are looked at together: the first one asks for a dispatch at the
end of the turn, so what one read of a socket brought can share a batch. A free instance is given its next batch before
the answers of its last one are written, so it works while the server encodes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from shoal.clock import Clock
from shoal.config.spec import BatchingSpec, InstanceSpec, ModelSpec
from shoal.errors import CancelledError, FailureReason, InternalError, ShoalError, UnavailableError, WorkerError
from shoal.execution.arena import Arena
from shoal.execution.gather import Gatherer
from shoal.execution.instance import InstanceChannel
from shoal.execution.marks import CANCELLED, byte_of_place
from shoal.execution.messages import MAX_INSTANCES, BatchDone, NumberRequests, Streamed, frame
from shoal.execution.rate_grants import RateGate, RateGrants
from shoal.execution.recorder import BatchTimes, Recorder
from shoal.execution.scatter import Answer, Scatterer
from shoal.execution.sequences import SequenceWork
from shoal.execution.streams import RunningStreams
from shoal.execution.worker_group import GroupEvents, WorkerGroup, WorkerOrder
from shoal.execution.worker_process import WorkerProcess
from shoal.requests import NOBODY, InferRequest, InferResponse, InnerRequest, RequestState
from shoal.scheduling.admission import check_payload
from shoal.scheduling.contract import Batch, DecidesByMeasurement, QueueStatistics, Scheduler
from shoal.scheduling.ordering import ResponseOrder, keeps_order
from shoal.scheduling.overload import ModelQueue, Pace, ServerQueue
from shoal.scheduling.sequence import SequenceScheduler

HUNG_CHECKS = 4
"""How often within the execution timeout running batches are looked at."""

BUSY_CHECK_NS = 10_000_000
"""How often queue timeouts are looked at while no instance is free."""

log = logging.getLogger("shoal.model")


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """What the server sets for every model.

    Attributes:
        clock: the clock.
        execution_timeout_s: a batch that runs longer costs its worker its life; 0 for no limit.
        rate_gate: the rate limiter's gate; None while it is off.
        queued: what waits in all models together.
    """

    clock: Clock
    execution_timeout_s: float = 0.0
    rate_gate: RateGate | None = None
    queued: ServerQueue = field(default_factory=ServerQueue)


class ModelRuntime:
    """Serves one model version (an ``execution.contract.Runtime``). All methods are called on the event loop's thread.

    Attributes:
        spec: the model.
        scheduler: its queue.
        arena: the shared memory of its requests and batches.
        groups: its workers.
    """

    def __init__(
        self, spec: ModelSpec, scheduler: Scheduler, recorder: Recorder, order: WorkerOrder, settings: RuntimeSettings
    ) -> None:
        self.spec = spec
        self.scheduler = scheduler
        self.arena = order.arena
        self.groups: Sequence[WorkerGroup] = []
        self._order = order
        self._recorder = recorder
        self._now_ns = settings.clock.now_ns
        self._timeout_s = settings.execution_timeout_s
        self._queued = ModelQueue(settings.queued)
        self._pace = Pace()
        self._rate_gate = settings.rate_gate
        self._grants: RateGrants | None = None
        self._loop = asyncio.get_running_loop()
        self._sequences = (
            SequenceWork(spec, scheduler, self._now_ns) if isinstance(scheduler, SequenceScheduler) else None
        )
        makers = self._sequences.makers if self._sequences is not None else ()
        self._gatherer = Gatherer(spec, order.arena.mapping, takes_pieces=order.takes_pieces, makers=makers)
        self._scatterer = Scatterer(spec, takes_pieces=order.takes_pieces)
        self._streams = RunningStreams(spec, self._scatterer, recorder, self._fail, self._now_ns)
        self._decoupled = spec.decoupled
        self._ordering = ResponseOrder() if keeps_order(spec) and not spec.decoupled else None
        self._idle: deque[InstanceChannel] = deque()
        self._running = 0
        self._dispatch_asked = False
        self._wake: asyncio.TimerHandle | None = None
        self._expires = spec.batching is not None and _has_timeouts(spec.batching)
        self._closed: str = ""
        self._down: str = ""
        self._emptied: asyncio.Event = asyncio.Event()

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self, share_worker: bool, loaded: WorkerProcess | None) -> None:
        """Start every worker; all must come up.

        Args:
            share_worker: whether the instances are threads of one worker, or have a worker each.
            loaded: the worker that completed the configuration, to be used for the first group.

        Raises:
            ShoalError: one could not start; the others are stopped again.
        """
        if self._rate_gate is not None:
            self._grants = self._rate_gate.join(self.spec.instances, self._begin)
        instances = dict(enumerate(self.spec.instances))
        most = MAX_INSTANCES if share_worker else 1
        numbers = list(instances)
        shares = [numbers[start : start + most] for start in range(0, len(numbers), most)]
        self.groups = [self._group({number: instances[number] for number in share}) for share in shares]
        starts = [group.start(loaded if index == 0 else None) for index, group in enumerate(self.groups)]
        try:
            results = await asyncio.gather(*starts, return_exceptions=True)
        except BaseException:
            await self.stop(0.0)
            raise
        failures = [result for result in results if result is not None]
        if failures:
            await self.stop(0.0)
            raise failures[0]
        if self._timeout_s > 0:
            self._loop.call_later(self._timeout_s / HUNG_CHECKS, self._check_hung)

    def _group(self, instances: dict[int, InstanceSpec]) -> WorkerGroup:
        events = GroupEvents(
            idle=self._instance_idle,
            done=self._batch_done,
            streamed=self._streamed,
            down=self._instances_down,
            lost=self._instances_lost,
            not_restarted=self._not_restarted,
        )
        return WorkerGroup(self.spec.name, self._order, instances, events)

    @property
    def ready(self) -> bool:
        """Whether every instance can take batches."""
        return not self._closed and all(group.up for group in self.groups)

    @property
    def in_flight(self) -> int:
        """Requests that wait or run."""
        batched = 0 if self._decoupled else self._running
        return self.scheduler.statistics().requests + batched + self._streams.open

    @property
    def receive_arena(self) -> Arena:
        """The shared memory in which a large request is best received."""
        return self.arena

    def queue_statistics(self) -> QueueStatistics:
        """What waits."""
        return self.scheduler.statistics()

    def beliefs(self) -> object | None:
        """What the scheduler has measured and decided, where it decides by measurement."""
        return self.scheduler.beliefs() if isinstance(self.scheduler, DecidesByMeasurement) else None

    def close(self, reason: str) -> None:
        """Take no more requests: they are answered with UNAVAILABLE and this reason. Those taken are answered yet."""
        self._closed = reason

    async def drained(self) -> None:
        """Wait until no request waits or runs."""
        while self.in_flight:
            self._emptied.clear()
            await self._emptied.wait()

    async def stop(self, timeout_s: float) -> None:
        """End the workers; requests that still wait are answered with UNAVAILABLE."""
        self.close(self._closed or f"model '{self.spec.name}' is stopping")
        self._down = self._closed
        self._fail_queued(UnavailableError(self._closed))
        self._streams.cancel_all()
        await asyncio.gather(*(group.stop(timeout_s) for group in self.groups))
        self._fail_queued(UnavailableError(self._closed))
        for group in self.groups:
            for channel in group.channels:
                self._fail_batch(channel, UnavailableError(self._closed))
                self._streams.lost(channel, UnavailableError(self._closed))
        if self._grants is not None:
            self._grants.leave()
            self._grants = None
        self.arena.close()

    # --- requests in ------------------------------------------------------------------------------------------------

    def submit(self, request: InferRequest) -> None:
        """Queue the request; it is answered through its responder, also when it cannot be queued."""
        now_ns = self._now_ns()
        here, nbytes = self._queued, request.plan.nbytes
        queued = here.server
        try:
            if (self._closed or self._down) and (self._down or not isinstance(request, InnerRequest)):
                raise UnavailableError(self._closed or self._down)
            if request.plan.bytes_inputs:
                check_payload(request)
            if (
                queued.requests
                and (queued.requests >= queued.most_requests or queued.nbytes + nbytes > queued.most_nbytes)
                and not isinstance(request, InnerRequest)
            ):
                raise queued.refusal(request)
            self.scheduler.enqueue(request, now_ns)
        except ShoalError as error:
            self._fail(request, error, now_ns)
            return
        here.requests += 1
        queued.requests += 1
        queued.nbytes += nbytes
        if self._sequences is not None:
            self._sequences.queued(request)
        if self._idle or self._sequences is not None:  # of a sequence more than a free instance may be waited for
            self._ask_dispatch()
        elif self._expires and self._wake is None:
            self._wake_at(now_ns + BUSY_CHECK_NS)

    def _ask_dispatch(self) -> None:
        """Have a look at the queue at the end of this turn of the event loop."""
        if not self._dispatch_asked:
            self._dispatch_asked = True
            self._loop.call_soon(self._dispatch)

    def cancel(self, request: InferRequest) -> None:
        """The client is gone or cancelled: a queued request is answered with CANCELLED, a running one is marked."""
        if self.scheduler.cancel(request):
            self._queued.leave(request)
            self._fail(request, CancelledError("request was cancelled while it waited in the queue"), self._now_ns())
        elif request.state is RequestState.RUNNING:
            request.cancelled = True
            if not (self._streams.cancel(request) or self._decoupled):
                self._mark_cancelled(request)
        if self._sequences is not None:  # it takes the others of its sequence with it
            self._ask_dispatch()

    def _mark_cancelled(self, request: InferRequest) -> None:
        """Tell the model that asks whether a request of its batch is cancelled."""
        for group in self.groups:
            for channel in group.channels:
                if channel.batch is not None and request in channel.batch.requests:
                    place = channel.batch.requests.index(request)
                    channel.blocks.marks.set(byte_of_place(place), CANCELLED)

    def hold(self, request: InferRequest, *, held: bool) -> None:
        """The client of a decoupled request does not keep up: the model waits with its next response, or goes on."""
        self._streams.hold(request, held=held)

    def abandon(self, correlation_id: int | str, begun_ns: int) -> None:
        """The client of a sequence is gone: it ends, unless it was begun anew since."""
        if self._sequences is not None:
            self._sequences.abandon(correlation_id, begun_ns)
            self._ask_dispatch()

    # --- batches out ------------------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Give every free instance a batch, as far as there are batches to give."""
        self._dispatch_asked = False
        idle, scheduler = self._idle, self.scheduler
        now_ns = self._now_ns()
        for request in scheduler.expired(now_ns):
            self._queued.leave(request)
            self._fail(request, scheduler.refusal(request), now_ns)
        if self._grants is not None:
            self._ask_turns(self._grants, now_ns)
            return
        if scheduler.per_instance:
            self._dispatch_each(now_ns)
            return
        while idle:
            batch = scheduler.take(now_ns, idle[0].number)
            if batch is None:
                self._wake_at(scheduler.wake_ns(now_ns))
                return
            self._run(idle.popleft(), batch, now_ns)
        if self._expires:  # nobody is free: queue timeouts are looked at all the same
            self._wake_at(now_ns + BUSY_CHECK_NS if scheduler.statistics().requests else None)

    def _dispatch_each(self, now_ns: int) -> None:
        """The same where an instance may have nothing to do while another has."""
        scheduler = self.scheduler
        for instance in list(self._idle):
            # Idle again at once is an instance whose batch could not be gathered.
            while instance in self._idle and (batch := scheduler.take(now_ns, instance.number)) is not None:
                self._idle.remove(instance)
                self._run(instance, batch, now_ns)
        self._wake_at(scheduler.wake_ns(now_ns))

    def _ask_turns(self, grants: RateGrants, now_ns: int) -> None:
        """The same under the rate limiter: every free instance asks for its turn, and takes its batch in ``_begin``."""
        scheduler = self.scheduler
        if scheduler.statistics().requests:
            for instance in self._idle:
                grants.ask(instance)
        wake_ns = scheduler.wake_ns(now_ns)
        self._wake_at(None if wake_ns is None else max(wake_ns, now_ns + BUSY_CHECK_NS))

    def _begin(self, instance: InstanceChannel) -> bool:
        """An instance has its turn; False when there is nothing to run on it now."""
        scheduler, now_ns = self.scheduler, self._now_ns()
        batch = scheduler.take(now_ns, instance.number)
        if batch is None:
            self._wake_at(scheduler.wake_ns(now_ns))
            return False
        self._idle.remove(instance)
        self._run(instance, batch, now_ns)
        if instance.batch is None:  # it could not be gathered; those behind it still wait
            self._ask_dispatch()
        return instance.batch is not None

    def _run(self, instance: InstanceChannel, batch: Batch, now_ns: int) -> None:
        self._queued.run(batch)
        self._pace.started += len(batch.requests)
        try:
            message = self._gatherer.message(batch, instance.blocks)
            if self._decoupled:
                message = frame(NumberRequests(self._streams.begin(instance, batch, now_ns))) + message
        except Exception as error:  # whatever it is, it must cost neither the instance nor the requests their answer
            self._idle.append(instance)
            if self.scheduler.follows:
                self.scheduler.done(batch, now_ns)
            for request in batch.requests:
                self._fail(request, _told(error), now_ns)
            return
        self._running += len(batch.requests)
        batch.instance = instance.number
        instance.batch = batch
        instance.taken_ns = now_ns
        if self._ordering is not None:
            self._ordering.dispatched(batch)
        instance.send(message)

    def _wake_at(self, wake_ns: int | None) -> None:
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        if wake_ns is not None:
            delay_s = max(0, wake_ns - self._now_ns()) / 1e9
            self._wake = self._loop.call_later(delay_s, self._dispatch)

    # --- answers back -----------------------------------------------------------------------------------------------

    def _batch_done(self, instance: InstanceChannel, done: BatchDone) -> None:
        batch, instance.batch = instance.batch, None
        assert batch is not None
        taken_ns = instance.taken_ns
        try:
            if self._sequences is None:
                answers: Sequence[Answer | None] = self._scatterer.answers(batch, done, instance.blocks)
            else:
                answers = self._sequences.answers(self._scatterer, batch, done, instance.blocks)
                self._queued.enter_again(batch)
        except Exception as error:  # as in ``_run``
            answers = [_told(error)] * len(batch.requests)
        if self._decoupled or done.later is not None:
            answers = self._streams.batch_done(instance, batch, done, answers)
        self._gatherer.sizes.learn(done, batch.rows)
        for offset in done.kept or ():
            instance.blocks.keep(offset, batch.requests)
        for offset in done.released or ():
            instance.blocks.unkeep(offset)
        instance.blocks.end_batch()
        if instance.blocks.marks.marked:
            instance.blocks.marks.clear_places(len(batch.requests))
        if self._grants is not None:
            self._grants.done(instance)
        follows = self.scheduler.follows
        if follows:
            self.scheduler.done(batch, self._now_ns())
        if instance.up:
            self._idle.append(instance)
            if follows or self._queued.requests:
                self._dispatch()
        times = BatchTimes(taken_ns, done.input_ns, done.infer_ns, done.output_ns, 0)
        if self._ordering is None:
            self._answer(batch, answers, times)
        else:
            self._release(batch, lambda: self._answer(batch, answers, times))

    def _streamed(self, instance: InstanceChannel, message: Streamed) -> None:
        self._streams.streamed(instance, message)
        self._note_emptied()

    def _release(self, batch: Batch, deliver: Callable[[], None]) -> None:
        """Deliver a batch's answers now or, where order is to be kept, when those before it are delivered."""
        if self._ordering is None:
            deliver()
            return
        for ready in self._ordering.completed(batch, deliver):
            ready()

    def _answer(self, batch: Batch, answers: Sequence[Answer | None], times: BatchTimes) -> None:
        self._running -= len(batch.requests)
        now_ns = times.done_ns = self._now_ns()
        answered = []
        for request, answer in zip(batch.requests, answers, strict=True):
            if type(answer) is InferResponse:
                if request.responder is not NOBODY:
                    answered.append(request)
                if isinstance(request, InnerRequest):
                    request.compute_ns = times.compute_ns
                request.state = RequestState.DONE
                try:
                    request.responder.completed(request, answer)
                except Exception:  # the others of the batch must be answered
                    log.exception("an answer of model '%s' could not be delivered", self.spec.name)
            elif answer is not None:  # None: it runs again
                assert isinstance(answer, ShoalError)
                self._fail(request, answer, now_ns)
        self._recorder.batch_done(batch, times, answered)
        self._note_emptied()

    def _fail(self, request: InferRequest, error: ShoalError, now_ns: int) -> None:
        request.state = RequestState.DONE
        if error.reason is FailureReason.REJECTED:
            error.retry_after_s = self._pace.retry_after_s(self.scheduler, now_ns)
        if request.responder is not NOBODY:
            self._recorder.request_failed(request, error.reason, now_ns)
        try:
            request.responder.failed(request, error)
        except Exception:  # as for answers
            log.exception("an error of model '%s' could not be delivered", self.spec.name)
        self._note_emptied()

    def _note_emptied(self) -> None:
        if self._closed and not self.in_flight:
            self._emptied.set()

    # --- instances come and go --------------------------------------------------------------------------------------

    def _instance_idle(self, instance: InstanceChannel) -> None:
        self._down = ""
        if not instance.spec.passive:
            self._idle.append(instance)
            self._dispatch()

    def _instances_down(self, instances: list[InstanceChannel]) -> None:
        for instance in instances:
            instance.up = False
            if self._grants is not None:
                self._grants.withdraw(instance)
            if instance in self._idle:
                self._idle.remove(instance)

    def _instances_lost(self, instances: list[InstanceChannel], error: WorkerError) -> None:
        for instance in instances:
            self._fail_batch(instance, error)
            self._streams.lost(instance, error)
            if self._sequences is not None:
                self._sequences.scheduler.instance_lost(instance.number, self._now_ns())
        if self._sequences is not None:
            self._ask_dispatch()

    def _fail_batch(self, instance: InstanceChannel, error: ShoalError) -> None:
        batch, instance.batch = instance.batch, None
        if batch is not None:
            if self._grants is not None:
                self._grants.done(instance)
            if self.scheduler.follows:
                self.scheduler.done(batch, self._now_ns())
            self._release(batch, lambda: self._fail_running(batch, error))

    def _fail_running(self, batch: Batch, error: ShoalError) -> None:
        self._running -= len(batch.requests)
        if self._decoupled:  # what they were not told yet, their streams tell them
            return
        now_ns = self._now_ns()
        for request in batch.requests:
            self._fail(request, error, now_ns)

    def _not_restarted(self, error: ShoalError) -> None:
        """No worker came up: with none left, those who wait are told rather than kept."""
        if not any(group.up for group in self.groups):
            self._down = f"model '{self.spec.name}' is not ready: {error.message}"
            self._fail_queued(UnavailableError(self._down))

    def _fail_queued(self, error: ShoalError) -> None:
        now_ns = self._now_ns()
        for request in self.scheduler.drain():
            self._queued.leave(request)
            self._fail(request, error, now_ns)

    def _check_hung(self) -> None:
        """Kill workers whose batch runs for longer than the execution timeout."""
        if self._closed and not self.in_flight:
            return
        limit_ns = self._now_ns() - int(self._timeout_s * 1e9)
        for group in self.groups:
            for channel in group.channels:
                self._streams.end_silent(channel, limit_ns, self._timeout_s)
            if any(self._hangs(channel, limit_ns) for channel in group.channels):
                group.kill(
                    f"model '{self.spec.name}' did not answer within the execution timeout of {self._timeout_s:g} s; "
                    f"its worker (pid {group.pid}) was killed"
                )
        self._loop.call_later(self._timeout_s / HUNG_CHECKS, self._check_hung)

    def _hangs(self, channel: InstanceChannel, limit_ns: int) -> bool:
        """Whether an instance has run its batch since before ``limit_ns`` and given no sign of life."""
        if channel.batch is None or channel.taken_ns >= limit_ns:
            return False
        return self._streams.last_sign_ns(channel) < limit_ns and not self._streams.waits_for_clients(channel)


def _has_timeouts(batching: BatchingSpec) -> bool:
    policies = (batching.default_queue_policy, *batching.priority_queue_policies.values())
    return any(policy.default_timeout_us for policy in policies)


def _told(error: Exception) -> ShoalError:
    """What clients are told of an error; one that nobody foresaw is logged with its traceback."""
    if isinstance(error, ShoalError):
        return error
    log.error("unexpected error", exc_info=error)
    return InternalError(f"unexpected {type(error).__name__}: {error}")
