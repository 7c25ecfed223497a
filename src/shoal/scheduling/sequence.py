"""The sequence batcher: requests of one sequence run one after the other on one instance (rules 41 and 44-46).

A sequence begins with a request that has the START flag. It gets a slot of an instance, or waits in the backlog until
one is free, and keeps that slot until its last request runs: the one with the END flag, or none when the sequence was
idle for too long, cancelled, or lost with its instance. Which of the sequences on an instance run together is up to the
strategy, an ``InstanceBatcher``.

Iterative sequences: each request is a sequence of its own, with an id from the server when the client gave none.
Execution calls ``reschedule`` for those that the model wants to see again, before ``done``; the others are finished.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from shoal.config.spec import ModelSpec
from shoal.errors import CancelledError, InvalidArgumentError, QueueTimeoutError, ShoalError, UnavailableError
from shoal.requests import InferRequest, RequestState, SequencePart
from shoal.scheduling.contract import Batch, QueueStatistics, SequenceTurn
from shoal.scheduling.sequence_batcher import InstanceBatcher, Pick
from shoal.scheduling.sequence_fill import Filler
from shoal.scheduling.sequence_slots import SlotPool
from shoal.scheduling.sequence_table import CorrelationId, LiveSequence, SequenceTable

BACKLOG_TIMEOUT_TEXT = "timeout of the corresponding sequence has been expired"
"""The message to a sequence that waited in the backlog for too long (rule 41)."""

EMPTY_SLOT = SequenceTurn(0, start=False, end=False, ready=False)


class SequenceScheduler:
    """Keeps a model's sequences (a ``contract.Scheduler``).

    Args:
        spec: the model, which has ``sequence``.
        batchers: the strategy of each instance, by its number.
        slots_each: how many sequences an instance has room for.

    Attributes:
        on_finished: called with an id of which no sequence is left, whatever ended it, so that what was kept for it can
            be let go. Where the next one with the same id waits already, it takes over with its START.
    """

    follows = True
    per_instance = True

    def __init__(self, spec: ModelSpec, batchers: Mapping[int, InstanceBatcher], slots_each: int) -> None:
        assert spec.sequence is not None
        self.on_finished: Callable[[CorrelationId], None] = _nothing
        self._model = spec.name
        self._iterative = spec.sequence.iterative
        self._max_idle_ns = spec.sequence.max_idle_us * 1_000
        self._batchers = batchers
        self._table = SequenceTable()
        self._pool = SlotPool(batchers, slots_each)
        self._filler = Filler(spec)
        self._gone: list[InferRequest] = []
        self._refusals: dict[InferRequest, ShoalError] = {}
        self._seen_ns = 0

    # --- in ---------------------------------------------------------------------------------------------------------

    def enqueue(self, request: InferRequest, now_ns: int) -> None:
        """Take the request into its sequence and mark it queued.

        Raises:
            InvalidArgumentError: no such sequence is live and the request does not begin one (rule 45).
        """
        self._seen_ns = now_ns
        self._end_idle(now_ns)
        part = request.plan.sequence
        assert part is not None
        sequence = self._sequence_of(part)
        request.queued_ns = now_ns
        request.state = RequestState.QUEUED
        sequence.requests.append(request)
        self._table.waiting[request] = sequence
        self._table.idle.pop(sequence, None)
        if len(sequence.requests) == 1 and sequence.slot is None:
            self._pool.place(sequence)
        if request.plan.timeout_us and sequence.slot is None:
            self._pool.limit_wait(sequence, now_ns + request.plan.timeout_us * 1_000)
        if part.end or not part.correlation_id:  # an id that the server chose is nobody else's
            self._table.close(sequence)
        self._offer(sequence, now_ns)

    def _sequence_of(self, part: SequencePart) -> LiveSequence:
        """The sequence that a request belongs to; a new one for a START, unless it restarts a live one."""
        if self._iterative and not part.correlation_id:
            return self._table.open(self._table.unused_id())
        found = self._table.find(part.correlation_id)
        if found is not None and not found.lost:
            return found
        if not part.start:
            why = "; it was lost with the model instance that had it" if found is not None else ""
            raise InvalidArgumentError(
                f"inference request for sequence {part.correlation_id} to model '{self._model}' must specify the START "
                f"flag on the first request of the sequence{why}"
            )
        if found is not None:
            self._end(found)
        return self._table.open(part.correlation_id)

    def reschedule(self, request: InferRequest, now_ns: int) -> None:
        """Let a running request of an iterative sequence run again; to be called before ``done`` of its batch.

        It keeps its slot and takes part in the next batch. If it was cancelled meanwhile, ``expired`` gives it instead.
        """
        sequence = self._table.running[request]
        request.queued_ns = now_ns
        request.state = RequestState.QUEUED
        if sequence.dropped:
            self._refuse(request, _cancelled())
            return
        sequence.again = True
        sequence.requests.appendleft(request)
        self._table.waiting[request] = sequence

    # --- out --------------------------------------------------------------------------------------------------------

    def take(self, now_ns: int, instance: int = 0) -> Batch | None:
        """The next batch for a free instance, marked running; None when nothing is to run there now."""
        self._seen_ns = now_ns
        if instance in self._pool.lost:
            self._pool.regain(instance)
            self._place_backlog(now_ns)
        pick = self._batchers[instance].take(now_ns)
        return None if pick is None else self._batch(pick, now_ns)

    def _batch(self, pick: Pick, now_ns: int) -> Batch:
        """The batch of the picked sequences' first requests, rows without one filled up."""
        example = next(sequence for sequence in pick.sequences if sequence is not None).requests[0]
        requests: list[InferRequest] = []
        turns: list[SequenceTurn] = []
        for sequence in pick.sequences:
            if sequence is None:
                requests.append(self._filler.like(example, now_ns))
                turns.append(EMPTY_SLOT)
            else:
                request = sequence.requests.popleft()
                requests.append(request)
                turns.append(self._run(sequence, request))
        self._place_backlog(now_ns)
        return Batch(requests, len(requests), pick.reason, turns)

    def _run(self, sequence: LiveSequence, request: InferRequest) -> SequenceTurn:
        """Mark the request running; its sequence leaves its slot with its last one."""
        del self._table.waiting[request]
        self._table.running[request] = sequence
        request.state = RequestState.RUNNING
        sequence.running = sequence.begun = True
        sequence.offered = False
        if sequence.closed and not sequence.requests and not self._iterative:
            self._pool.leave(sequence)
        if sequence.again:
            sequence.again = False
            return SequenceTurn(sequence.correlation_id, start=False, end=False)
        part = request.plan.sequence
        assert part is not None
        # A request that got its id from the server begins its sequence, whatever it says.
        return SequenceTurn(sequence.correlation_id, part.start or not part.correlation_id, part.end)

    def done(self, batch: Batch, now_ns: int) -> None:
        """A batch is done, or failed: the next request of each of its sequences may run."""
        self._seen_ns = now_ns
        for request in batch.requests:
            sequence = self._table.running.pop(request, None)
            if sequence is None:
                continue  # a row that only filled the batch
            sequence.running = False
            if sequence.requests:
                self._offer(sequence, now_ns)
            elif sequence.closed or self._iterative:
                self._end(sequence)
            elif not sequence.lost:
                self._rest(sequence, now_ns)
        self._place_backlog(now_ns)

    # --- what ends early --------------------------------------------------------------------------------------------

    def cancel(self, request: InferRequest) -> bool:
        """Cancel the sequence of a request that waits or runs; True when this one was taken out of the queue.

        Everything else of the sequence that waits is given by ``expired``.
        """
        table = self._table
        sequence = table.waiting.get(request)
        if sequence is not None:
            self._drop(sequence, _cancelled(), spared=request)
            return True
        sequence = table.running.get(request)
        if sequence is not None:
            self._drop(sequence, _cancelled())
        return False

    def abandon(self, correlation_id: CorrelationId) -> None:
        """The client of a sequence is gone: what waits of it is cancelled, and its slot is freed."""
        sequence = self._table.find(correlation_id)
        if sequence is not None:
            self._drop(sequence, _cancelled())

    def instance_lost(self, instance: int, now_ns: int) -> None:
        """An instance is gone, and with it what it kept for its sequences; to be called after ``done`` of its batch.

        Sequences that had begun there are lost: what waits of them is refused, and later requests too until a new
        START. Those that had not begun go back to the front of the backlog. The instance is back when it takes a batch.
        """
        self._seen_ns = now_ns
        if instance not in self._batchers or instance in self._pool.lost:
            return
        back: dict[LiveSequence, None] = {}
        for sequence in self._pool.lose(instance):
            self._withdraw(sequence)
            self._pool.leave(sequence)
            if sequence.begun:
                self._lose(sequence, now_ns)
            follower: LiveSequence | None = sequence if sequence.requests else None
            while follower is not None:  # one that it blocks must not keep it from getting a slot
                if follower.requests:
                    self._pool.leave(follower)
                    back[follower] = None
                follower = follower.successor
        for sequence in sorted(back, key=_arrived_ns, reverse=True):
            self._pool.put_back(sequence)
        self._place_backlog(now_ns)

    def _lose(self, sequence: LiveSequence, now_ns: int) -> None:
        """Refuse what waits of a sequence whose state is gone, up to the next START."""
        error = UnavailableError(
            f"sequence {sequence.correlation_id} of model '{self._model}' was lost with the model instance that had "
            "it; begin it again with the START flag"
        )
        sequence.begun = False
        requests = sequence.requests
        while requests and (sequence.again or not _starts(requests[0])):
            sequence.again = False
            request = requests.popleft()
            del self._table.waiting[request]
            self._refuse(request, error)
        if requests:
            return
        if sequence.closed or self._iterative:
            self._end(sequence)
        else:
            sequence.lost = True
            self._rest(sequence, now_ns)

    def expired(self, now_ns: int) -> list[InferRequest]:
        """Free the slots of idle sequences; take out what is not to run any more."""
        self._seen_ns = now_ns
        self._end_idle(now_ns)
        for request in self._pool.overdue(now_ns):
            self._drop(self._table.waiting[request], QueueTimeoutError(BACKLOG_TIMEOUT_TEXT))
        self._place_backlog(now_ns)
        gone, self._gone = self._gone, []
        return gone

    def refusal(self, request: InferRequest) -> ShoalError:
        """Why a request that ``expired`` gave was taken out."""
        return self._refusals.pop(request)

    def drain(self) -> list[InferRequest]:
        """Take everything out, for a shutdown or an unload; all sequences are over."""
        for sequence in self._table.everything():
            self._drop(sequence, _cancelled())
        gone, self._gone = self._gone, []
        self._refusals.clear()
        return gone

    def wake_ns(self, now_ns: int) -> int | None:
        """When a sequence is idle for too long, has waited too long in the backlog, or a batch is due for its delay."""
        if self._gone:
            return now_ns
        # A batch that is due already waits for its instance, which is not free then.
        times = [each.due_ns for each in self._batchers.values() if each.due_ns is not None and each.due_ns > now_ns]
        for sequence in self._table.idle:
            times.append(max(sequence.idle_ns + self._max_idle_ns, now_ns))
            break
        deadline_ns = self._pool.next_deadline_ns()
        if deadline_ns is not None:
            times.append(max(deadline_ns, now_ns))
        return min(times, default=None)

    def statistics(self) -> QueueStatistics:
        """The state of the queue; the rows of sequences are single ones."""
        count = len(self._table.waiting) + len(self._gone)
        return QueueStatistics(count, count, self._table.oldest_ns)

    @property
    def live(self) -> int:
        """How many sequences take requests."""
        return len(self._table)

    # --- a sequence's steps -----------------------------------------------------------------------------------------

    def _offer(self, sequence: LiveSequence, now_ns: int) -> None:
        """Offer the sequence's next request to its instance, unless something must come before it."""
        if sequence.running or sequence.blocked or sequence.offered or not sequence.requests or sequence.slot is None:
            return
        sequence.offered = True
        self._batchers[sequence.slot.instance].offer(sequence, now_ns)

    def _withdraw(self, sequence: LiveSequence) -> None:
        if sequence.offered:
            assert sequence.slot is not None
            sequence.offered = False
            self._batchers[sequence.slot.instance].withdraw(sequence)

    def _rest(self, sequence: LiveSequence, now_ns: int) -> None:
        """Nothing of the sequence waits or runs: from now on it is idle."""
        sequence.idle_ns = now_ns
        self._table.idle[sequence] = None

    def _drop(self, sequence: LiveSequence, error: ShoalError, spared: InferRequest | None = None) -> None:
        """End the sequence now: what waits of it is refused, but for a request that the caller takes care of."""
        sequence.dropped = True
        self._withdraw(sequence)
        self._pool.leave(sequence)
        for request in sequence.requests:
            del self._table.waiting[request]
            if request is not spared:
                self._refuse(request, error)
        sequence.requests.clear()
        self._end(sequence)
        self._place_backlog(self._seen_ns)

    def _refuse(self, request: InferRequest, error: ShoalError) -> None:
        self._gone.append(request)
        self._refusals[request] = error

    def _end(self, sequence: LiveSequence) -> None:
        """Let go of a sequence of which nothing waits, and of those behind it that had to wait for it and are over."""
        ending: LiveSequence | None = sequence
        while ending is not None:
            self._table.close(ending)
            self._table.idle.pop(ending, None)
            self._pool.leave(ending)
            if ending.running or ending.blocked:
                return
            successor = self._table.finish(ending)
            if successor is None:
                self.on_finished(ending.correlation_id)
            elif successor.requests:
                self._offer(successor, self._seen_ns)
                return
            ending = successor

    def _end_idle(self, now_ns: int) -> None:
        """End the sequences that were idle for too long."""
        idle = self._table.idle
        while idle:
            sequence = next(iter(idle))
            if sequence.idle_ns + self._max_idle_ns > now_ns:
                return
            self._end(sequence)
            self._place_backlog(now_ns)

    def _place_backlog(self, now_ns: int) -> None:
        """Give free slots to the sequences that wait for one."""
        while (sequence := self._pool.next_placed()) is not None:
            self._offer(sequence, now_ns)


def _nothing(correlation_id: CorrelationId) -> None:
    """What is done about a finished sequence when nobody keeps anything for it."""


def _cancelled() -> CancelledError:
    return CancelledError("the sequence of this request was cancelled")


def _starts(request: InferRequest) -> bool:
    part = request.plan.sequence
    return part is not None and (part.start or not part.correlation_id)


def _arrived_ns(sequence: LiveSequence) -> int:
    return sequence.requests[0].queued_ns
