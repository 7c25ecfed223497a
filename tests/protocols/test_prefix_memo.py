"""The memory of prefixes gives what decoding anew would give, for any message."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from tritonclient.grpc import service_pb2

from shoal.errors import ShoalError
from shoal.protocols import grpc_infer, wire
from shoal.protocols.grpc_infer import PrefixMemo
from shoal.requests import Buffer, InferHead


def message(name: str = "m", *raws: bytes) -> bytes:
    request = service_pb2.ModelInferRequest(model_name=name, raw_input_contents=raws)
    for place, raw in enumerate(raws):
        request.inputs.add(name=f"IN{place}", datatype="UINT8", shape=[len(raw)])
    return request.SerializeToString()


def decode(data: Buffer) -> tuple[InferHead, list[Buffer]]:
    parts = grpc_infer.split(data)
    head = grpc_infer.decode_head(parts.prefix, parts.raw_nbytes())
    return head, parts.payload(data, head)


def remember(memo: PrefixMemo[InferHead], data: Buffer) -> InferHead:
    head, payload = decode(data)
    memo.put(data, grpc_infer.split(data), len(payload), head)
    return head


RAWS = st.lists(st.binary(max_size=4), max_size=3)
FIELDS = st.lists(
    st.one_of(
        st.sampled_from([b"m", b"mm", b"\x3a\x00", b""]).map(lambda name: wire.field(1, name)),
        st.sampled_from([b"", b"a", b"ab", b"\x3a\x01x", b"abc"]).map(lambda raw: wire.field(7, raw)),
        st.binary(max_size=3).map(lambda raw: wire.field(7, raw)),
        st.just(wire.field(5, b"\x0a\x01x\x12\x05UINT8")),
        st.just(wire.field(5, b"\x0a\x01y\x12\x05UINT8")),
        st.just(b"\x3a\x81\x00x"),  # a length in two bytes where one would do
        st.just(b"\xba\x00\x01x"),  # a tag in two bytes where one would do
        st.binary(max_size=3),
    ),
    max_size=6,
).map(b"".join)


class MemoIsAsStrictAsDecoding(RuleBasedStateMachine):
    """Whatever was put in before, a find is a decode."""

    def __init__(self) -> None:
        super().__init__()
        self.memo: PrefixMemo[InferHead] = PrefixMemo()
        self.seen: list[bytes] = []

    @rule(data=FIELDS | st.builds(lambda raws: message("m", *raws), RAWS))
    def put(self, data: bytes) -> None:
        self.seen.append(data)
        try:
            remember(self.memo, data)
        except ShoalError:
            return

    @rule(data=FIELDS, kind=st.sampled_from([bytes, bytearray, memoryview]))
    def find_any(self, data: bytes, kind: type) -> None:
        self.check(kind(data))

    @rule(choice=st.integers(0, 2**16), at=st.integers(0, 64), byte=st.integers(0, 255))
    def find_one_like_before(self, choice: int, at: int, byte: int) -> None:
        if self.seen:
            data = bytearray(self.seen[choice % len(self.seen)])
            if at < len(data):
                data[at] = byte
            self.check(bytes(data))

    @rule()
    def clear(self) -> None:
        self.memo.clear()

    def check(self, data: Buffer) -> None:
        found = self.memo.find(data)
        if found is not None:
            assert found == decode(data)


TestMemoIsAsStrictAsDecoding = MemoIsAsStrictAsDecoding.TestCase


@given(RAWS.filter(bool), st.binary(min_size=4, max_size=4), st.sampled_from([bytes, bytearray, memoryview]))
def test_a_message_that_differs_only_in_its_raw_contents_is_found(raws: list[bytes], noise: bytes, kind: type) -> None:
    memo: PrefixMemo[InferHead] = PrefixMemo()
    head = remember(memo, message("m", *raws))
    again = kind(message("m", *(bytes(len(raw)) or noise[:0] for raw in raws)))
    found = memo.find(again)
    assert found is not None
    assert found[0] is head
    assert found[1] == [bytes(len(raw)) for raw in raws]


def test_equal_length_but_other_division_is_another_message() -> None:
    memo: PrefixMemo[InferHead] = PrefixMemo()
    first = remember(memo, message("m", b"a", b"bcd"))
    assert memo.find(message("m", b"abc", b"d")) is None
    second = remember(memo, message("m", b"abc", b"d"))
    assert memo.find(message("m", b"x", b"yzz")) == (first, [b"x", b"yzz"])
    assert memo.find(message("m", b"xyz", b"z")) == (second, [b"xyz", b"z"])


def test_surplus_raw_contents_are_checked_but_not_returned() -> None:
    request = service_pb2.ModelInferRequest.FromString(message("m", b"ab"))
    request.raw_input_contents.append(b"surplus")
    data = request.SerializeToString()
    memo: PrefixMemo[InferHead] = PrefixMemo()
    head = remember(memo, data)
    assert memo.find(data) == (head, [b"ab"])


@pytest.mark.parametrize(
    "data",
    [
        message("m"),
        wire.field(7, b"") + wire.field(1, b"m") + wire.field(5, b"\x0a\x01x\x12\x05UINT8"),
        message("m" * 20_000, b"ab"),
    ],
    ids=["no raw contents", "raw contents not last", "a long prefix"],
)
def test_some_messages_are_never_remembered(data: bytes) -> None:
    memo: PrefixMemo[InferHead] = PrefixMemo()
    remember(memo, data)
    assert memo.find(data) is None


@pytest.mark.parametrize("kind", [bytes, memoryview])
def test_large_messages_are_viewed(kind: type) -> None:
    memo: PrefixMemo[InferHead] = PrefixMemo()
    data = kind(message("m", bytes(100_000)))
    remember(memo, data)
    found = memo.find(data)
    assert found is not None
    assert isinstance(found[1][0], memoryview)
    assert found[1][0].obj is (data.obj if kind is memoryview else data)


def test_the_memory_is_bounded() -> None:
    memo: PrefixMemo[InferHead] = PrefixMemo()
    for number in range(3000):
        remember(memo, message(f"model-{number:05}", b"ab"))
    assert memo.find(message("model-02999", b"cd")) is not None
    assert memo.find(message("model-00000", b"cd")) is None
    assert len(memo) <= 1024


def test_layouts_of_one_length_are_bounded() -> None:
    """A client cannot make others search long by dividing the same bytes in many ways."""
    memo: PrefixMemo[InferHead] = PrefixMemo()
    divided = [message("m", bytes(size), bytes(40 - size)) for size in range(1, 40)]
    for data in divided:
        remember(memo, data)
    assert sum(memo.find(data) is not None for data in divided) <= 8


def test_clear_forgets_everything() -> None:
    memo: PrefixMemo[InferHead] = PrefixMemo()
    remember(memo, message("m", b"ab"))
    memo.clear()
    assert memo.find(message("m", b"ab")) is None
    assert len(memo) == 0
