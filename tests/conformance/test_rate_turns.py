"""The rate limiter against the real Triton: who runs in which order, how many at once, and what is refused (1.7)."""

from __future__ import annotations

import pytest
import triton_peer
from rate_answers import Outcome, ask_triton, play, recorded_outcomes, write_repository
from rate_cases import CASES, HOLD, Contender, RateCase, spec_of

from shoal.errors import InvalidArgumentError
from shoal.options.kinds import RESOURCE_LIMIT
from shoal.scheduling.rate_limiter import RateLimiter, Slot
from tests.serving import ShoalProcess

RECORDED = recorded_outcomes()
BY_NAME = {case.name: case for case in CASES}
SERVED = ("priorities 1 and 3", "one that needs all next to one that needs half", "three instances, two units")
"""Cases that Shoal is asked over HTTP, too."""


def simulate(case: RateCase) -> Outcome:
    """What the limiter does when all executions take the same time."""
    try:
        limiter = RateLimiter([RESOURCE_LIMIT.parse(limit) for limit in case.limits])
        slots = {each.name: limiter.add(spec_of(each).instances) for each in case.all}
    except InvalidArgumentError as error:
        return {"error": error.message}
    models = {slot: name for name, owned in slots.items() for slot in owned}
    waiting = {each.name: each.requests for each in case.contenders} | {HOLD: 0}
    holder = slots[HOLD][0]
    limiter.ask(holder)
    running: list[Slot] = limiter.grant()
    order: list[str] = []
    most = 0
    while running:
        ask_all(case.contenders, slots, limiter, waiting)
        for slot in running:
            limiter.release(slot, executed=True)
        ask_all(case.contenders, slots, limiter, waiting)
        running = take(limiter, models, waiting)
        order += [models[slot] for slot in running]
        most = max(most, len(running))
    return {"at_once": most, "order": order if case.ordered else sorted(order)}


def ask_all(contenders, slots, limiter, waiting):
    for each in contenders:
        if waiting[each.name]:
            for slot in slots[each.name]:
                limiter.ask(slot)


def take(limiter, models, waiting):
    """Give out turns; an instance whose model has nothing left gives its turn back."""
    running = []
    while granted := limiter.grant():
        for slot in granted:
            if waiting[models[slot]]:
                waiting[models[slot]] -= 1
                running.append(slot)
            else:
                limiter.release(slot, executed=False)
    return running


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_turns_are_tritons(case):
    assert simulate(case) == RECORDED[case.name]


def test_every_case_is_recorded_once():
    assert [case.name for case in CASES] == list(RECORDED)


@pytest.mark.parametrize("name", SERVED)
def test_served_models_take_tritons_turns(tmp_path, name):
    case = BY_NAME[name]
    repository = write_repository(tmp_path, case)
    limits = [f"--rate-limit-resource={limit}" for limit in case.limits]
    with ShoalProcess(repository, "--rate-limit=execution_count", *limits) as server:
        assert play(f"http://{server.http}", tmp_path, case) == RECORDED[name]


def test_resources_mean_nothing_while_the_limiter_is_off(tmp_path):
    case = RateCase("", (Contender("a", 6, BY_NAME["three instances, two units"].contenders[0].needs, (1, 1, 1)),))
    repository = write_repository(tmp_path, case)
    with ShoalProcess(repository, "--rate-limit-resource=R:0") as server:
        assert play(f"http://{server.http}", tmp_path, case)["at_once"] == 3


def test_a_resource_that_does_not_suffice_fails_the_load(tmp_path):
    case = BY_NAME["too few units"]
    repository = write_repository(tmp_path, case)
    server = ShoalProcess(repository, "--rate-limit=execution_count", "--rate-limit-resource=R:2")
    assert server.wait() == 1
    server.__exit__()
    assert RECORDED[case.name]["error"] in server.log()


@pytest.mark.triton
@pytest.mark.skipif(not triton_peer.installed(), reason="the real Triton is not installed")
@pytest.mark.parametrize("name", SERVED)
def test_recorded_turns_are_still_tritons(name):
    assert ask_triton(BY_NAME[name]) == RECORDED[name]
