"""Bodies in chunks (RFC 9112 section 7.1)."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.transport.http1_chunked import ChunkedBody
from shoal.transport.http1_head import Http1Head, RefusedError

HEAD = Http1Head("POST", "/", {"transfer-encoding": "chunked"}, version_1_0=False)


def body(limit_nbytes: int = 1000, trailers_nbytes: int = 100) -> ChunkedBody:
    return ChunkedBody(HEAD, limit_nbytes, trailers_nbytes)


def refusal(data: bytes, **limits: int) -> RefusedError:
    with pytest.raises(RefusedError) as refused:
        body(**limits).feed(data)
    return refused.value


def encode(chunks: list[bytes], extension: bytes = b"", trailers: bytes = b"") -> bytes:
    parts = [b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks if chunk]
    return b"".join(parts) + b"0\r\n" + trailers + b"\r\n"


@given(
    chunks=st.lists(st.binary(max_size=40), max_size=6),
    extension=st.sampled_from([b"", b";a=b", b' ; q="x y"']),
    trailers=st.sampled_from([b"", b"T: v\r\n", b"A:\r\nB: \xe9\r\n"]),
    rest=st.binary(max_size=10),
    cuts=st.lists(st.integers(min_value=0, max_value=300), max_size=8),
)
def test_any_chunks_cut_anywhere(
    chunks: list[bytes], extension: bytes, trailers: bytes, rest: bytes, cuts: list[int]
) -> None:
    """However a body is chunked and cut into reads, it comes out whole, and what follows it is returned."""
    data = encode(chunks, extension, trailers) + rest
    end = len(data) - len(rest)
    collected = body()
    edges = sorted({0, *(min(cut, end - 1) for cut in cuts)})
    for start, stop in pairwise(edges):
        assert collected.feed(data[start:stop]) is None
    assert collected.feed(data[edges[-1] :]) == rest
    assert collected.body == b"".join(chunks)


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"x\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\n",
        b"1_0\r\n",
        b" 3\r\nabc\r\n",
        b"3 \r\nabc\r\n",
        b"3\nabc\r\n",
        b"3;a\nb\r\nabc\r\n",
        b"3;a\x00\r\nabc\r\n",
        b"3\r\nabcd\r\n",
        b"3\r\nabc\n",
        b"3\r\nabcX",
        b"3\r\nabc\rX",
        b"11111111111111111\r\n",
        b"0\r\nT : v\r\n\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\nT: v\n\r\n",
        b"0\r\nT: \x00\r\n\r\n",
        b"0\r\n\n",
        b"1" * 2000,
        b"1;" + b"a" * 2000 + b"\r\n",
    ],
)
def test_malformed_chunks_are_refused(data: bytes) -> None:
    assert refusal(data).status == 400


def test_the_limit_is_counted_over_the_chunks() -> None:
    """The body is refused when a chunk's size says that the limit will be passed, before the chunk is read."""
    collected = body(limit_nbytes=10)
    assert collected.feed(b"6\r\nabcdef\r\n") is None
    with pytest.raises(RefusedError, match="of 11 bytes exceeds the maximum allowed value of 10 bytes"):
        collected.feed(b"5\r\n")
    assert body(limit_nbytes=10).feed(encode([b"abcdef", b"ghij"])) == b""


def test_trailers_are_limited() -> None:
    assert refusal(b"0\r\n" + b"T: v\r\n" * 30, trailers_nbytes=100).status == 431
    assert refusal(b"0\r\nT: " + b"v" * 200, trailers_nbytes=100).status == 431
