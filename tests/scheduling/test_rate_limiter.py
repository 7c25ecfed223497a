"""The rate limiter: resources are never exceeded or lost, nobody starves, and whoever can run does."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shoal.config.spec import InstanceKind, InstanceSpec, ResourceSpec
from shoal.errors import InvalidArgumentError
from shoal.scheduling.rate_limiter import GLOBAL, RateLimiter, Resource, ResourceLimit, Slot, SlotState

R = ResourceSpec("R", 1)


def instance(*needs: ResourceSpec, priority: int = 1, device: int = 0) -> InstanceSpec:
    return InstanceSpec("m_0", InstanceKind.GPU if device else InstanceKind.CPU, device, needs, priority)


def turns(limiter: RateLimiter, slots: dict[str, Slot], count: int) -> str:
    """Who runs when everybody always asks and one runs at a time."""
    order = ""
    for _ in range(count):
        for slot in slots.values():
            limiter.ask(slot)
        (granted,) = limiter.grant()
        order += next(name for name, slot in slots.items() if slot is granted)
        limiter.release(granted, executed=True)
    return order


def test_the_lowest_executions_times_priority_runs_next():
    limiter = RateLimiter()
    slots = dict(zip("ab", limiter.add([instance(R, priority=1), instance(R, priority=3)]), strict=True))
    assert turns(limiter, slots, 13) == "aaaabaaabaaab"  # as the real one, which counts from 2


def test_a_priority_of_2_runs_half_as_often():
    limiter = RateLimiter()
    slots = dict(zip("ab", limiter.add([instance(R, priority=1), instance(R, priority=2)]), strict=True))
    order = turns(limiter, slots, 3000)
    assert order.count("a") == pytest.approx(2 * order.count("b"), rel=0.01)


def test_whoever_needs_much_is_not_passed_by_those_who_need_little():
    limiter = RateLimiter([ResourceLimit("R", 2)])
    first, second, big = limiter.add([instance(R), instance(R), instance(ResourceSpec("R", 2))])
    limiter.ask(first)
    limiter.ask(second)
    assert limiter.grant() == [first, second]
    limiter.ask(big)
    limiter.release(first, executed=True)
    limiter.ask(first)
    assert limiter.grant() == []
    limiter.release(second, executed=True)
    limiter.ask(second)
    assert limiter.grant() == [big]


def test_whoever_waits_holds_up_nobody_who_needs_something_else():
    limiter = RateLimiter()
    holder, waiter, other, free = limiter.add([instance(R), instance(R), instance(ResourceSpec("S", 1)), instance()])
    limiter.ask(holder)
    limiter.grant()
    for slot in (waiter, other, free):
        limiter.ask(slot)
    assert limiter.grant() == [other, free]


def test_a_need_of_nothing_waits_for_nothing():
    limiter = RateLimiter()
    holder, waiter, none = limiter.add([instance(R), instance(R), instance(ResourceSpec("R", 0))])
    for slot in (holder, waiter, none):
        limiter.ask(slot)
    assert limiter.grant() == [holder, none]


def test_each_device_has_resources_of_its_own_and_global_ones_are_shared():
    shared = ResourceSpec("G", 1, is_global=True)
    limiter = RateLimiter()
    slots = limiter.add([instance(R), instance(R, device=1), instance(shared), instance(shared, device=1)])
    for slot in slots:
        limiter.ask(slot)
    assert limiter.grant() == slots[:3]
    assert limiter.free() == {(0, "R"): 0, (1, "R"): 0, (GLOBAL, "G"): 0}


def test_a_turn_given_back_unused_is_none():
    limiter = RateLimiter()
    slot, other = limiter.add([instance(R), instance(R)])
    limiter.ask(slot)
    assert limiter.grant() == [slot]
    limiter.release(slot, executed=False)
    limiter.ask(other)
    limiter.ask(slot)
    assert limiter.grant() == [other]


def test_a_model_that_does_not_fit_changes_nothing():
    limiter = RateLimiter([ResourceLimit("R", 2)])
    limiter.add([instance(ResourceSpec("R", 2))])
    before = limiter.free()
    with pytest.raises(InvalidArgumentError, match=r'"R" is limited to 2 .* minimum required count is 3'):
        limiter.add([instance(ResourceSpec("R", 3))])
    with pytest.raises(InvalidArgumentError, match="both global and device-specific"):
        limiter.add([instance(ResourceSpec("R", 1, is_global=True))])
    assert limiter.free() == before


def test_a_model_that_leaves_frees_what_it_held():
    limiter = RateLimiter()
    gone = limiter.add([instance(R), instance(R)])
    (stays,) = limiter.add([instance(R)])
    for slot in (*gone, stays):
        limiter.ask(slot)
    limiter.grant()
    limiter.remove(gone)
    assert limiter.grant() == [stays]


def test_by_default_there_is_as_much_as_the_largest_need_of_those_loaded():
    limiter = RateLimiter()
    limiter.add([instance(R)])
    big = limiter.add([instance(ResourceSpec("R", 5))])
    assert limiter.free() == {(0, "R"): 5}
    limiter.remove(big)
    assert limiter.free() == {(0, "R"): 1}


NEEDS = st.lists(
    st.one_of(
        st.builds(ResourceSpec, st.sampled_from("AB"), st.integers(0, 4)),
        st.builds(ResourceSpec, st.just("G"), st.integers(0, 4), st.just(value=True)),
    ),
    max_size=3,
)
INSTANCES = st.lists(
    st.builds(
        lambda needs, priority, device: instance(*needs, priority=priority, device=device),
        NEEDS,
        st.integers(1, 4),
        st.integers(0, 1),
    ),
    min_size=1,
    max_size=4,
)


class RateLimiterMachine(RuleBasedStateMachine):
    """Models come and go, ask, run and end in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.limiter = RateLimiter()
        self.models: list[list[Slot]] = []

    @property
    def slots(self) -> list[Slot]:
        return [slot for model in self.models for slot in model]

    def in_state(self, state: SlotState) -> list[Slot]:
        return [slot for slot in self.slots if slot.state is state]

    @rule(instances=INSTANCES)
    def load(self, instances):
        self.models.append(self.limiter.add(instances))

    @precondition(lambda self: self.models)
    @rule(data=st.data())
    def unload(self, data):
        model = data.draw(st.sampled_from(self.models))
        self.models.remove(model)
        self.limiter.remove(model)

    @precondition(lambda self: self.in_state(SlotState.RESTING))
    @rule(data=st.data())
    def ask(self, data):
        self.limiter.ask(data.draw(st.sampled_from(self.in_state(SlotState.RESTING))))

    @precondition(lambda self: self.in_state(SlotState.ASKING))
    @rule(data=st.data())
    def withdraw(self, data):
        self.limiter.withdraw(data.draw(st.sampled_from(self.in_state(SlotState.ASKING))))

    @precondition(lambda self: self.in_state(SlotState.RUNNING))
    @rule(data=st.data(), executed=st.booleans())
    def release(self, data, executed):
        self.limiter.release(data.draw(st.sampled_from(self.in_state(SlotState.RUNNING))), executed=executed)

    @rule()
    def grant(self):
        asking = sorted(self.in_state(SlotState.ASKING), key=Slot.rank)
        free = self.limiter.free()
        first = next((slot for slot in asking if self.fits(slot, free)), None)
        granted = self.limiter.grant()
        assert [slot for slot in asking if slot in granted] == granted, "turns are given in the order of the ranks"
        assert all(slot.state is SlotState.RUNNING for slot in granted)
        if asking and self.fits(asking[0], free):
            assert asking[0] in granted, "the first in line is passed over by nobody"
        if first is None:
            assert granted == []
        left = self.limiter.free()
        waits: set[Resource] = set()
        for slot in asking:
            lacks = {name for name, count in slot.needs.items() if left[name] < count}
            if slot in granted:
                continue
            assert lacks or waits & slot.needs.keys(), "whoever could run without holding up an earlier one runs"
            waits |= slot.needs.keys()
        for place, slot in enumerate(asking):
            missing = {name for name, count in slot.needs.items() if free[name] < count}
            later = {name for other in asking[place + 1 :] if other in granted for name in other.needs}
            assert not missing & later, "nobody takes what an earlier one waits for"
        assert self.limiter.grant() == [], "one look gives out all that can be given"

    @staticmethod
    def fits(slot: Slot, free) -> bool:
        return all(free[name] >= count for name, count in slot.needs.items())

    @invariant()
    def resources_are_neither_exceeded_nor_lost(self):
        used: dict = {}
        for slot in self.in_state(SlotState.RUNNING):
            for name, count in slot.needs.items():
                used[name] = used.get(name, 0) + count
        pool = {name: max(slot.needs.get(name, 0) for slot in self.slots) for slot in self.slots for name in slot.needs}
        assert self.limiter.free() == {name: count - used.get(name, 0) for name, count in pool.items()}

    def teardown(self):
        """No deadlock: when those who run end, all who ask get their turn, one round after the other."""
        left = len(self.slots) + 1
        while self.in_state(SlotState.ASKING):
            left -= 1
            assert left
            for slot in self.in_state(SlotState.RUNNING):
                self.limiter.release(slot, executed=True)
            assert self.limiter.grant()


RateLimiterMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestRateLimiterMachine = RateLimiterMachine.TestCase
