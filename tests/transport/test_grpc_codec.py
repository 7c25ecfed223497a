"""gRPC's small encodings."""

import base64
import gzip
import re
import zlib
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.transport import grpc_codec


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/grpc", True),
        ("application/grpc+proto", True),
        ("application/grpc;charset=utf-8", True),
        ("Application/gRPC", True),
        ("application/grpc-web", False),
        ("application/json", False),
        ("", False),
    ],
)
def test_content_types(content_type: str, expected: bool) -> None:
    assert grpc_codec.is_grpc(content_type) is expected


@given(st.integers(0, 99_999_999), st.sampled_from(["H", "M", "S", "m", "u", "n"]))
def test_timeouts(number: int, unit: str) -> None:
    seconds = {"H": 3600, "M": 60, "S": 1, "m": 1e-3, "u": 1e-6, "n": 1e-9}[unit]
    assert grpc_codec.parse_timeout(f"{number}{unit}") == pytest.approx(number * seconds)


@given(st.text())
def test_status_messages_survive_percent_encoding(text: str) -> None:
    encoded = grpc_codec.encode_message(text)
    assert re.fullmatch(rb"[ -~]*", encoded)
    decoded = unquote(encoded.decode())
    assert decoded == text.encode("utf-8", "replace").decode()


@given(st.binary(), st.booleans())
def test_binary_metadata_with_and_without_padding(data: bytes, padded: bool) -> None:
    value = base64.b64encode(data).decode()
    metadata = grpc_codec.decode_metadata({"a-bin": value if padded else value.rstrip("="), "b": value})
    assert metadata == {"a-bin": data, "b": value}


def test_repeated_binary_metadata_is_joined() -> None:
    assert grpc_codec.decode_metadata({"a-bin": "AAE=, AgM"}) == {"a-bin": b"\0\1,\2\3"}


@pytest.mark.parametrize("value", ["*", "A", "AAAAA", "é"])
def test_binary_metadata_that_is_not_base64(value: str) -> None:
    with pytest.raises(ValueError, match="metadata 'a-bin' is not base64"):
        grpc_codec.decode_metadata({"a-bin": value})


@pytest.mark.parametrize(
    ("accepted", "expected"), [("", ""), ("identity", ""), ("deflate,gzip", "gzip"), ("identity, deflate", "deflate")]
)
def test_which_compression_a_response_may_have(accepted: str, expected: str) -> None:
    assert grpc_codec.response_encoding(accepted) == expected


@given(st.lists(st.binary()), st.sampled_from(["gzip", "deflate"]), st.integers(1, 9))
def test_compression_is_undone_by_its_opposite(parts: list[bytes], encoding: str, level: int) -> None:
    data = b"".join(parts)
    assert grpc_codec.decompress(grpc_codec.compress(parts, encoding, level), encoding, len(data)) == data


@pytest.mark.parametrize(
    ("data", "encoding", "limit", "code"),
    [
        (gzip.compress(b"x" * 101, mtime=0), "gzip", 100, grpc_codec.RESOURCE_EXHAUSTED),
        (zlib.compress(bytes(10_000_000)), "deflate", 1000, grpc_codec.RESOURCE_EXHAUSTED),
        (gzip.compress(b"x", mtime=0)[:-1], "gzip", 100, grpc_codec.INTERNAL),
        (gzip.compress(b"x", mtime=0) + b"y", "gzip", 100, grpc_codec.INTERNAL),
        (b"not compressed", "gzip", 100, grpc_codec.INTERNAL),
        (b"", "deflate", 100, grpc_codec.INTERNAL),
        (gzip.compress(b"x", mtime=0), "identity", 100, grpc_codec.INTERNAL),
    ],
)
def test_compressed_messages_that_are_refused(data: bytes, encoding: str, limit: int, code: int) -> None:
    with pytest.raises(grpc_codec.CompressionError) as raised:
        grpc_codec.decompress(data, encoding, limit)
    assert raised.value.code == code
