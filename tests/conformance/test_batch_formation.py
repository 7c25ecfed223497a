"""The schedulers against the real Triton: the same arrivals at a slow instance make the same batches (rules 36-42)."""

from __future__ import annotations

import pytest
from batch_answers import Outcome, recorded_outcomes
from batch_cases import CASES, EXECUTION_MS, Arrival, BatchCase, spec_of

from shoal.config.spec import ModelSpec
from shoal.errors import QueueFullError
from shoal.requests import LATEST, InferHead, InferRequest, InputHead
from shoal.scheduling.admission import plan_request
from shoal.scheduling.make import make_scheduler

RECORDED = recorded_outcomes()
MS = 1_000_000
TIMED_OUT = "Request timeout expired"

# A batch is formed when an instance is free, from all that waits then. Triton forms the next one while the instance is
# busy and lets it grow, past a preferred size or not, depending on what had arrived when it last looked.
FORMED_LATER = {
    "prefer 4, delay: ten behind a busy instance": [1, 8, 8, 8, 8, 8, 8, 8, 8, 2, 2],
    "prefer 4 or 8: ten behind a busy instance": [1, 8, 8, 8, 8, 8, 8, 8, 8, 2, 2],
    "prefer 4: three, three, two rows": [1, 1, 1],
}


class Nobody:
    """The sink and responder of requests whose outcome the simulation notes itself."""

    def submit(self, request):
        raise AssertionError

    def cancel(self, request):
        raise AssertionError

    def completed(self, request, response):
        raise AssertionError

    def failed(self, request, error):
        raise AssertionError


def make_request(spec: ModelSpec, arrival: Arrival, place: int) -> InferRequest:
    shape = (arrival.rows, arrival.width)
    inputs = (InputHead("A", spec.inputs[0].datatype, shape, 4 * arrival.rows * arrival.width),)
    parameters = {"priority": arrival.priority, "timeout": arrival.timeout_us}
    head = InferHead(spec.name, LATEST, f"r{place}", inputs, (), parameters)
    return InferRequest(plan_request(head, spec, Nobody()), (), Nobody(), place, 0)


def simulate(case: BatchCase) -> list[Outcome]:
    """Play the case to our scheduler, with an instance that takes its time and wakes when it is told."""
    spec = spec_of(case)
    scheduler = make_scheduler(spec)
    outcomes: list[Outcome] = [""] * len(case.arrivals)
    arrivals = [(each.at_ms * MS, make_request(spec, each, place)) for place, each in enumerate(case.arrivals)]
    now_ns = free_ns = 0
    while True:
        while arrivals and arrivals[0][0] <= now_ns:
            _, request = arrivals.pop(0)
            try:
                scheduler.enqueue(request, now_ns)
            except QueueFullError as error:
                outcomes[request.context] = error.message
        for request in scheduler.expired(now_ns):
            outcomes[request.context] = TIMED_OUT
        batch = scheduler.take(now_ns) if free_ns <= now_ns else None
        if batch is not None:
            free_ns = now_ns + EXECUTION_MS * MS
            for request in batch.requests:
                outcomes[request.context] = len(batch.requests)
        wake_ns = scheduler.wake_ns(now_ns)
        moments = [at_ns for at_ns, _ in arrivals[:1]]
        if wake_ns is not None:
            moments.append(max(wake_ns, free_ns))
        if not moments:
            return outcomes
        now_ns = max(now_ns, min(moments))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_batches_are_tritons(case):
    assert simulate(case) == FORMED_LATER.get(case.name, RECORDED[case.name])


def test_known_differences_are_differences():
    assert all(RECORDED[name] != ours for name, ours in FORMED_LATER.items())


def test_every_case_is_recorded_once():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert set(names) == set(RECORDED)
