"""However a client's bytes are cut into reads, they mean the same."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.transport.http2_frames import CONTINUATION, DATA, HEADERS, ErrorCode, frame
from tests.transport.http1_support import EchoHandler
from tests.transport.http2_support import (
    GRPC_HEADERS,
    HTTP_HEADERS,
    OPENING,
    Answer,
    Memory,
    Wire,
    block,
    call_bytes,
    headers_frame,
    message,
    rst,
    serve_http2,
)

BLOCK = block(GRPC_HEADERS)
LARGE = random.Random(1).randbytes(200_000)


def padded(stream_id, data, padding, end):
    return frame(DATA, 8 | end, stream_id, bytes((padding,)) + data + bytes(padding))


def data_frames(stream_id, data, size):
    cut = [data[start : start + size] for start in range(0, len(data), size)]
    return b"".join(frame(DATA, int(part is cut[-1]), stream_id, part) for part in cut)


CONVERSATION = b"".join(
    (
        call_bytes(1, b"one"),
        frame(HEADERS, 0, 3, BLOCK[:7])
        + frame(CONTINUATION, 0, 3, BLOCK[7:20])
        + frame(CONTINUATION, 4, 3, BLOCK[20:]),
        padded(3, message(b"two, padded")[:6], 9, 0),
        frame(HEADERS, 8 | 0x20 | 4, 5, b"\x04\0\0\0\0\x10" + block(HTTP_HEADERS) + b"padd"),
        padded(3, message(b"two, padded")[6:], 200, 1),
        frame(0x42, 0, 0, b"unknown" * 10),
        frame(DATA, 0, 5, b"a body ") + frame(DATA, 0, 5) + frame(DATA, 1, 5, b"in parts"),
        headers_frame(7, method="Stream"),
        data_frames(7, b"".join(message(bytes([65 + number]) * number) for number in range(20)), 11),
        headers_frame(9, method="Held") + frame(DATA, 0, 9, message(b"x")[:3]) + rst(9),
        headers_frame(11) + frame(DATA, 0, 11, message(b"trailed")) + headers_frame(11, [("t", "v")], end=True),
        call_bytes(13, b"thirteen"),
    )
)


def check(frames):
    answers = {number: Answer(frames, number) for number in (1, 3, 5, 7, 9, 11, 13)}
    assert answers[1].messages == [(0, b"one")]
    assert answers[3].messages == [(0, b"two, padded")]
    assert answers[5].body == b"a body in parts"
    assert answers[7].messages == [(0, bytes([65 + number]) * number) for number in range(20)]
    assert not answers[9].blocks
    assert answers[11].messages == [(0, b"trailed")]
    assert answers[13].messages == [(0, b"thirteen")]
    assert all(answers[number].status == 0 for number in (1, 3, 7, 11, 13))
    resets = {number: answer.reset for number, answer in answers.items() if answer.reset is not None}
    assert resets == {11: ErrorCode.NO_ERROR}, "it was answered before its client had ended it"


def test_two_reads_cut_at_every_byte():
    data = OPENING + CONVERSATION
    for cut in range(len(data)):
        memory = Memory(http=EchoHandler(), opening=b"")
        memory.receive(data[:cut])
        memory.receive(data[cut:])
        check(memory.frames())
        assert memory.connection.in_flight == 0
        assert len(memory.grpc.cancelled_calls) <= 1


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64])
def test_many_short_reads(chunk):
    memory = Memory(http=EchoHandler(), opening=b"")
    memory.receive(OPENING + CONVERSATION, chunk)
    check(memory.frames())


@pytest.mark.parametrize("chunk", [1, 13])
def test_many_short_reads_of_a_socket(loop_kind, chunk):
    with serve_http2(loop_kind) as server, Wire(server.port, b"") as wire:
        data = OPENING + CONVERSATION
        for start in range(0, len(data), chunk):
            wire.send(data[start : start + chunk])
        check(wire.probe())


@settings(deadline=None, max_examples=150)
@given(
    sizes=st.lists(st.sampled_from([0, 1, 5, 4095, 4096, 65_535, 65_536, 150_000]), min_size=1, max_size=4),
    frame_nbytes=st.sampled_from([1000, 16_383, 16_384, 70_000, 1 << 20]),
    reads=st.lists(st.integers(1, 200_000), min_size=1, max_size=10),
    padding=st.sampled_from([None, 0, 255]),
    http=st.booleans(),
)
def test_large_messages_in_any_frames_and_reads(sizes, frame_nbytes, reads, padding, http):
    """Through the scratch buffer or in place, padded or not: every byte lands where it belongs."""
    payload = LARGE[: sizes[0]] if http else b"".join(message(LARGE[:size]) for size in sizes)
    headers = [*HTTP_HEADERS, ("content-length", str(len(payload)))] if http else None
    data = headers_frame(1, headers, method="Stream", end=not payload)
    step = frame_nbytes if padding is None else frame_nbytes - 256
    for start in range(0, len(payload), step):
        part, end = payload[start : start + step], int(start + step >= len(payload))
        data += frame(DATA, end, 1, part) if padding is None else padded(1, part, padding, end)
    memory = Memory(http=EchoHandler())
    frames = []
    position = index = 0
    while position < len(data):
        nbytes = reads[index % len(reads)]
        memory.receive(data[position : position + nbytes])
        frames += memory.frames()
        position += nbytes
        index += 1
    memory.receive(
        b"".join((frame(8, 0, 0, b"\0\x7f\0\0"), frame(8, 0, 1, b"\0\x7f\0\0") if memory.connection.in_flight else b""))
    )
    frames += memory.frames()
    answer = Answer(frames, 1)
    if http:
        assert answer.body == payload
    else:
        assert answer.messages == [(0, LARGE[:size]) for size in sizes]
        assert answer.status == 0
    assert memory.connection.in_flight == 0
