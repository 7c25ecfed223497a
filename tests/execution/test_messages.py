"""Frames: what is sent is received, however the socket cuts it."""

from __future__ import annotations

import os
import threading

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from shoal.execution.messages import (
    BatchDone,
    BlockingChannel,
    FrameReader,
    Outcome,
    Released,
    RoomNeeded,
    RunBatch,
    Streamed,
    frame,
)


@given(st.lists(st.binary(max_size=300), max_size=8), st.lists(st.integers(1, 50), max_size=40))
def test_frames_survive_any_cut(payloads, cuts):
    messages = [Outcome([], message=payload.hex()) for payload in payloads]
    data = b"".join(frame(message) for message in messages)
    reader, received = FrameReader(), []
    for cut in [*cuts, len(data) + 1]:
        part, data = data[:cut], data[cut:]
        received += reader.split(part)
    assert [msgspec.msgpack.decode(one, type=Outcome) for one in received] == messages


def test_a_union_of_messages_is_told_apart_by_its_tag():
    decoder = msgspec.msgpack.Decoder(BatchDone | RoomNeeded)
    for message in (RoomNeeded(99), BatchDone(1, 2, 3, [(0, 64, 8, (2, 1))], splits={0: [4, 4]})):
        assert decoder.decode(frame(message)[4:]) == message


def test_a_batch_message_keeps_its_shapes_as_tuples():
    message = RunBatch([1, 2], [(0, 0, 24, (3, 2))], 4096, 100, None)
    assert msgspec.msgpack.decode(frame(message)[4:], type=RunBatch) == message


@given(st.lists(st.integers(0, 5_000), max_size=4), st.lists(st.integers(1, 2_000), min_size=1, max_size=40))
def test_long_messages_are_joined_once_and_whole(lengths, cuts):
    """As those of a decoupled model, which are longer than what a pipe holds."""
    messages = [
        Streamed(number, None, memoryview(bytes(length)), False, (1, 2, 3)) for number, length in enumerate(lengths)
    ]
    data = b"".join(map(frame, messages))
    reader, received, turn = FrameReader(), [], 0
    while data:
        part, data = data[: cuts[turn % len(cuts)]], data[cuts[turn % len(cuts)] :]
        received += reader.split(part)
        turn += 1
    decoded = [msgspec.msgpack.decode(one, type=Streamed) for one in received]
    assert [(one.number, len(one.data)) for one in decoded] == list(enumerate(lengths))


def test_messages_of_several_threads_and_afterthoughts_do_not_mix():
    """An object that is collected in the middle of a message has its own message sent behind that one, by whoever."""
    reads, writes = os.pipe()
    channel = BlockingChannel(-1, writes, msgspec.msgpack.Decoder(RunBatch))
    count, long = 200, bytes(30_000)

    def send(number):
        for turn in range(count):
            channel.send(Streamed(number, None, memoryview(long), False, (turn, 0, 0)))
            channel.send_afterthought(Released([number, turn]))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    reader, decoder, seen, released = FrameReader(), msgspec.msgpack.Decoder(Streamed | Released), {}, set()
    while len(released) < 3 * count:
        for one in reader.split(os.read(reads, 65_536)):
            message = decoder.decode(one)
            if isinstance(message, Released):
                released.add(tuple(message.offsets))
            else:
                assert (seen.setdefault(message.number, 0), len(message.data)) == (message.times[0], len(long))
                seen[message.number] += 1
    for thread in threads:
        thread.join()
    assert seen == dict.fromkeys(range(3), count)
    os.close(reads)
    os.close(writes)


def test_an_afterthought_waits_for_nobody():
    """It may come from a destructor that runs inside of the very call that holds the lock."""
    reads, writes = os.pipe()
    channel = BlockingChannel(-1, writes, msgspec.msgpack.Decoder(RunBatch))
    with channel._lock:
        channel.send_afterthought(Released([1]))
    channel.send(RoomNeeded(2))
    decoder = msgspec.msgpack.Decoder(RoomNeeded | Released)
    received = FrameReader().split(os.read(reads, 65_536))
    assert [decoder.decode(one) for one in received] == [RoomNeeded(2), Released([1])]
    os.close(reads)
    os.close(writes)
