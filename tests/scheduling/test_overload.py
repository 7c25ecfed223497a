"""What waits in all models together: counted exactly, limited, and with an honest word on when to come back."""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from shoal.requests import LATEST, NOBODY, InferHead, InferRequest, PlannedInput, RequestPlan
from shoal.scheduling.contract import Batch, CloseReason, QueueStatistics, SequenceTurn
from shoal.scheduling.overload import LONGEST_RETRY_S, ModelQueue, Pace, ServerQueue

S = 1_000_000_000


def request(nbytes: int = 8, responder: object = None, name: str = "") -> InferRequest:
    plan = RequestPlan(InferHead("m", LATEST, name, ()), None, 1, (), (), (), (nbytes,))  # type: ignore[arg-type]
    return InferRequest(plan, (), responder, None, 0)  # type: ignore[arg-type]


def batch(*requests: InferRequest, sequence: bool = False) -> Batch:
    turns = [SequenceTurn(1, start=False, end=False)] * len(requests) if sequence else None
    return Batch(list(requests), len(requests), CloseReason.FULL, turns)


def test_a_plan_knows_the_bytes_of_its_tensors_wherever_they_came_from():
    inputs = (PlannedInput(0, (2,), 0), PlannedInput(1, (3,), -1, b"abc"))
    plan = RequestPlan(InferHead("m", LATEST, "", ()), None, 1, inputs, (), (), (8,))  # type: ignore[arg-type]
    assert plan.nbytes == 11


def test_requests_are_limited_by_number():
    queue = ServerQueue(most_requests=2)
    for _ in range(2):
        assert queue.has_room(10**12)
        ModelQueue(queue).enter(request())
    assert not queue.has_room(0)
    assert queue.refusal(request(name="a")).message == (
        "[request id: a] Exceeds the server's limit of 2 waiting requests (--max-queued-requests)"
    )


def test_requests_are_limited_by_bytes():
    queue = ServerQueue(most_nbytes=100)
    ModelQueue(queue).enter(request(60))
    assert queue.has_room(40)
    assert not queue.has_room(41)
    assert queue.refusal(request(41)).message == (
        "[request id: <id_unknown>] Exceeds the server's limit of 100 waiting bytes (--max-queued-nbytes)"
    )


def test_where_nothing_waits_a_request_of_any_size_may():
    assert ServerQueue(most_nbytes=100).has_room(101)


def test_0_is_no_limit():
    queue = ServerQueue()
    ModelQueue(queue).enter(request(sys.maxsize // 2))
    assert queue.has_room(10**9)


def test_what_only_fills_a_batch_of_a_sequence_model_never_waited():
    queue = ModelQueue(ServerQueue())
    real, filler = request(), request(responder=NOBODY)
    queue.enter(real)
    queue.run(batch(real, filler, sequence=True))
    assert (queue.requests, queue.server.requests, queue.server.nbytes) == (0, 0, 0)


@given(st.lists(st.tuples(st.sampled_from(["enter", "leave", "run"]), st.integers(0, 50)), max_size=60))
def test_the_counts_are_those_of_what_waits(steps):
    queue, waiting = ModelQueue(ServerQueue()), []
    for what, number in steps:
        if what == "enter":
            waiting.append(request(number))
            queue.enter(waiting[-1])
        elif what == "leave" and waiting:
            queue.leave(waiting.pop(number % len(waiting)))
        elif what == "run":
            taken, waiting = waiting[:number], waiting[number:]
            queue.run(batch(*taken))
        assert queue.requests == queue.server.requests == len(waiting)
        assert queue.server.nbytes == sum(one.plan.nbytes for one in waiting)


class Waiting:
    """A queue with so many requests in it."""

    def __init__(self, requests):
        self.requests = requests

    def statistics(self):
        return QueueStatistics(self.requests, self.requests, None)


def test_come_back_when_those_who_wait_are_through():
    pace = Pace()
    assert pace.retry_after_s(Waiting(100), 50 * S) == 1, "nothing is known yet"
    pace.started += 40
    assert pace.retry_after_s(Waiting(100), 50 * S + S // 2) == 1, "half a second tells too little"
    assert pace.retry_after_s(Waiting(110), 52 * S) == 6, "110 requests at 20 a second"
    assert pace.retry_after_s(Waiting(5), 52 * S + S // 2) == 1, "less than a second is one"
    pace.started += 1
    assert pace.retry_after_s(Waiting(10_000), 54 * S) == LONGEST_RETRY_S


def test_a_flood_of_refusals_gets_one_estimate():
    pace, queue = Pace(), Waiting(100)
    pace.retry_after_s(queue, 50 * S)
    pace.started += 40
    assert pace.retry_after_s(queue, 52 * S) == 5
    queue.requests = 200
    assert pace.retry_after_s(queue, 52 * S + S // 20) == 5
    assert pace.retry_after_s(queue, 52 * S + S // 10) == 10


def test_a_pace_of_long_ago_is_no_pace():
    pace = Pace()
    pace.retry_after_s(Waiting(1), 50 * S)
    pace.started += 10
    assert pace.retry_after_s(Waiting(100), 52 * S) > 1
    assert pace.retry_after_s(Waiting(100), 3600 * S) == 1


def test_a_slow_model_is_watched_until_it_has_started_something():
    pace = Pace()
    pace.retry_after_s(Waiting(1), 50 * S)
    assert pace.retry_after_s(Waiting(4), 53 * S) == 1
    pace.started += 1
    assert pace.retry_after_s(Waiting(4), 54 * S) == 16, "one in four seconds"
