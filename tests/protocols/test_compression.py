"""Content encodings (rule 16)."""

from __future__ import annotations

import contextlib
import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import InvalidArgumentError, UnsupportedError
from shoal.protocols import compression

BODY = b'{"inputs":[]}' * 10
LIMIT = 1 << 20


@pytest.mark.parametrize("encoding", [None, "", "identity"])
def test_rule_16_no_encoding_returns_the_body_itself(encoding: str | None) -> None:
    assert compression.decompress(encoding, BODY, 1) is BODY


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_rule_16_the_data_says_which_of_the_two_it_is(encoding: str, pack, kind) -> None:
    assert compression.decompress(encoding, kind(pack(BODY)), LIMIT) == BODY


@pytest.mark.parametrize("encoding", ["br", "GZIP", "gzip, deflate", "zstd"])
def test_rule_16_other_encodings_are_unsupported(encoding: str) -> None:
    with pytest.raises(UnsupportedError, match=r"^Unsupported compression type$"):
        compression.decompress(encoding, BODY, LIMIT)
    assert compression.ACCEPTED == "gzip, deflate"


def test_rule_16_the_limit_is_on_the_inflated_body() -> None:
    packed = gzip.compress(bytes(1000))
    assert compression.decompress("gzip", packed, 1000) == bytes(1000)
    with pytest.raises(InvalidArgumentError, match="exceeds the maximum allowed value of 999 bytes"):
        compression.decompress("gzip", packed, 999)


def test_rule_16_a_bomb_is_not_inflated() -> None:
    """A thousand times more than allowed costs no more memory than what is allowed."""
    import tracemalloc  # noqa: PLC0415 - only this test measures

    packed = gzip.compress(bytes(100 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(InvalidArgumentError, match="exceeds the maximum allowed value"):
            compression.decompress("gzip", packed, 1 << 16)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


CUT_OFF = gzip.compress(BODY, mtime=0)[:-12]


@pytest.mark.parametrize("data", [BODY, b"\x1f\x8b", zlib.compress(BODY, wbits=-15), CUT_OFF])
def test_rule_16_damaged_data_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgumentError, match="unable to decompress the request body as gzip"):
        compression.decompress("gzip", data, LIMIT)


def test_rule_16_nothing_to_inflate() -> None:
    with pytest.raises(InvalidArgumentError, match=r"^nothing to be decompressed$"):
        compression.decompress("gzip", b"", LIMIT)


def test_rule_16_what_follows_the_end_is_ignored() -> None:
    assert compression.decompress("gzip", gzip.compress(BODY) + b"xx", LIMIT) == BODY


@given(st.binary(max_size=100))
def test_any_bytes_are_inflated_or_refused(data: bytes) -> None:
    with contextlib.suppress(InvalidArgumentError):
        assert len(compression.decompress("gzip", data, 1000)) <= 1000


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, None),
        ("", None),
        ("gzip", "gzip"),
        (" gzip", "gzip"),
        ("GZip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate", "gzip"),
        ("deflate, gzip", "deflate"),
        ("gzip;q=0.5, deflate;q=0.8", "deflate"),
        ("gzip; q=0.5, deflate ;q=0.8", "deflate"),
        ("gzip;q=0", None),
        ("gzip;q=-1", None),
        ("gzip;q=nan", None),
        ("identity;q=1, gzip;q=0.5", None),
        ("identity;q=0.5, gzip;q=1", "gzip"),
        ("gzip;q=abc, deflate;q=0.1", "deflate"),
        ("gzip;q=1.5", "gzip"),
        ("br", None),
        ("*", None),
        ("br;q=1, gzip;q=0.1", "gzip"),
        (",;,;q=,", None),
    ],
)
def test_rule_16_the_heaviest_encoding_is_taken(accept: str | None, expected: str | None) -> None:
    assert compression.response_encoding(accept) == expected


@given(st.lists(st.binary(max_size=50), max_size=4), st.sampled_from(["gzip", "deflate"]))
def test_rule_16_compressed_answers_inflate_again(parts: list[bytes], encoding: str) -> None:
    packed = compression.compress(encoding, parts)
    unpack = gzip.decompress if encoding == "gzip" else zlib.decompress
    assert unpack(packed) == b"".join(parts)
