"""The arena: blocks never overlap, and come back when their last reader is gone."""

from __future__ import annotations

import asyncio
import gc
import os
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.errors import UnavailableError
from shoal.execution.arena import Arena, Block, Mapping

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


def test_free_halves_become_one_block_again(arena):
    """No order of small requests uses up the space that a large one needs."""
    small = [arena.allocate(4096) for _ in range(1000)]
    for block in small[::2] + small[1::2]:
        arena.free(block)
    assert arena.allocate(64 * MEBIBYTE).offset == 0


def test_a_large_free_block_is_halved_for_a_small_request(arena):
    arena.free(arena.allocate(64 * MEBIBYTE))
    assert [arena.allocate(1000).offset for _ in range(3)] == [0, 4096, 8192]


def test_pages_that_a_burst_touched_go_back_to_the_system():
    arena = Arena(1 << 30)
    kept = arena.allocate(4096)
    arena.mapping.view[kept.offset : kept.offset + 4] = b"kept"
    burst = arena.allocate(256 * MEBIBYTE)
    arena.mapping.view[burst.offset : burst.offset + 5] = b"burst"
    arena.free(burst)
    assert bytes(arena.mapping.view[burst.offset : burst.offset + 5]) == bytes(5)
    assert bytes(arena.mapping.view[kept.offset : kept.offset + 4]) == b"kept"
    arena.close()


def test_pages_of_bursts_that_follow_each_other_are_kept(monkeypatch):
    """On an event loop pages go back when it has been quiet; a burst that comes before finds them as they were."""
    monkeypatch.setattr("shoal.execution.arena.QUIET_S", 0.0)

    def burst_of(arena):
        block = arena.allocate(256 * MEBIBYTE)
        place = slice(block.offset, block.offset + 5)
        arena.free(block)
        return place

    async def scenario():
        arena = Arena(1 << 30)
        place = burst_of(arena)
        arena.mapping.view[place] = b"burst"
        burst_of(arena)
        seen = []
        for _ in range(6):
            await asyncio.sleep(0)
            seen.append(bytes(arena.mapping.view[place]))
        arena.close()
        return seen

    seen = asyncio.run(scenario())
    assert seen[0] == b"burst"
    assert seen[-1] == bytes(5)


def test_a_view_dropped_on_another_thread_gives_its_block_back(arena):
    views = [arena.lend(arena.allocate(MEBIBYTE))]
    thread = threading.Thread(target=views.clear)
    thread.start()
    thread.join()
    arena.free(arena.allocate(4096))
    assert arena.used_nbytes == 0


def test_without_memfd_a_temporary_file_serves(monkeypatch):
    monkeypatch.delattr(os, "memfd_create")
    arena = Arena(64 * MEBIBYTE)
    arena.mapping.view[:3] = b"abc"
    other = Mapping(arena.descriptor, 64 * MEBIBYTE)
    assert bytes(other.view[:3]) == b"abc"
    arena.close()


def test_offset_of_finds_buffers_in_the_arena_and_only_those(arena):
    block = arena.allocate(4096)
    view = arena.lend(block)
    assert arena.mapping.offset_of(view[64:128]) == block.offset + 64
    assert arena.mapping.offset_of(b"x" * 100) == -1
    assert arena.mapping.offset_of(bytearray(100)) == -1
