"""The data flow of ensembles as integers: what is read, what becomes ready, what is left out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.config.ensemble_flow import FlowStep, follow
from shoal.scheduling.ensemble_graph import FROM_CLIENT, EnsembleGraph
from shoal.scheduling.ensemble_shapes import step_shape
from tests.execution.fake_ensembles import Graph, Step, graphs

FORK = Graph(
    ("x",),
    (Step("s2", ("a", "b"), ("y",)), Step("s0", ("x",), ("a", "c")), Step("s1", ("x", "x"), ("b",))),
    ("y", "b"),
)


def named(graph, tensors):
    return [graph.names[tensor] for tensor in tensors]


def test_tensors_and_steps_are_numbered_in_the_order_of_the_configuration():
    graph = EnsembleGraph(FORK.spec())
    assert graph.names == ("x", "a", "b", "y", "c")
    assert graph.writers == (FROM_CLIENT, 1, 2, 0, 1)
    assert [named(graph, step.reads) for step in graph.steps] == [["a", "b"], ["x"], ["x"]]
    assert graph.steps[2].inputs == (("I0", 0), ("I1", 0))


def test_a_flow_has_what_its_outputs_need_and_nothing_else():
    """Section 1.6: outputs that are not requested are pruned, and the steps that only they need."""
    graph = EnsembleGraph(FORK.spec())
    whole, part = graph.flow((0, 1)), graph.flow((1,))
    assert (named(graph, whole.outputs), whole.waits) == (["y", "b"], (2, 1, 1))
    assert whole.readers == ((1, 2), (0,), (0,), (), ())
    assert whole.uses == (2, 1, 2, 1, 0)
    assert whole.asks == (("O0",), ("O0",), ("O0",))
    assert (named(graph, part.outputs), part.waits) == (["b"], (0, 0, 1))
    assert part.readers == ((2,), (), (), (), ())
    assert part.answers == (False, False, True, False, False)


def test_outputs_are_answered_in_the_order_of_the_configuration():
    graph = EnsembleGraph(FORK.spec())
    assert graph.flow((1, 0)).outputs == graph.flow((0, 1)).outputs


@given(graphs(), st.data())
def test_every_step_of_a_flow_becomes_ready_once(graph, data):
    """Counting tensors down as they come starts all needed steps, each after what it reads."""
    compiled = EnsembleGraph(graph.spec())
    count = len(graph.outputs)
    asked = data.draw(st.lists(st.integers(0, count - 1), unique=True)) or list(range(count))
    flow = compiled.flow(tuple(asked))
    waits, ran = list(flow.waits), []
    there = [tensor for tensor, writer in enumerate(compiled.writers) if writer == FROM_CLIENT]
    while there:
        for step in flow.readers[there.pop()]:
            waits[step] -= 1
            if not waits[step]:
                ran.append(graph.steps[step].name)
                there += [tensor for _, tensor in compiled.steps[step].outputs]
    assert sorted(ran) == sorted(graph.needed(tuple(graph.outputs[index] for index in asked)))
    assert not any(waits)


# --- regions --------------------------------------------------------------------------------------------------------


def step(reads, writes, *, decoupled=False):
    return FlowStep(frozenset(reads), frozenset(writes), decoupled)


def test_a_decoupled_step_begins_a_region_of_its_own():
    flow = follow("x", [step("x", "a"), step("a", "b", decoupled=True), step("b", "c"), step("c", "d", decoupled=True)])
    assert flow.regions == {"x": 0, "a": 0, "b": 2, "c": 2, "d": 4}
    assert flow.mixed == []


def test_a_step_that_reads_from_two_regions_is_found():
    flow = follow("x", [step("x", "a", decoupled=True), step("xa", "y")])
    assert flow.mixed == [1]


def test_a_step_that_cannot_run_makes_nothing():
    assert follow("x", [step("xz", "z"), step("x", "a")]).regions == {"x": 0, "a": 0}


# --- shapes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "dims", "from_batched", "to_batched", "expected"),
    [
        ((3, 4), (4,), True, True, (3, 4)),
        ((4,), (4,), False, False, (4,)),
        ((4,), (4,), False, True, (1, 4)),
        ((3, 4), (4,), False, True, (3, 4)),
        ((3, 4), (-1, 4), False, True, (1, 3, 4)),
        ((1, 4), (4,), True, False, (4,)),
        ((2, 4), (4,), True, False, (2, 4)),
        ((1, 4), (-1, 4), True, False, (1, 4)),
        ((1, 4), (-1, -1), True, False, (1, 4)),
    ],
)
def test_a_batch_dimension_comes_and_goes_as_in_triton(shape, dims, from_batched, to_batched, expected):
    assert step_shape(shape, dims, from_batched=from_batched, to_batched=to_batched) == expected
