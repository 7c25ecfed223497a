"""Queue policies against the real Triton: the same arrivals are refused, run and answered alike (rules 36-42)."""

from __future__ import annotations

import pytest
from policy_answers import Outcome, places, recorded_outcomes
from policy_cases import CASES, PolicyCase, execution_ms, spec_of
from test_batch_formation import make_request

from shoal.errors import QueueFullError
from shoal.scheduling.make import make_scheduler

RECORDED = recorded_outcomes()
MS = 1_000_000

# Here a batch is formed when an instance is free. Triton forms the next one while the instance is busy, and one that is
# too small for a preferred size grows past it.
FORMED_LATER: dict[str, list[Outcome]] = {
    "no delay, two rows at a time": [[0, 1], [1, 2], [1, 2], [2, 1], [3, 1]],
}


def simulate(case: PolicyCase) -> list[Outcome]:
    """Play the case to our scheduler, with instances that take their time and wake when they are told."""
    spec = spec_of(case)
    scheduler = make_scheduler(spec)
    outcomes: list[Outcome] = [""] * len(case.arrivals)
    arrivals = [(each.at_ms * MS, make_request(spec, each, place)) for place, each in enumerate(case.arrivals)]
    now_ns = batches = last_ns = 0
    free_ns = [0] * case.instances
    answered_ns = [0] * len(case.arrivals)
    while True:
        while arrivals and arrivals[0][0] <= now_ns:
            _, request = arrivals.pop(0)
            try:
                scheduler.enqueue(request, now_ns)
            except QueueFullError as error:
                outcomes[request.context] = error.message
        for request in scheduler.expired(now_ns):
            outcomes[request.context] = scheduler.refusal(request).message
        free = [instance for instance, at_ns in enumerate(free_ns) if at_ns <= now_ns]
        batch = scheduler.take(now_ns, free[0]) if free else None
        if batch is not None:
            ended_ns = free_ns[free[0]] = now_ns + execution_ms(case, batch.rows) * MS
            last_ns = ended_ns = max(ended_ns, last_ns) if case.batching.preserve_ordering else ended_ns
            for request in batch.requests:
                outcomes[request.context] = [batches, len(batch.requests)]
                answered_ns[request.context] = ended_ns
            batches += 1
        wake_ns = scheduler.wake_ns(now_ns)
        moments = [at_ns for at_ns, _ in arrivals[:1]]
        if wake_ns is not None:
            moments.append(max(wake_ns, min(free_ns)))
        if not moments:
            break
        now_ns = max(now_ns, min(moments))
    if case.instances == 1:
        return outcomes
    return places([at_ns / 1e9 for at_ns in answered_ns])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_policies_are_tritons(case):
    assert simulate(case) == FORMED_LATER.get(case.name, RECORDED[case.name])


def test_known_differences_are_differences():
    assert all(RECORDED[name] != ours for name, ours in FORMED_LATER.items())


def test_every_case_is_recorded_once():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert set(names) == set(RECORDED)
