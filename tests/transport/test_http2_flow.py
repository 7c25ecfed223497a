"""Flow control in both directions (RFC 9113 sections 5.2 and 6.9), in memory."""

import struct

from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from shoal.transport.connection import Limits
from shoal.transport.http2_frames import DATA, HEADERS, RST_STREAM, WINDOW_UPDATE, frame
from shoal.transport.http2_settings import CONNECTION_WINDOW, STREAM_WINDOW
from tests.transport.http2_support import (
    OPENING,
    Answer,
    Memory,
    call_bytes,
    headers_frame,
    message,
    rst,
    settings,
    window_update,
)

FIRST_WINDOW = 65535


def data_nbytes(frames, stream_id):
    return sum(len(item.payload) for item in frames if item.kind == DATA and item.stream_id == stream_id)


def respond(memory, index, nbytes):
    memory.grpc.calls[index].respond((bytes(nbytes - 5),))


def held(memory, *stream_ids):
    memory.receive(b"".join(call_bytes(number, method="Held") for number in stream_ids))
    memory.frames()


def test_an_answer_waits_for_the_streams_window():
    memory = Memory(opening=OPENING + settings((4, 1000)))
    memory.receive(window_update(0, 1 << 20))
    held(memory, 1)
    respond(memory, 0, 10_000)
    frames = memory.frames()
    assert data_nbytes(frames, 1) == 1000
    assert not Answer(frames, 1).ended
    memory.receive(window_update(1, 4000))
    assert data_nbytes(memory.frames(), 1) == 4000
    memory.receive(window_update(1, 5000))
    frames = memory.frames()
    assert data_nbytes(frames, 1) == 5000
    assert Answer(frames, 1).status == 0
    assert memory.connection.in_flight == 0


def test_an_answer_waits_for_the_connections_window():
    memory = Memory(opening=OPENING + settings((4, 1 << 20)))
    held(memory, 1, 3)
    respond(memory, 0, 60_000)
    respond(memory, 1, 60_000)
    frames = memory.frames()
    assert data_nbytes(frames, 1) + data_nbytes(frames, 3) == FIRST_WINDOW
    memory.receive(window_update(0, 120_000 - FIRST_WINDOW))
    frames = memory.frames()
    assert Answer(frames, 3).ended


def test_small_answers_use_up_the_window_too():
    memory = Memory()
    held(memory, *range(1, 21, 2))
    for index in range(10):
        respond(memory, index, 10_000)
    frames = memory.frames()
    assert sum(data_nbytes(frames, number) for number in range(1, 21, 2)) == FIRST_WINDOW
    memory.receive(window_update(0, 100_000 - FIRST_WINDOW))
    frames += memory.frames()
    assert all(data_nbytes(frames, number) == 10_000 for number in range(1, 21, 2))


def test_streams_share_a_window_in_turn():
    memory = Memory(opening=OPENING + settings((4, 1 << 20)) + window_update(0, 10 * 16384 - FIRST_WINDOW))
    held(memory, 1, 3, 5)
    for index in range(3):
        respond(memory, index, 200_000)
    order = [item.stream_id for item in memory.frames() if item.kind == DATA]
    assert order == [1, 3, 5] * 3 + [1]


def test_a_stream_whose_window_is_shut_does_not_hold_up_others():
    memory = Memory(opening=OPENING + settings((4, 0)) + window_update(0, 1 << 20))
    held(memory, 1, 3)
    respond(memory, 0, 100)
    respond(memory, 1, 100)
    assert sum(data_nbytes(memory.frames(), number) for number in (1, 3)) == 0
    memory.receive(window_update(3, 100))
    frames = memory.frames()
    assert Answer(frames, 3).status == 0
    assert data_nbytes(frames, 1) == 0


def test_settings_move_the_windows_of_open_streams_below_zero_and_back():
    """6.9.2: a window may become negative, and grows from there."""
    memory = Memory(opening=OPENING + settings((4, 5000)) + window_update(0, 1 << 20))
    held(memory, 1)
    respond(memory, 0, 20_000)
    assert data_nbytes(memory.frames(), 1) == 5000
    memory.receive(settings((4, 1000)))
    memory.receive(window_update(1, 4000))
    assert data_nbytes(memory.frames(), 1) == 0
    memory.receive(window_update(1, 1))
    assert data_nbytes(memory.frames(), 1) == 1
    memory.receive(settings((4, 100_000)))
    assert data_nbytes(memory.frames(), 1) == 20_000 - 5001


def test_frames_are_as_long_as_the_client_takes():
    for announced, expected in ((16384, 16384), (50_000, 50_000), ((1 << 24) - 1, 256 * 1024)):
        memory = Memory(opening=OPENING + settings((4, 1 << 24), (5, announced)) + window_update(0, 1 << 24))
        held(memory, 1)
        respond(memory, 0, 1_000_000)
        sizes = [len(item.payload) for item in memory.frames() if item.kind == DATA]
        assert sum(sizes) == 1_000_000
        assert set(sizes[:-1]) == {expected}


def test_large_buffers_are_written_as_they_are():
    """A view of the handler's memory reaches the socket; no copy of it is made on the way."""
    memory = Memory(opening=OPENING + settings((4, 1 << 24)) + window_update(0, 1 << 24))
    held(memory, 1)
    written = []
    memory.transport.writelines = written.extend
    data = bytearray(b"x" * 300_000)
    memory.grpc.calls[0].respond((memoryview(data)[:100_000], memoryview(data)[100_000:]))
    memory.loop.run()
    data[:] = b"y" * len(data)
    assert b"".join(written).count(b"y") == 300_000


def test_buffers_of_any_format_are_framed_by_their_bytes():
    import array  # noqa: PLC0415

    for length in (10, 50_000):
        values = memoryview(array.array("d", range(length)))
        memory = Memory(opening=OPENING + settings((4, 1 << 24)) + window_update(0, 1 << 24))
        held(memory, 1)
        memory.grpc.calls[0].respond((b"head", values))
        assert memory.answer(1).messages == [(0, b"head" + bytes(values))]


def test_no_window_update_before_half_the_window_is_used():
    memory = Memory(limits=Limits())
    memory.receive(headers_frame(1, method="Stream"))
    chunk = frame(DATA, 0, 1, message(bytes(1 << 20)))
    received = 0
    updates = []
    for _ in range(40):
        memory.receive(chunk)
        received += (1 << 20) + 5
        updates += [
            (item.stream_id, struct.unpack(">I", item.payload)[0])
            for item in memory.frames()
            if item.kind == WINDOW_UPDATE
        ]
    on_stream = [increment for number, increment in updates if number == 1]
    on_connection = [increment for number, increment in updates if number == 0]
    assert len(on_stream) == received // (STREAM_WINDOW // 2)
    assert all(increment > STREAM_WINDOW // 2 for increment in on_stream)
    assert len(on_connection) == received // (CONNECTION_WINDOW // 2)


def test_small_calls_are_given_their_window_back():
    """Frames of the quick path count on the connection's window like any other."""
    memory = Memory()
    nbytes = 0
    updates = []
    for number in range(1, 6001, 2):
        memory.receive(call_bytes(number, bytes(16_000)) + window_update(0, 16_005))
        nbytes += 16_005
        updates += [item for item in memory.frames() if item.kind == WINDOW_UPDATE]
    assert nbytes > CONNECTION_WINDOW // 2
    assert [item.stream_id for item in updates] == [0]


def test_padding_counts_on_both_windows():
    memory = Memory()
    memory.receive(headers_frame(1, method="Stream"))
    padded = frame(DATA, 8, 1, b"\xff" + b"\0" * 255)
    for _ in range(CONNECTION_WINDOW // 2 // 256 + 1):
        memory.connection.guard.nuisance = 0
        memory.receive(padded)
    updates = [
        (item.stream_id, struct.unpack(">I", item.payload)[0]) for item in memory.frames() if item.kind == WINDOW_UPDATE
    ]
    assert sum(increment for number, increment in updates if number == 1) >= CONNECTION_WINDOW // 2 - STREAM_WINDOW // 2
    assert [increment for number, increment in updates if number == 0] == [CONNECTION_WINDOW // 2 + 256]


def test_discarded_data_is_given_back_to_the_connection():
    memory = Memory()
    memory.receive(headers_frame(1, method="Refused"))
    for _ in range(40):
        memory.receive(frame(DATA, 0, 1, bytes(1 << 20)))
    assert WINDOW_UPDATE in {item.kind for item in memory.frames() if item.stream_id == 0}


def test_a_reset_stream_forgets_its_queue():
    memory = Memory()
    held(memory, 1, 3)
    respond(memory, 0, 1 << 20)
    memory.frames()
    memory.receive(rst(1))
    memory.receive(window_update(0, 1 << 20))
    respond(memory, 1, 100)
    frames = memory.frames()
    assert data_nbytes(frames, 1) == 0
    assert Answer(frames, 3).status == 0
    assert memory.connection.in_flight == 0
    assert memory.grpc.cancelled_calls == [], "the handler had answered"


def test_a_full_socket_holds_back_answers_and_reading():
    memory = Memory(
        opening=OPENING + settings((4, 1 << 30)) + window_update(0, 1 << 30), limits=Limits(unsent_nbytes=100_000)
    )
    held(memory, 1, 3)
    memory.transport.stuck = True
    respond(memory, 0, 10 << 20)
    memory.loop.run()
    assert not memory.transport.reading
    first = data_nbytes(memory.frames(), 1)
    assert first < 2 << 20
    respond(memory, 1, 100)
    assert [item.kind for item in memory.frames()] == [HEADERS], "data waits behind what is queued"
    memory.transport.unstick()
    frames = memory.frames()
    assert memory.transport.reading
    assert first + data_nbytes(frames, 1) == 10 << 20
    assert Answer(frames, 3).ended


@examples(deadline=None, max_examples=100)
@given(
    sizes=st.lists(st.integers(0, 200_000), min_size=1, max_size=6),
    initial=st.integers(0, 100_000),
    frame_nbytes=st.integers(16384, 300_000),
    steps=st.lists(st.tuples(st.integers(-2, 6), st.integers(0, 100_000)), max_size=40),
)
def test_the_windows_are_never_exceeded_and_nothing_is_lost(sizes, initial, frame_nbytes, steps):
    """Whatever the client grants, DATA stays within both windows, and all of it arrives, in order, in the end."""
    memory = Memory(opening=OPENING + settings((4, initial), (5, frame_nbytes)))
    numbers = [2 * index + 1 for index in range(len(sizes))]
    held(memory, *numbers)
    answers = [bytes([number]) * size for number, size in zip(numbers, sizes, strict=True)]
    window, windows = FIRST_WINDOW, dict.fromkeys(numbers, initial)
    frames = []

    def collect():
        nonlocal window
        for item in memory.frames():
            frames.append(item)
            if item.kind == DATA:
                window -= len(item.payload)
                windows[item.stream_id] -= len(item.payload)
                assert window >= 0
                assert windows[item.stream_id] >= 0, "no DATA is sent into a window that is shut"
                assert len(item.payload) <= frame_nbytes

    for call, answer in zip(memory.grpc.calls, answers, strict=True):
        call.respond((answer,))
    collect()
    for which, increment in steps:
        if which < 0:  # a new initial window, alone or together with what it takes back
            change = increment - initial
            initial = increment
            for other in numbers:
                windows[other] += change
            more = window_update(numbers[0], 7) if which == -2 else b""
            windows[numbers[0]] += 7 * (which == -2)
            memory.receive(more + settings((4, increment)))
            collect()
            continue
        number = 0 if which == 0 else numbers[(which - 1) % len(numbers)]
        if number:
            windows[number] += increment + 1
        else:
            window += increment + 1
        memory.receive(window_update(number, increment + 1))
        collect()
    for number in [0, *numbers]:
        if number:
            windows[number] += 1 << 22
        else:
            window += 1 << 22
        memory.receive(window_update(number, 1 << 22))
        collect()
    for number, answer in zip(numbers, answers, strict=True):
        found = Answer(frames, number)
        assert found.messages == [(0, answer)]
        assert (found.status, found.ended) == (0, True)
    assert memory.connection.in_flight == 0
    assert RST_STREAM not in {item.kind for item in frames}
