"""The memo of request heads: never wrong, and used where it may be."""

import pytest
from hpack import Decoder, Encoder
from hypothesis import given
from hypothesis import strategies as st

from shoal.transport.connection import Limits
from shoal.transport.hpack_blocks import block, integer, response_block
from shoal.transport.hpack_memo import HeadMemo
from shoal.transport.http2_frames import ErrorCode, Http2ConnectionError
from shoal.transport.http2_head import MalformedError
from tests.transport.http2_support import GRPC_HEADERS
from tests.transport.http2_support import block as literal_block


def look_up(memo, data):
    return memo.heads.get(data) or memo.head(data)


def test_a_client_that_repeats_its_headers_is_decoded_twice_and_looked_up_from_then_on():
    """The first block inserts, the second refers to what the first inserted, all others are the same bytes."""
    memo, encoder = HeadMemo(Limits()), Encoder()
    blocks = [encoder.encode(GRPC_HEADERS) for _ in range(4)]
    assert blocks[0] != blocks[1] == blocks[2]
    first = look_up(memo, blocks[0])
    assert memo.heads == {}
    second = look_up(memo, blocks[1])
    assert list(memo.heads) == [blocks[1]]
    assert look_up(memo, blocks[2]) is second
    assert (first.path, first.metadata) == (second.path, second.metadata)


def test_a_block_of_literals_is_shared_by_connections():
    data = literal_block(GRPC_HEADERS, ("shared", "yes"))
    assert look_up(HeadMemo(Limits()), data) is look_up(HeadMemo(Limits()), data)


def test_a_block_that_refers_to_the_table_is_not_shared():
    """The same bytes mean another request on another connection."""
    heads = []
    for path in ("/a", "/b"):
        memo, encoder = HeadMemo(Limits()), Encoder()
        for _ in range(2):
            data = encoder.encode([(name, path if name == ":path" else value) for name, value in GRPC_HEADERS])
            head = look_up(memo, data)
        heads.append((data, head.path))
    assert heads[0][0] == heads[1][0]
    assert [path for _, path in heads] == ["/a", "/b"]


@pytest.mark.parametrize("size_update", [b"\x20", b"\x3f\xe1\x1f", b"\x20\x3f\xe1\x1f"])
def test_a_table_size_update_empties_the_memo(size_update):
    memo, encoder = HeadMemo(Limits()), Encoder()
    blocks = [encoder.encode(GRPC_HEADERS) for _ in range(2)]
    for data in blocks:
        look_up(memo, data)
    assert memo.heads
    look_up(memo, size_update + literal_block(GRPC_HEADERS))
    assert memo.heads == {}
    if size_update[0] == 0x20:
        with pytest.raises(Http2ConnectionError):
            look_up(memo, blocks[1])


def test_trailers_that_insert_empty_the_memo():
    memo, encoder = HeadMemo(Limits()), Encoder()
    for _ in range(2):
        look_up(memo, encoder.encode(GRPC_HEADERS))
    assert memo.heads
    assert memo.decode(encoder.encode([("a", "b")])) == [(b"a", b"b")]
    assert memo.heads == {}


def test_a_malformed_head_leaves_the_table_right():
    memo, encoder = HeadMemo(Limits()), Encoder()
    with pytest.raises(MalformedError):
        memo.head(encoder.encode([*GRPC_HEADERS, ("Upper", "x")]))
    assert look_up(memo, encoder.encode(GRPC_HEADERS)).path == "/echo.Echo/Unary"


def test_the_memo_is_bounded():
    memo = HeadMemo(Limits())
    for number in range(1000):
        look_up(memo, literal_block(GRPC_HEADERS, ("n", str(number))))
    assert len(memo.heads) <= 128
    look_up(memo, literal_block(GRPC_HEADERS, ("long", "x" * 5000)))
    assert all(len(data) <= 4096 for data in memo.heads)


def test_limits_differ_between_listeners_that_share_heads():
    data = literal_block(GRPC_HEADERS, ("x", "y" * 500))
    assert look_up(HeadMemo(Limits()), data).refusal is None
    assert look_up(HeadMemo(Limits(head_nbytes=700)), data).refusal is not None
    assert look_up(HeadMemo(Limits()), data).refusal is None


NAMES = st.sampled_from(["a", "b", "user-agent", "x-long-name", "grpc-timeout", "cookie"])
VALUES = st.sampled_from(["", "x", "y" * 50, "z" * 1500, "100m"])
HEADERS = st.lists(st.tuples(NAMES, VALUES, st.booleans()), max_size=6)


@given(st.lists(st.tuples(HEADERS, st.sampled_from([None, None, None, 0, 100, 4096])), max_size=12))
def test_the_memo_agrees_with_a_plain_decoder(requests):
    """Whatever a client inserts, evicts and resizes, a head from the memo is what a decoder without one says."""
    encoder, decoder, memo = Encoder(), Decoder(), HeadMemo(Limits())
    for headers, table_nbytes in requests:
        if table_nbytes is not None:
            encoder.header_table_size = table_nbytes
        data = encoder.encode([*GRPC_HEADERS, *headers])
        for block_bytes in (data, encoder.encode([*GRPC_HEADERS, *headers])):
            expected = {}
            for name, value in decoder.decode(block_bytes):
                if not name.startswith(":"):
                    joint = "; " if name == "cookie" else ", "
                    expected[name] = expected[name] + joint + value if name in expected else value
            head = look_up(memo, block_bytes)
            assert {name: value for name, value in head.headers.items() if name != "host"} == expected


@given(st.integers(0, 1 << 40), st.integers(1, 8))
def test_integers(value, prefix_bits):
    """RFC 7541 section 5.1, undone by hand."""
    data = integer(value, prefix_bits, 0)
    limit = (1 << prefix_bits) - 1
    found = data[0]
    if found == limit:
        found += sum((byte & 127) << 7 * index for index, byte in enumerate(data[1:]))
        assert all(byte & 128 for byte in data[1:-1])
        assert not data[-1] & 128
    assert found == value


PLAIN = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=":"), min_size=1)


@given(st.lists(st.tuples(PLAIN.map(str.lower), st.text(st.characters(codec="ascii"), max_size=300))))
def test_blocks_are_read_back_and_store_nothing(headers):
    decoder = Decoder(1 << 30)
    data = block((name.encode(), value.encode()) for name, value in headers)
    assert decoder.decode(data) == headers
    assert not decoder.header_table.dynamic_entries


def test_response_headers_are_translated():
    lines = (
        b"Content-Type: application/json\r\nX-Empty:\r\nConnection: close\r\nKeep-Alive: 5\r\n"
        b'Transfer-Encoding: chunked\r\nETag:  "a:b" \r\n'
    )
    assert Decoder().decode(response_block(404, lines)) == [
        (":status", "404"),
        ("content-type", "application/json"),
        ("x-empty", ""),
        ("etag", '"a:b"'),
    ]
    assert response_block(404, lines) is response_block(404, lines)
    for number in range(2000):
        response_block(200, b"X: %d\r\n" % number)


def test_errors_of_the_header_table_end_the_connection():
    with pytest.raises(Http2ConnectionError) as raised:
        HeadMemo(Limits()).head(b"\xff\xff\xff\xff\xff\xff\xff")
    assert raised.value.code == ErrorCode.COMPRESSION_ERROR
