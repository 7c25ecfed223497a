"""The arena: blocks never overlap, and come back when their last reader is gone."""

from __future__ import annotations

import gc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.errors import UnavailableError
from shoal.execution.arena import Arena, Block

MEBIBYTE = 1 << 20


@pytest.fixture
def arena():
    arena = Arena(64 * MEBIBYTE)
    yield arena
    arena.close()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 200_000), st.booleans()), max_size=60))
def test_blocks_in_use_never_overlap(steps):
    arena = Arena(64 * MEBIBYTE)
    used: list[Block] = []
    for nbytes, give_back in steps:
        if give_back and used:
            arena.free(used.pop(0))
        block = arena.allocate(nbytes)
        assert block.nbytes >= nbytes
        for other in used:
            assert block.offset + block.nbytes <= other.offset or other.offset + other.nbytes <= block.offset
        used.append(block)
        assert arena.used_nbytes == sum(other.nbytes for other in used)
    arena.close()


def test_a_full_arena_refuses_and_serves_again_after_a_block_came_back(arena):
    blocks = [arena.allocate(16 * MEBIBYTE) for _ in range(4)]
    with pytest.raises(UnavailableError, match="no shared memory left for 16777216 bytes"):
        arena.allocate(16 * MEBIBYTE)
    arena.free(blocks.pop())
    assert arena.allocate(16 * MEBIBYTE).nbytes == 16 * MEBIBYTE


def test_a_lent_block_comes_back_with_its_last_slice(arena):
    view = arena.lend(arena.allocate(MEBIBYTE))
    view[100:103] = b"abc"
    piece = view[100:103]
    del view
    gc.collect()
    assert arena.used_nbytes == MEBIBYTE
    assert bytes(piece) == b"abc"
    del piece
    gc.collect()
    assert arena.used_nbytes == 0


def test_freed_large_blocks_give_their_pages_back(arena):
    block = arena.allocate(32 * MEBIBYTE)
    other = arena.allocate(16 * MEBIBYTE)
    arena.mapping.view[block.offset : block.offset + 4] = b"full"
    arena.free(other)
    arena.free(block)
    assert bytes(arena.mapping.view[block.offset : block.offset + 4]) == b"full"
    third = [arena.allocate(32 * MEBIBYTE)]
    assert third[0].offset == block.offset


def test_offset_of_finds_buffers_in_the_arena_and_only_those(arena):
    block = arena.allocate(4096)
    view = arena.lend(block)
    assert arena.mapping.offset_of(view[64:128]) == block.offset + 64
    assert arena.mapping.offset_of(b"x" * 100) == -1
    assert arena.mapping.offset_of(bytearray(100)) == -1
