"""The life of a sequence in the scheduler: slots, backlog, timeouts, cancellation, lost instances."""

from __future__ import annotations

import pytest
from sequence_requests import IDLE_US, ids, request, scheduler

from shoal.config.spec import DirectSpec, OldestSpec
from shoal.errors import CancelledError, InvalidArgumentError, QueueTimeoutError, UnavailableError
from shoal.requests import RequestState

IDLE_NS = IDLE_US * 1_000
MUST_START = (
    "inference request for sequence {} to model 'm' must specify the START flag on the first request of the sequence"
)
STRATEGIES = pytest.mark.parametrize("strategy", [DirectSpec(), OldestSpec()], ids=["direct", "oldest"])


def queue(scheduler, *requests, now_ns=0):
    for each in requests:
        scheduler.enqueue(each, now_ns)
    return requests


def run(scheduler, now_ns=0, instance=0):
    """Run the next batch from beginning to end; gives the sequences of its rows."""
    batch = scheduler.take(now_ns, instance)
    if batch is not None:
        scheduler.done(batch, now_ns)
    return ids(batch)


def refusals(scheduler, now_ns=0):
    """What ``expired`` takes out, each with the type and text of its refusal."""
    found = {}
    for each in scheduler.expired(now_ns):
        error = scheduler.refusal(each)
        found[each] = (type(error), error.message)
    return found


@STRATEGIES
def test_rule_45_a_sequence_begins_with_start(strategy):
    sequences = scheduler(strategy)
    for each in (5, "five"):
        refused = request(each)
        with pytest.raises(InvalidArgumentError) as caught:
            sequences.enqueue(refused, 0)
        assert caught.value.message == MUST_START.format(each)
        assert refused.state is RequestState.NEW


@STRATEGIES
def test_rule_45_end_is_run_and_frees_the_slot(strategy):
    sequences = scheduler(strategy, max_batch_size=1)
    queue(sequences, request(1, "s"), request(1, "e"), request(2, "se"))
    assert [run(sequences) for _ in range(3)] == [[1], [1], [2]]
    with pytest.raises(InvalidArgumentError):
        sequences.enqueue(request(1), 0)


@STRATEGIES
def test_rule_45_start_of_a_live_sequence_restarts_it_where_it_is(strategy):
    sequences = scheduler(strategy, max_batch_size=1)
    queue(sequences, request(1, "s"), request(2, "se"), request(1), request(1, "s"), request(1, "e"))
    turns = []
    for _ in range(5):
        batch = sequences.take(0)
        turns += [(turn.correlation_id, turn.start, turn.end) for turn in batch.turns]
        sequences.done(batch, 0)
    assert turns == [(1, True, False), (1, False, False), (1, True, False), (1, False, True), (2, True, True)]


def test_rule_44_numbers_and_strings_that_look_alike_are_different_sequences():
    sequences = scheduler()
    queue(sequences, request(1, "s"), request("1", "s"))
    assert run(sequences) == [1, "1"]
    assert sequences.live == 2


def test_direct_keeps_every_sequence_in_its_row():
    sequences = scheduler()
    queue(sequences, *(request(number, "s") for number in (1, 2, 3)))
    assert run(sequences) == [1, 2, 3]
    queue(sequences, request(3), request(1))
    assert run(sequences) == [1, 0, 3]
    queue(sequences, request(2, "e"))
    assert run(sequences) == [0, 2]
    queue(sequences, request(4, "s"), request(3))
    assert run(sequences) == [0, 4, 3]


def test_rows_that_fill_a_batch_have_zeros_in_the_shape_of_the_others():
    sequences = scheduler()
    queue(sequences, request(1, "s"), request(2, "s"))
    run(sequences)
    (real,) = queue(sequences, request(2, width=3))
    batch = sequences.take(7)
    null = batch.requests[0]
    assert [planned.shape for planned in null.plan.inputs] == [planned.shape for planned in real.plan.inputs]
    assert [planned.data for planned in null.plan.inputs] == [None, None]
    assert list(null.payload) == [bytes(12), bytes(8)], "FP32 zeros, and two empty strings"
    assert null.plan.payload_nbytes == (12, 8)
    assert (null.queued_ns, null.state, null.plan.rows) == (7, RequestState.RUNNING, 1)


def test_direct_lets_requests_of_different_shapes_run_by_turns():
    """Triton runs those that match the lowest slot, which can keep the others waiting for ever."""
    sequences = scheduler(max_batch_size=2)
    queue(sequences, request(1, "s"))
    queue(sequences, request(2, "s", width=2), now_ns=1)
    seen = []
    for now_ns in range(2, 8):
        batch = sequences.take(now_ns)
        sequences.done(batch, now_ns)
        seen.append(ids(batch))
        for turn in batch.turns:
            if turn.ready:
                queue(sequences, request(turn.correlation_id, width=turn.correlation_id), now_ns=now_ns)
    assert seen == [[1, 0], [0, 2]] * 3


@pytest.mark.parametrize(("sequence_count", "expected"), [(1, []), (2, [1, 2])])
def test_direct_waits_for_slots_only_as_long_as_the_delay(sequence_count, expected):
    sequences = scheduler(DirectSpec(max_queue_delay_us=100, minimum_slot_utilization=0.5))
    queue(sequences, *(request(number, "s") for number in range(1, sequence_count + 1)), now_ns=1_000)
    assert run(sequences, 50_000) == expected
    if not expected:
        assert sequences.wake_ns(50_000) == 101_000
        assert run(sequences, 101_000) == [1]


@pytest.mark.parametrize("strategy", [DirectSpec(100, 0.0), DirectSpec(0, 1.0)])
def test_direct_does_not_wait_without_both_a_delay_and_a_utilization(strategy):
    sequences = scheduler(strategy)
    queue(sequences, request(1, "s"))
    assert run(sequences) == [1]


def test_oldest_runs_one_request_of_each_sequence_oldest_first():
    sequences = scheduler(OldestSpec())
    queue(sequences, request(2, "s"), request(2), request(1, "s"), request(2, "e"), request(1, "e"))
    assert [run(sequences) for _ in range(3)] == [[2, 1], [2, 1], [2]]


def test_oldest_waits_for_a_preferred_size():
    sequences = scheduler(OldestSpec(preferred_batch_sizes=(2,), max_queue_delay_us=100))
    queue(sequences, request(1, "s"), now_ns=1_000)
    assert run(sequences, 2_000) == []
    assert sequences.wake_ns(2_000) == 101_000
    queue(sequences, request(2, "s"), now_ns=3_000)
    assert run(sequences, 3_000) == [1, 2]


def test_oldest_keeps_the_time_of_arrival_for_the_statistics():
    sequences = scheduler(OldestSpec())
    first, second = queue(sequences, request(1, "s"), request(1), now_ns=5)
    batch = sequences.take(10)
    sequences.done(batch, 20)
    assert sequences.statistics().oldest_ns == 5
    assert sequences.take(30).requests == [second]
    assert (first.queued_ns, second.queued_ns) == (5, 5)


def test_oldest_has_room_for_the_candidates_that_are_configured():
    sequences = scheduler(OldestSpec(max_candidate_sequences=2), max_batch_size=4)
    queue(sequences, *(request(number, "s") for number in (1, 2, 3)))
    assert run(sequences) == [1, 2]
    assert run(sequences) == []
    queue(sequences, request(1, "e"))
    assert run(sequences) == [1]
    assert run(sequences) == [3]


def test_passive_instances_get_no_sequences():
    sequences = scheduler(max_batch_size=1, instances=2, passive=1)
    queue(sequences, request(1, "s"), request(2, "s"))
    assert run(sequences, instance=1) == [1]
    assert run(sequences, instance=1) == []


def test_sequences_spread_over_the_instances_and_stay_there():
    sequences = scheduler(instances=2)
    queue(sequences, *(request(number, "s") for number in (1, 2, 3)))
    placed = {instance: run(sequences, instance=instance) for instance in (0, 1)}
    assert placed == {0: [1, 3], 1: [2]}
    queue(sequences, *(request(number) for number in (3, 2, 1)))
    assert {instance: run(sequences, instance=instance) for instance in (0, 1)} == placed


@STRATEGIES
def test_an_idle_sequence_frees_its_slot(strategy):
    sequences = scheduler(strategy, max_batch_size=1)
    queue(sequences, request(1, "s"), request(2, "se"))
    assert run(sequences, 100) == [1]
    assert sequences.wake_ns(100) == 100 + IDLE_NS
    assert refusals(sequences, 99 + IDLE_NS) == {}
    assert run(sequences, 99 + IDLE_NS) == []
    assert refusals(sequences, 100 + IDLE_NS) == {}
    assert run(sequences, 100 + IDLE_NS) == [2]
    with pytest.raises(InvalidArgumentError, match="START"):
        sequences.enqueue(request(1), 100 + IDLE_NS)


@STRATEGIES
def test_a_sequence_is_not_idle_while_something_of_it_waits_or_runs(strategy):
    """In Triton the time counts from the last arrival, so a slow model loses its sequences."""
    sequences = scheduler(strategy, max_batch_size=1)
    queue(sequences, request(1, "s"))
    batch = sequences.take(0)
    assert refusals(sequences, 9 * IDLE_NS) == {}
    queue(sequences, request(1), now_ns=9 * IDLE_NS)
    sequences.done(batch, 9 * IDLE_NS)
    assert run(sequences, 20 * IDLE_NS) == [1]


def test_a_late_look_at_the_clock_revives_no_idle_sequence():
    sequences = scheduler()
    queue(sequences, request(1, "s"))
    run(sequences)
    with pytest.raises(InvalidArgumentError, match="START"):
        sequences.enqueue(request(1), IDLE_NS)


@STRATEGIES
def test_rule_41_a_timeout_counts_in_the_backlog_only(strategy):
    sequences = scheduler(strategy, max_batch_size=1)
    (placed,) = queue(sequences, request(1, "s", timeout_us=1))
    waiting = queue(sequences, request(2, "s"), request(2, timeout_us=50))
    behind = request(3, "se", timeout_us=500)
    queue(sequences, behind)
    assert sequences.wake_ns(0) == 50_000
    assert refusals(sequences, 49_999) == {}
    text = "timeout of the corresponding sequence has been expired"
    assert refusals(sequences, 50_000) == dict.fromkeys(waiting, (QueueTimeoutError, text))
    with pytest.raises(InvalidArgumentError, match="START"):
        sequences.enqueue(request(2), 50_000)
    batch = sequences.take(60_000)
    assert batch.requests == [placed]
    sequences.abandon(1)
    sequences.done(batch, 60_000)
    assert refusals(sequences, 10**9) == {}, "it has a slot by now"
    assert sequences.take(10**9).requests == [behind]


@STRATEGIES
def test_cancelling_one_request_cancels_all_that_wait_of_its_sequence(strategy):
    sequences = scheduler(strategy, max_batch_size=1)
    first, second, third = queue(sequences, request(1, "s"), request(1), request(1))
    (other,) = queue(sequences, request(2, "se"))
    assert sequences.cancel(second)
    assert not sequences.cancel(second)
    assert sequences.wake_ns(0) == 0
    assert [each[0] for each in refusals(sequences).values()] == [CancelledError, CancelledError]
    assert not sequences.cancel(first)
    assert not sequences.cancel(third)
    assert sequences.take(0).requests == [other]


@STRATEGIES
def test_cancelling_a_running_request_ends_its_sequence(strategy):
    sequences = scheduler(strategy, max_batch_size=1)
    running, waiting = queue(sequences, request(1, "s"), request(1))
    batch = sequences.take(0)
    assert not sequences.cancel(running)
    assert list(refusals(sequences)) == [waiting]
    queue(sequences, request(1, "s"))
    assert sequences.take(0) is None, "the new one waits for the end of what runs"
    sequences.done(batch, 0)
    assert run(sequences) == [1]


def test_abandoned_sequences_free_their_slots():
    sequences = scheduler(max_batch_size=1)
    queue(sequences, request(1, "s"), request(2, "s"))
    run(sequences)
    sequences.abandon(1)
    assert run(sequences) == [2]
    sequences.abandon("unknown")


def test_a_new_sequence_waits_for_the_end_of_the_one_before_it_with_the_same_id():
    sequences = scheduler(max_batch_size=1, instances=2)
    queue(sequences, request(1, "s"), request(1, "e"), request(1, "s"))
    assert run(sequences, instance=0) == [1]
    assert run(sequences, instance=1) == []
    finished = []
    sequences.on_finished = finished.append
    batch = sequences.take(0, 0)
    assert batch.turns[0].end
    assert run(sequences, instance=1) == []
    sequences.done(batch, 0)
    assert finished == [], "what is kept for the id is taken over"
    assert run(sequences, instance=1) == [1]
    queue(sequences, request(1, "e"))
    assert run(sequences, instance=1) == [1]
    assert finished == [1]


def test_a_lost_instance_loses_what_had_begun_there():
    sequences = scheduler(max_batch_size=1, instances=2)
    queue(sequences, request(1, "s"), request(2, "s"))
    run(sequences, instance=0)
    (waiting,) = queue(sequences, request(1))
    sequences.instance_lost(0, 0)
    kind, text = refusals(sequences)[waiting]
    assert kind is UnavailableError
    assert (
        text
        == "sequence 1 of model 'm' was lost with the model instance that had it; begin it again with the START flag"
    )
    with pytest.raises(InvalidArgumentError) as caught:
        sequences.enqueue(request(1), 0)
    assert caught.value.message == MUST_START.format(1) + "; it was lost with the model instance that had it"
    assert run(sequences, instance=1) == [2], "the other instance goes on"
    queue(sequences, request(1, "s"))
    assert run(sequences, instance=0) == [1], "and the lost one is back when it asks for a batch"


def test_a_lost_instance_gives_back_what_had_not_begun():
    sequences = scheduler(max_batch_size=1, instances=2)
    queue(sequences, request(1, "s"), request(2, "s"), request(2, "e"), request(3, "s"))
    sequences.instance_lost(1, 0)
    assert refusals(sequences) == {}
    queue(sequences, request(1, "e"))
    assert [run(sequences, instance=0) for _ in range(4)] == [[1], [1], [2], [2]], "before the one that was behind it"
    assert run(sequences, instance=1) == []
    assert run(sequences, instance=0) == [3]


def test_a_restart_in_the_queue_survives_a_lost_instance():
    sequences = scheduler(max_batch_size=1)
    queue(sequences, request(1, "s"))
    run(sequences)
    (lost, _) = queue(sequences, request(1), request(1, "se"))
    sequences.instance_lost(0, 0)
    assert list(refusals(sequences)) == [lost]
    assert run(sequences) == [1]


def test_sequences_that_nobody_begins_again_are_forgotten():
    sequences = scheduler()
    finished = []
    sequences.on_finished = finished.append
    queue(sequences, request(1, "s"))
    run(sequences)
    sequences.instance_lost(0, 5)
    assert sequences.live == 1
    assert refusals(sequences, 5 + IDLE_NS) == {}
    assert sequences.live == 0
    assert finished == [1]
    with pytest.raises(InvalidArgumentError) as caught:
        sequences.enqueue(request(1), 5 + IDLE_NS)
    assert caught.value.message == MUST_START.format(1)


@STRATEGIES
def test_iterative_requests_run_until_they_are_released(strategy):
    sequences = scheduler(strategy, iterative=True)
    finished = []
    sequences.on_finished = finished.append
    first, second = queue(sequences, request(0, "s"), request(0, "s"))
    batch = sequences.take(0)
    assert [(turn.correlation_id, turn.start) for turn in batch.turns] == [(1, True), (2, True)]
    sequences.reschedule(first, 10)
    sequences.done(batch, 10)
    assert finished == [2]
    (third,) = queue(sequences, request(0, "s"), now_ns=11)
    batch = sequences.take(12)
    assert batch.requests == [first, third], "a new one joins those that run"
    assert [(turn.correlation_id, turn.start, turn.end) for turn in batch.turns] == [
        (1, False, False),
        (3, True, False),
    ]
    sequences.done(batch, 12)
    assert finished == [2, 1, 3]
    assert second.state is RequestState.RUNNING, "whoever answers it says that it is done"


def test_iterative_ids_of_the_server_are_nobody_elses():
    sequences = scheduler(iterative=True)
    queue(sequences, request(0, "s"))
    with pytest.raises(InvalidArgumentError):
        sequences.enqueue(request(1), 0)
    queue(sequences, request(1, "s"), request(0, "s"))
    assert run(sequences) == [1, 0, 2], "the client's sequence 1 waits for the server's"
    assert run(sequences) == [0, 1]


def test_iterative_requests_with_an_id_end_their_sequence_when_they_are_released():
    sequences = scheduler(iterative=True)
    queue(sequences, request(7, "s"))
    assert run(sequences) == [7]
    with pytest.raises(InvalidArgumentError):
        sequences.enqueue(request(7), 0)


@pytest.mark.parametrize("how", ["cancel", "abandon"])
def test_a_cancelled_iterative_request_does_not_run_again(how):
    sequences = scheduler(max_batch_size=1, iterative=True)
    (first,) = queue(sequences, request(7, "s"))
    batch = sequences.take(0)
    if how == "cancel":
        assert not sequences.cancel(first)
    else:
        sequences.abandon(7)
    sequences.reschedule(first, 0)
    sequences.done(batch, 0)
    assert [each[0] for each in refusals(sequences).values()] == [CancelledError]
    assert run(sequences) == []
    queue(sequences, request(0, "s"))
    assert len(run(sequences)) == 1, "its slot is free"


@STRATEGIES
def test_nothing_wakes_the_server_for_an_instance_that_is_busy(strategy):
    """A batch that could run at once must not make it look again and again."""
    sequences = scheduler(strategy, instances=2, max_batch_size=1)
    queue(sequences, request(1, "s"))
    sequences.take(0, 0)
    queue(sequences, request(1), request(2, "s"))
    assert sequences.wake_ns(1) is None
    assert run(sequences, 1, instance=1) == [2]
    assert sequences.wake_ns(1) == 1 + IDLE_NS


def test_drain_takes_everything_out_and_frees_every_slot():
    sequences = scheduler(max_batch_size=1)
    running, waiting, behind = queue(sequences, request(1, "s"), request(1), request(2, "s"))
    batch = sequences.take(0)
    assert batch.requests == [running]
    assert set(sequences.drain()) == {waiting, behind}
    sequences.done(batch, 0)
    assert sequences.live == 0
    queue(sequences, request(1, "s"))
    assert run(sequences) == [1]
