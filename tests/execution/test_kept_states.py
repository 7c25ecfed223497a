"""The keeper of implicit states against a plain dictionary, whatever runs, fails, begins anew or ends."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.config.spec import (
    InstanceKind,
    InstanceSpec,
    ModelSpec,
    OldestSpec,
    SequenceSpec,
    StateSpec,
    TensorSpec,
)
from shoal.datatypes import DataType
from shoal.errors import InvalidArgumentError, ModelError
from shoal.execution.messages import BatchDone, Outcome
from shoal.execution.sequence_states import SequenceStates
from shoal.scheduling.contract import Batch, CloseReason, SequenceTurn

IDS = st.sampled_from([1, 2, "1", "b"])
NUMBERS = st.integers(-100, 100)
FIRST = 7


class Memory:
    """What a worker wrote, in place of an instance's blocks."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, *numbers: float) -> int:
        offset = len(self.data)
        self.data += struct.pack(f"<{len(numbers)}f", *numbers)
        return offset

    def read(self, offset: int, nbytes: int) -> bytes:
        return self.data[offset : offset + nbytes]

    view = read


def spec_of(*dims: tuple[int, ...]) -> ModelSpec:
    """A model with one public output and states of these shapes, each of which begins with sevens."""
    made = tuple(TensorSpec(f"S{index}", DataType.FP32, each) for index, each in enumerate(dims))
    states = tuple(
        StateSpec(index, 1 + index, DataType.FP32, each, struct.pack("<f", FIRST), (1,))
        for index, each in enumerate(dims)
    )
    return ModelSpec(
        "m", 1, "python", "python", 8, (TensorSpec("IN", DataType.FP32, (1,)),),
        (TensorSpec("OUT", DataType.FP32, (1,)),), (InstanceSpec("m_0", InstanceKind.CPU, 0),),
        sequence=SequenceSpec(OldestSpec(), 1, (), states),
        made_inputs=made, made_outputs=made,
    )  # fmt: skip


@st.composite
def batches(draw):
    """Turns of different sequences, some empty slots, and what comes of each: a new state, no state, or an error."""
    ids = draw(st.lists(IDS, min_size=1, max_size=3, unique=True))
    turns = [
        (SequenceTurn(each, draw(st.booleans()), False), draw(st.none() | NUMBERS), draw(st.booleans())) for each in ids
    ]
    if draw(st.booleans()):
        turns.insert(draw(st.integers(0, len(turns))), (SequenceTurn(0, False, False, ready=False), None, False))
    return turns, draw(st.booleans()), draw(st.sets(IDS))


def seen(states: SequenceStates, batch: Batch) -> list[float]:
    (made,) = states(batch)
    assert (made.input, made.shape) == (1, (len(batch.turns), 1))
    return [struct.unpack("<f", row)[0] for row in made.rows]


@given(st.lists(batches(), max_size=12))
def test_every_sequence_sees_its_own_last_state(run):
    states, expected = SequenceStates(spec_of((1,))), {}
    for turns, gathered, over in run:
        batch = Batch([], len(turns), CloseReason.IDLE, [turn for turn, _, _ in turns])
        for turn, _, _ in turns:
            if turn.start:
                expected.pop(turn.correlation_id, None)
        assert seen(states, batch) == [
            expected.get(turn.correlation_id, FIRST) if turn.ready else 0 for turn, _, _ in turns
        ]
        memory = Memory()
        if gathered:
            numbers = [number or 0 for _, number, _ in turns]
            place = (1, memory.write(*numbers), 4 * len(turns), (len(turns), 1))
            done = BatchDone(0, 0, 0, [(0, place[1], place[2], place[3]), place])
            expected |= {turn.correlation_id: number or 0 for turn, number, _ in turns if turn.ready}
        else:
            done = BatchDone(0, 0, 0, [], outcomes=[])
            for turn, number, fails in turns:
                places = [] if number is None else [(1, memory.write(number), 4, (1, 1))]
                done.outcomes.append(Outcome([], "INTERNAL", "no") if fails else Outcome(places))
                if turn.ready and number is not None and not fails:
                    expected[turn.correlation_id] = number
        assert states.keep(batch, done, memory) == {}
        for each in over:
            states.forget(each)
            expected.pop(each, None)
        assert len(states) == len(expected)


def test_a_batch_that_failed_changes_nothing():
    states, memory = SequenceStates(spec_of((1,))), Memory()
    batch = Batch([], 1, CloseReason.IDLE, [SequenceTurn(1, True, False)])
    seen(states, batch)
    states.keep(batch, BatchDone(0, 0, 0, [(1, memory.write(5), 4, (1, 1))]), memory)
    again = Batch([], 1, CloseReason.IDLE, [SequenceTurn(1, False, False)])
    states.keep(again, BatchDone(0, 0, 0, [], status="INTERNAL", message="no"), memory)
    assert seen(states, again) == [5]


def test_states_that_grow_apart_cannot_share_a_batch():
    states, memory = SequenceStates(spec_of((-1,))), Memory()
    one = Batch([], 1, CloseReason.IDLE, [SequenceTurn(1, True, False)])
    states(one)
    states.keep(one, BatchDone(0, 0, 0, [(1, memory.write(1, 2), 8, (1, 2))]), memory)
    both = Batch([], 2, CloseReason.IDLE, [SequenceTurn(1, False, False), SequenceTurn(2, True, False)])
    with pytest.raises(InvalidArgumentError, match=r"in input 'S0', \[2\] and \[1\]"):
        states(both)


def test_a_wrong_shape_is_told_to_its_own_request_and_a_missing_row_to_all():
    states, memory = SequenceStates(spec_of((1,))), Memory()
    batch = Batch([], 2, CloseReason.IDLE, [SequenceTurn(1, True, False), SequenceTurn(2, True, False)])
    states(batch)
    wide, right = (1, memory.write(1, 2), 8, (1, 2)), (1, memory.write(3), 4, (1, 1))
    failures = states.keep(batch, BatchDone(0, 0, 0, [], outcomes=[Outcome([wide]), Outcome([right])]), memory)
    assert list(failures) == [0]
    assert isinstance(failures[0], ModelError)
    with pytest.raises(ModelError, match="for 2 rows; the first dimension must be the batch"):
        states.keep(batch, BatchDone(0, 0, 0, [right]), memory)
    later = Batch([], 2, CloseReason.IDLE, [SequenceTurn(1, False, False), SequenceTurn(2, False, False)])
    assert seen(states, later) == [FIRST, 3]
