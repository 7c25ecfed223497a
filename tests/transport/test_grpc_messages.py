"""Messages within DATA frames, and what ends a call from below; frame by frame, in memory."""

import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.transport.connection import Limits
from shoal.transport.grpc_reader import MessageReader
from shoal.transport.http2_frames import DATA, ErrorCode, frame
from tests.transport.http2_support import (
    GRPC_HEADERS,
    OPENING,
    EchoCalls,
    Memory,
    call_bytes,
    headers_frame,
    message,
    rst,
    window_update,
    with_path,
)
from tests.transport.http2_support import settings as h2_settings


class Taker:
    """Collects what a reader finds."""

    def __init__(self):
        self.messages = []
        self.firsts = []

    def begun(self, nbytes):
        return True

    def buffer(self, compressed, first, nbytes):
        self.firsts.append(len(first))
        return memoryview(bytearray(nbytes))

    def taken(self, compressed, message):
        self.messages.append((int(compressed), bytes(message)))
        return True


MESSAGES = st.tuples(st.integers(0, 1), st.sampled_from([0, 1, 7, 4095, 4096, 65_535, 65_536, 100_000]))


@settings(deadline=None)
@given(st.lists(MESSAGES, max_size=5), st.lists(st.integers(1, 70_000), min_size=1, max_size=8))
def test_messages_survive_any_split(shapes, steps):
    sent = [(compressed, bytes([index + 1]) * nbytes) for index, (compressed, nbytes) in enumerate(shapes)]
    data = b"".join(message(payload, compressed) for compressed, payload in sent)
    taker = Taker()
    reader = MessageReader(taker)
    position = index = 0
    while position < len(data):
        stop = min(len(data), position + steps[index % len(steps)])
        region = reader.region(stop - position)
        if region is None:
            reader.feed(data, position, stop)
        else:
            stop = position + len(region)
            region[:] = data[position:stop]
            reader.advance(len(region))
        position = stop
        index += 1
    assert taker.messages == sent
    assert not reader.within_message
    assert all(first >= 4096 for first in taker.firsts)
    assert len(taker.firsts) == sum(nbytes >= 65_536 for _, nbytes in shapes)


def ask(method, *frames, headers=GRPC_HEADERS, memory=None):
    memory = memory or Memory()
    memory.receive(headers_frame(1, with_path(headers, f"/echo.Echo/{method}")))
    for flags, data in frames:
        memory.receive(frame(DATA, flags, 1, data))
    return memory, memory.answer(1)


def test_an_answer_is_three_frames():
    memory = Memory(opening=OPENING + call_bytes(1))
    assert [(item.kind, item.flags, len(item.payload)) for item in memory.sent_before[-3:]] == [
        (1, 4, 20),
        (0, 0, 10),
        (1, 5, 15),
    ]


def test_a_status_without_a_message_is_trailers_only():
    _, answer = ask("Refused")
    assert answer.blocks == [
        {":status": "200", "content-type": "application/grpc", "grpc-status": "7", "grpc-message": "not for you"}
    ]


def test_half_closed_is_not_called_for_a_unary_call():
    memory, _ = ask("Held", (1, message(b"x")))
    assert memory.grpc.half_closed_calls == []
    memory, _ = ask("Collect", (1, message(b"x")))
    assert memory.grpc.half_closed_calls == memory.grpc.calls


@pytest.mark.parametrize(
    ("method", "frames", "status", "text"),
    [
        ("Held", [(1, b"")], 12, "takes one request message, and none came"),
        ("Held", [(0, message(b"a")), (0, message(b"b"))], 12, "a second one came"),
        ("Held", [(1, message(b"a") + message(b"b"))], 12, "a second one came"),
        ("Stream", [(1, message(b"abc")[:-1])], 13, "ended in the middle of a message"),
        ("Stream", [(1, b"\0\0")], 13, "ended in the middle of a message"),
        ("Stream", [(0, message(b"abc", compressed=1))], 13, "no grpc-encoding"),
    ],
)
def test_calls_that_the_transport_refuses(method, frames, status, text):
    memory, answer = ask(method, *frames)
    assert answer.status == status
    assert text in answer.blocks[-1]["grpc-message"]
    assert memory.grpc.cancelled_calls == memory.grpc.calls, "the handler hears that its call is over"
    assert memory.connection.in_flight == 0


def test_an_unknown_compression_is_refused_with_those_that_are_known():
    memory, answer = ask("Stream", headers=[*GRPC_HEADERS, ("grpc-encoding", "snappy")])
    assert answer.status == 12
    assert answer.blocks[0]["grpc-accept-encoding"] == "identity, deflate, gzip"
    assert memory.grpc.calls == []


def test_compressed_and_plain_messages_in_one_call():
    headers = [*GRPC_HEADERS, ("grpc-encoding", "gzip")]
    _, answer = ask("Stream", (0, message(gzip.compress(b"a"), 1) + message(b"b")), headers=headers)
    assert answer.messages == [(0, b"a"), (0, b"b")]


@pytest.mark.parametrize("accepts", ["gzip", "deflate", "identity"])
def test_a_compressed_response_says_how(accepts):
    memory = Memory(grpc=EchoCalls(compression_level=3))
    headers = [*GRPC_HEADERS, ("grpc-accept-encoding", accepts)]
    _, answer = ask("Unary", (1, message(b"x" * 1000)), headers=headers, memory=memory)
    assert answer.blocks[0].get("grpc-encoding") == (None if accepts == "identity" else accepts)
    assert (answer.messages[0][0], answer.status) == (int(accepts != "identity"), 0)


def test_messages_behind_the_end_are_not_delivered():
    """A call that was finished early gets no further messages, and its client is told to stop."""
    memory, answer = ask("Fail", (0, message(b"enough")), (0, message(b"more")), (1, message(b"and more")))
    assert (answer.status, answer.reset) == (3, ErrorCode.NO_ERROR)
    assert len(memory.grpc.calls[0].context) == 1
    assert memory.grpc.cancelled_calls == []


def test_a_message_over_the_limit_is_refused_by_its_prefix():
    memory, answer = ask("Stream", (0, message(b"x" * 1001)[:5]), memory=Memory(limits=Limits(message_nbytes=1000)))
    assert answer.status == 8
    assert memory.grpc.cancelled_calls == memory.grpc.calls


class Faulty(EchoCalls):
    """Raises in the method that it is told to."""

    def __init__(self, where):
        super().__init__()
        self.where = where

    def __getattribute__(self, name):
        if name == object.__getattribute__(self, "where"):
            raise RuntimeError(name)
        return object.__getattribute__(self, name)


@pytest.mark.parametrize("where", ["started", "message_buffer", "message", "half_closed", "cancelled"])
def test_a_handler_that_raises_harms_its_own_call_only(where, caplog):
    memory = Memory(grpc=Faulty(where), opening=OPENING + h2_settings((4, 1 << 20)) + window_update(0, 1 << 20))
    memory.receive(headers_frame(1, method="Stream") + frame(DATA, 0, 1, message(bytes(100_000))))
    memory.receive(frame(DATA, 1, 1) if where == "half_closed" else rst(1) if where == "cancelled" else b"")
    answer = memory.answer(1)
    assert answer.status == (None if where == "cancelled" else 13)
    assert "raised" in caplog.text
    assert not memory.connection.ending
    assert memory.connection.in_flight == 0


def test_a_port_without_grpc():
    memory = Memory()
    memory.connection._grpc = None
    memory.receive(headers_frame(1))
    answer = memory.answer(1)
    assert (answer.blocks[0][":status"], answer.reset) == ("501", ErrorCode.NO_ERROR)


@pytest.mark.parametrize("content_type", ["application/json", "application/grpc-web", "", None])
def test_another_content_type_on_a_port_of_grpc_alone(content_type):
    headers = [header for header in GRPC_HEADERS if header[0] != "content-type"]
    memory = Memory()
    memory.receive(
        headers_frame(1, headers + ([] if content_type is None else [("content-type", content_type)]), end=True)
    )
    answer = memory.answer(1)
    assert (answer.blocks[0][":status"], answer.ended, answer.reset) == ("415", True, None)


def test_the_calls_address_and_head():
    memory = Memory(opening=OPENING + headers_frame(1, method="Held"))
    (call,) = memory.grpc.calls
    assert call.path == "/echo.Echo/Held"
    assert call.metadata == {"content-type": "application/grpc", "te": "trailers", "user-agent": "test/1"}
    assert call.peer == "unix"


@pytest.mark.parametrize("nbytes", [65_536, 200_000])
def test_a_large_message_goes_to_the_handlers_buffer_even_when_it_is_there_at_once(nbytes):
    memory = Memory(opening=OPENING + h2_settings((4, 1 << 20)) + window_update(0, 1 << 20))
    memory.receive(call_bytes(1, b"x" * nbytes))
    assert [len(buffer) for _, buffer in memory.grpc.buffers] == [nbytes]
    assert memory.answer(1).messages == [(0, b"x" * nbytes)]
    memory.receive(call_bytes(3, b"x" * 65_535))
    assert len(memory.grpc.buffers) == 1


def test_a_handler_is_told_when_what_its_client_left_unread_is_on_its_way():
    """Nothing is told of what fits the windows at once, nor of a call that has ended."""
    memory = Memory(opening=OPENING + h2_settings((4, 20)))
    memory.receive(headers_frame(1, method="Stream"))
    (call,) = memory.grpc.calls
    memory.receive(frame(DATA, 0, 1, message(b"a" * 10)))
    assert (call.unsent_nbytes, memory.grpc.drained_calls) == (0, [])
    memory.receive(frame(DATA, 0, 1, message(b"b" * 10)))
    memory.receive(frame(DATA, 0, 1, message(b"c" * 10)))
    unsent_nbytes = 3 * 15 - 20
    assert (call.unsent_nbytes, memory.grpc.drained_calls) == (unsent_nbytes, [])
    memory.receive(window_update(1, unsent_nbytes - 1))
    assert (call.unsent_nbytes, memory.grpc.drained_calls) == (1, [])
    memory.receive(window_update(1, 1))
    assert (call.unsent_nbytes, memory.grpc.drained_calls) == (0, [(call, 0)])
    memory.receive(frame(DATA, 1, 1, message(b"d" * 10)))
    memory.receive(window_update(1, 1000))
    assert call.unsent_nbytes == 0
    assert len(memory.grpc.drained_calls) == 1
