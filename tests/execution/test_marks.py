"""Marks: what the server writes of a request is what its worker reads, and of no other request."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shoal.execution.arena import Arena, Mapping
from shoal.execution.marks import (
    CANCELLED,
    HELD,
    MOST_PLACES,
    MOST_STREAMS,
    MarkReader,
    Marks,
    byte_of_number,
    byte_of_place,
)

ARENA_NBYTES = 1 << 20


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 40), st.sampled_from([CANCELLED, HELD])), max_size=20),
    st.integers(0, 40),
)
def test_the_worker_reads_what_the_server_wrote(marked, requests):
    arena = Arena(ARENA_NBYTES)
    marks = Marks(arena)
    reader = MarkReader(Mapping(arena.descriptor, ARENA_NBYTES).view, marks.offset)
    places, numbers = dict.fromkeys(range(41), 0), dict.fromkeys(range(41), 0)
    for of_batch, which, mark in marked:
        marks.set(byte_of_place(which) if of_batch else byte_of_number(which), mark)
        (places if of_batch else numbers)[which] |= mark
    assert {place: reader.place(place) for place in places} == places
    assert {number: reader.number(number + 3 * MOST_STREAMS) for number in numbers} == numbers
    marks.clear_places(requests)
    assert {place: reader.place(place) for place in places} == places | dict.fromkeys(range(requests), 0)
    assert {number: reader.number(number) for number in numbers} == numbers
    for number in numbers:
        marks.unset(byte_of_number(number), HELD)
        assert reader.number(number) == numbers[number] & ~HELD
        marks.clear(byte_of_number(number))
        assert reader.number(number) == 0
    marks.release()
    arena.close()


def test_what_is_out_of_reach_is_not_marked_and_harms_nothing():
    """A place beyond those that have a byte, and marks whose worker is gone."""
    arena = Arena(ARENA_NBYTES)
    marks = Marks(arena)
    reader = MarkReader(arena.mapping.view, marks.offset)
    marks.set(byte_of_place(MOST_PLACES), CANCELLED)
    assert reader.place(MOST_PLACES) == 0
    assert reader.number(0) == 0
    marks.set(byte_of_number(1), CANCELLED)
    marks.release()
    marks.release()
    marks.set(byte_of_number(2), CANCELLED)
    marks.clear(byte_of_number(1))
    assert arena.used_nbytes == 0
    arena.close()


def test_memory_that_held_something_else_begins_without_marks():
    arena = Arena(ARENA_NBYTES)
    block = arena.allocate(MOST_STREAMS + MOST_PLACES)
    arena.mapping.view[block.offset : block.offset + block.nbytes] = b"\xff" * block.nbytes
    arena.free(block)
    marks = Marks(arena)
    reader = MarkReader(arena.mapping.view, marks.offset)
    assert not any(reader.number(number) for number in range(MOST_STREAMS))
    assert not any(reader.place(place) for place in range(MOST_PLACES))
    marks.release()
    arena.close()
