"""Ensembles with decoupled models: what follows such a model runs once per response, in order, within the limit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import InternalError
from tests.execution.fake_ensembles import Graph, Step, World


def line(*responses: int | None, limit: int = 0) -> Graph:
    """Steps behind each other, decoupled where a number of responses is given."""
    tensors = ["x", *(f"t{place}" for place in range(len(responses)))]
    steps = tuple(
        Step(f"s{place}", (tensors[place],), (tensors[place + 1],), count) for place, count in enumerate(responses)
    )
    return Graph(("x",), steps, (tensors[-1],), limit)


def expected(graph: Graph, value: int) -> list[int]:
    """The answers in order: every response of a step is followed to the end before the next one."""
    values = [value]
    for step in graph.steps:
        turns = range(1 if step.responses is None else step.responses)
        values = [step.compute({step.reads[0]: one}, turn)[step.writes[0]] for one in values for turn in turns]
    return values


lines = st.lists(st.none() | st.integers(0, 4), min_size=1, max_size=4).filter(lambda found: set(found) != {None})


@given(lines, st.integers(0, 3), st.data())
def test_answers_are_complete_in_order_and_end_once(responses, limit, data):
    """Whatever the order in which models answer, with a limit and without."""
    graph = line(*responses, limit=limit)
    world = World(graph)
    _, asker = world.ask({"x": 5})
    while world.pending:
        if limit:
            counts = [sum(pending.model.step.name == step.name for pending in world.pending) for step in graph.steps]
            assert max(counts[1:], default=0) <= limit
        world.answer(data.draw(st.integers(0, len(world.pending) - 1)))
    name = graph.outputs[0]
    assert [answer[name] for answer in asker.answers] == expected(graph, 5)
    assert (asker.ends, asker.errors, world.runtime.in_flight) == (1, [], 0)


@given(lines, st.integers(0, 2), st.data())
def test_a_failure_or_a_cancellation_at_any_point_ends_it_once(responses, limit, data):
    world = World(line(*responses, limit=limit))
    request, asker = world.ask({"x": 5})
    while world.pending:
        action = data.draw(st.sampled_from(["answer", "answer", "answer", "fail", "cancel"]))
        if action == "cancel":
            world.runtime.cancel(request)
            continue
        error = InternalError("boom") if action == "fail" else None
        world.answer(data.draw(st.integers(0, len(world.pending) - 1)), error)
    assert asker.ends == 1
    assert world.runtime.in_flight == 0
    del request
    assert not list(world.alive)


def test_a_response_waits_for_those_before_it():
    world = World(line(3, None))
    _, asker = world.ask({"x": 1})
    for _ in range(3):
        world.answer(0)
    world.answer(3)  # the last response's step is done first
    assert asker.answers == []
    world.answer(1)
    assert len(asker.answers) == 1
    world.answer(1)
    assert len(asker.answers) == 3
    assert not asker.ends
    world.answer(0)  # the decoupled model says that nothing more comes
    assert asker.ends == 1


def test_a_step_in_front_is_held_up_while_the_one_behind_has_enough():
    """max_inflight_requests: the responses wait in front of the step, and run when it has room."""
    world = World(line(4, None, limit=2))
    world.ask({"x": 1})
    for _ in range(4):
        world.answer(0)
    assert world.started == {"s0": 1, "s1": 2}
    world.answer(1)
    assert world.started["s1"] == 3


def test_the_model_of_a_step_that_is_held_up_waits():
    world = World(line(4, None, limit=2))
    world.ask({"x": 1})
    producer = world.pending[0].request
    world.answer(0)
    assert id(producer) not in world.held
    world.answer(0)
    assert world.held[id(producer)]
    world.answer(1)
    assert not world.held[id(producer)]


def test_models_wait_for_a_client_that_does_not_keep_up():
    world = World(line(4, None))
    request, asker = world.ask({"x": 1})
    producer = world.pending[0].request
    world.runtime.hold(request, held=True)
    assert world.held[id(producer)]
    world.answer(0)  # was on its way
    world.answer(1)
    assert len(asker.answers) == 1
    world.runtime.hold(request, held=False)
    assert not world.held[id(producer)]
    while world.pending:
        world.answer(0)
    assert (len(asker.answers), asker.ends) == (4, 1)


def test_a_step_that_starts_while_the_client_does_not_keep_up_waits_after_its_first_response():
    world = World(line(None, 3))
    request, _ = world.ask({"x": 1})
    world.runtime.hold(request, held=True)
    world.answer(0)
    producer = world.pending[0].request
    world.answer(0)
    assert world.held[id(producer)]
    world.runtime.hold(request, held=False)
    assert not world.held[id(producer)]


def test_a_step_that_waited_in_its_queue_when_the_client_fell_behind_is_told_later():
    """A request that waits cannot be held: its model is asked again with its first response."""
    world = World(line(3, None))
    request, _ = world.ask({"x": 1})
    producer = world.pending[0].request
    world.runtime.hold(request, held=True)
    world.held.clear()  # it waited in the queue of its model
    world.answer(0)
    assert world.held[id(producer)]


def test_a_decoupled_step_that_gives_nothing_ends_the_request_without_an_answer():
    world = World(line(0, None))
    _, asker = world.ask({"x": 1})
    world.answer(0)
    assert (asker.answers, asker.ends) == ([], 1)


def test_an_error_among_the_responses_fails_the_request():
    world = World(line(2, None))
    _, asker = world.ask({"x": 1})
    pending = world.pending[0]
    pending.request.responder.responded(pending.request, InternalError("no more"), final=False)
    assert asker.errors[0].message == "in ensemble 'pipeline', step[0] 's0': no more"
    world.answer(0)
    assert asker.ends == 1
