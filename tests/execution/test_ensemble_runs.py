"""Ensembles of any shape equal the composition of their steps, and every request ends once whatever happens."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.errors import InternalError, InvalidArgumentError, QueueFullError, Status, UnavailableError
from tests.execution.fake_ensembles import FakeModel, Graph, Step, World, composition, graphs

LINE = Graph(("x",), (Step("s0", ("x",), ("a",)), Step("s1", ("a",), ("b",)), Step("s2", ("b",), ("y",))), ("y",))
FORK = Graph(("x",), (Step("s0", ("x",), ("a",)), Step("s1", ("x",), ("b",)), Step("s3", ("a", "b"), ("y",))), ("y",))


def numbers_for(data, graph):
    return {name: data.draw(st.integers(0, 1000), label=name) for name in graph.inputs}


def answer_all(world, data):
    while world.pending:
        world.answer(data.draw(st.integers(0, len(world.pending) - 1), label="answered"))


@given(graphs(), st.data())
def test_an_ensemble_equals_the_composition_of_its_steps(graph, data):
    """Whatever the graph, the outputs asked for and the order in which models answer; each needed step runs once."""
    world = World(graph)
    asked = tuple(data.draw(st.lists(st.sampled_from(graph.outputs), unique=True), label="asked"))
    values = numbers_for(data, graph)
    _, asker = world.ask(values, asked)
    answer_all(world, data)
    expected = composition(graph, values)
    wanted = [name for name in graph.outputs if name in (asked or graph.outputs)]
    assert [list(answer.items()) for answer in asker.answers] == [[(name, expected[name]) for name in wanted]]
    assert world.started == dict.fromkeys(graph.needed(tuple(wanted)), 1)
    assert (asker.ends, world.recorder.done, world.runtime.in_flight) == (1, 1, 0)


@given(graphs(), st.data())
def test_steps_start_as_soon_as_their_inputs_exist(graph, data):
    """Every step whose inputs are there is with its model, never one whose inputs are not."""
    world = World(graph)
    values = numbers_for(data, graph)
    world.ask(values)
    there = set(values)
    while world.pending:
        runnable = {step.name for step in graph.steps if set(step.reads) <= there}
        assert set(world.started) == runnable
        place = data.draw(st.integers(0, len(world.pending) - 1))
        there.update(world.pending[place].model.step.writes)
        world.answer(place)


@settings(max_examples=300)
@given(graphs(), st.data())
def test_every_request_ends_once_and_holds_nothing(graph, data):
    """Requests fail, are cancelled, refused at once, answered at once or cut off by a stop, at any point."""
    world = World(graph)
    names = [step.name for step in graph.steps]
    kinds = st.sampled_from([None, QueueFullError("full")])
    world.at_once = data.draw(st.dictionaries(st.sampled_from(names), kinds, max_size=2), label="at once")
    asked = [world.ask(numbers_for(data, graph)) for _ in range(data.draw(st.integers(1, 3)))]
    actions = st.sampled_from(["answer", "answer", "answer", "fail", "cancel", "stop"])
    while world.pending:
        action = data.draw(actions)
        place = data.draw(st.integers(0, len(world.pending) - 1))
        if action == "answer":
            world.answer(place)
        elif action == "fail":
            world.answer(place, InternalError("boom"))
        elif action == "cancel":
            world.runtime.cancel(asked[data.draw(st.integers(0, len(asked) - 1))][0])
        else:
            world.runtime.close("over")
            with pytest.raises(StopIteration):
                world.runtime.stop(0.0).send(None)
    assert [asker.ends for _, asker in asked] == [1] * len(asked)
    assert world.recorder.done + world.recorder.failed == len(asked)
    assert world.runtime.in_flight == 0
    del asked
    assert not list(world.alive)


@given(graphs(), st.data())
def test_tensors_are_let_go_as_soon_as_their_readers_have_them(graph, data):
    """A tensor that only running steps and the answer still need is held by nobody else."""
    world = World(graph)
    _, asker = world.ask(numbers_for(data, graph))
    while world.pending:
        world.answer(data.draw(st.integers(0, len(world.pending) - 1)))
        asker_needs = sum(1 for step in graph.steps for tensor in step.writes if tensor in graph.outputs)
        running = sum(len(pending.request.payload) for pending in world.pending)
        waiting = sum(len(step.writes) for step in graph.steps)
        assert len(world.alive) <= len(graph.inputs) + asker_needs + running + waiting
    assert asker.ends == 1


def test_a_running_step_is_all_that_holds_its_tensor():
    world = World(LINE)
    request, _ = world.ask({"x": 1})
    world.answer(0)
    request.payload = []
    assert len(world.alive) == 1  # the tensor that the second step reads; the first one's input is gone


# --- failures -------------------------------------------------------------------------------------------------------


def test_a_failing_step_fails_the_request_with_its_name_and_status():
    world = World(FORK)
    _, asker = world.ask({"x": 1})
    world.answer(1, QueueFullError("Exceeds maximum queue size"))
    (error,) = asker.errors
    assert error.message == "in ensemble 'pipeline', step[1] 's1': Exceeds maximum queue size"
    assert error.status is Status.UNAVAILABLE
    assert error.reason is QueueFullError.reason


def test_the_other_steps_of_a_failed_request_are_cancelled_and_their_answers_dropped():
    world = World(FORK)
    _, asker = world.ask({"x": 1})
    world.answer(1, InternalError("boom"))
    (left,) = world.pending  # s0 runs on; s1 and s3 give requests up
    assert left.request.cancelled
    world.answer(0)
    assert asker.ends == 1
    assert "s3" not in world.started


def test_a_cancelled_request_ends_at_once_and_starts_no_further_step():
    world = World(LINE)
    request, asker = world.ask({"x": 1})
    world.runtime.cancel(request)
    world.runtime.cancel(request)
    assert asker.errors[0].status is Status.CANCELLED
    world.answer(0)
    assert world.started == {"s0": 1}
    assert asker.ends == 1


def test_a_model_that_is_gone_fails_the_step():
    world = World(LINE)
    _, asker = world.ask({"x": 1})
    del world.models["s1"]
    world.answer(0)
    assert asker.errors[0].message.startswith("in ensemble 'pipeline', step[1] 's1': Request for unknown model")


def test_an_unexpected_error_ends_the_request():
    world = World(LINE)
    _, asker = world.ask({"x": 1})
    world.models["s1"].submit = None
    world.answer(0)
    assert "TypeError" in asker.errors[0].message
    assert asker.ends == 1


def test_a_response_that_cannot_be_read_ends_the_request():
    world = World(LINE)
    _, asker = world.ask({"x": 1})
    pending = world.pending.pop()
    pending.request.responder.completed(pending.request, None)
    assert asker.ends == 1


def test_a_closed_ensemble_refuses_clients_but_answers_what_it_took():
    world = World(LINE)
    _, first = world.ask({"x": 1})
    world.runtime.close("going home")
    _, second = world.ask({"x": 2})
    assert isinstance(second.errors[0], UnavailableError)
    for _ in range(3):
        world.answer(0)
    assert len(first.answers) == 1


def test_it_is_ready_when_all_its_models_are():
    world = World(LINE)
    assert world.runtime.ready
    world.models["s1"].ready = False
    assert not world.runtime.ready
    del world.models["s1"]
    assert not world.runtime.ready


def test_a_repeated_request_is_planned_once():
    """A step's plan is found by what its tensors look like."""
    world = World(LINE)
    request, _ = world.ask({"x": 1})
    plans = []
    for _ in range(3):
        plans.append(world.pending[0].request.plan)
        world.answer(0)
    again = type(request)(request.plan, [world.bytes_of(2)], type(request.responder)(), None, 0)
    world.runtime.submit(again)
    for plan in plans:
        assert world.pending[0].request.plan is plan
        world.answer(0)


def test_steps_are_told_what_the_request_says():
    world = World(LINE)
    world.ask({"x": 1}, timeout=77, answer="42")
    for _ in range(3):
        head = world.pending[0].request.plan.head
        assert head.parameters == {"timeout": 77, "answer": "42"}
        assert world.pending[0].request.plan.timeout_us == 77
        world.answer(0)


@pytest.mark.parametrize(
    ("first", "second"), [({}, {"a": 1}), ({"a": 1}, {"a": True}), ({"timeout": 5}, {"timeout": 6})]
)
def test_a_request_that_differs_in_what_it_says_is_not_mistaken_for_another(first, second):
    """Plans are made from those of requests like them, which never shows: ids, parameters and their types are kept."""
    world = World(LINE)
    for more, request_id in [(first, "one"), (first, "two"), (second, "three"), (first, "one")]:
        world.ask({"x": 1}, request_id=request_id, **more)
        for _ in range(3):
            plan = world.pending[0].request.plan
            assert (plan.head.request_id, plan.timeout_us) == (request_id, more.get("timeout", 0))
            assert [(name, type(value)) for name, value in plan.head.parameters.items()] == [
                (name, type(value)) for name, value in more.items()
            ]
            world.answer(0)


def test_a_model_that_was_loaded_again_gets_the_next_request():
    world = World(LINE)
    world.ask({"x": 1})
    for _ in range(3):
        world.answer(0)
    world.models["s1"] = FakeModel(world, LINE.steps[1])
    world.ask({"x": 1})
    world.answer(0)
    assert world.pending[0].request.plan.sink is world.models["s1"]
    world.answer(0)
    world.answer(0)


def test_an_input_of_the_wrong_size_is_refused_before_any_step():
    world = World(LINE)
    with pytest.raises(InvalidArgumentError):
        world.ask({"x": 1, "z": 2})
    assert not world.started
