"""Frames: what is sent is received, however the socket cuts it."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from shoal.execution.messages import BatchDone, FrameReader, Outcome, RoomNeeded, RunBatch, frame


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
