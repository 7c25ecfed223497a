"""Feeds bytes to every decoder of the protocols; only errors meant for the user may come out."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

from shoal.errors import ShoalError
from shoal.protocols import compression, grpc_infer, grpc_messages, rest
from shoal.protocols.grpc_peek import peek
from shoal.requests import LATEST, InferHead

CORPUS = Path(__file__).with_name("corpus")
REST = {path.name: path.read_bytes() for path in sorted((CORPUS / "rest").iterdir())}
GRPC = {path.name: path.read_bytes() for path in sorted((CORPUS / "grpc").iterdir())}
METHODS = ("ServerLive", "ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics")

_REST_PIECES = [
    *(b'"', b"{", b"}", b"[", b"]", b",", b":", b"0", b"-", b".", b"e9", b"NaN", b"Infinity", b"true", b"null"),
    *(b"\\u", b"\\ud800", b"\\", b"\xff", b"\x00", b"1e999", b"9" * 30, b"[" * 300, b'{"a":' * 300),
    *(b'"data":[1]', b'"parameters":{}', b'"binary_data_size":4', b'"shape":[-1]', b'"datatype":"BYTES"'),
]
_GRPC_PIECES = [
    *(b"\x00", b"\xff" * 9, b"\x0a", b"\x3a", b"\x0b", b"\x0c", b"\x3a\x00", b"\x2a\x02\x0a\x00", b"\x22\x00"),
    *(b"\x2a\x04\x1a\x02\xff\x01", b"\x1a\x01\xff", b"\x12\x01x", b"\xba\x00\x01x"),
]


def check_rest(body: bytes, header_length: str | None) -> InferHead | None:
    """Decode a body as a frontend does; what was split holds what the head says."""
    try:
        nbytes = rest.header_nbytes(header_length, len(body))
        head = rest.decode_head(body[:nbytes], "m", LATEST)
        payload = rest.split_payload(head, body, nbytes)
    except ShoalError:
        return None
    expected = [tensor.nbytes for tensor in head.inputs if tensor.data is None]
    assert list(map(len, payload)) == ([len(body)] if head.raw else expected)
    return head


def check_grpc(message: bytes, memo: grpc_infer.PrefixMemo[InferHead]) -> InferHead | None:
    """Decode a message as a frontend does; the memory agrees with what decoding anew gives."""
    known = memo.find(message)
    peek(message)
    grpc_infer.request_id(message)
    try:
        parts = grpc_infer.split(message)
        head = grpc_infer.decode_head(parts.prefix, parts.raw_nbytes())
    except ShoalError:
        assert known is None
        return None
    payload = parts.payload(message, head)
    assert known is None or known == (head, payload)
    assert list(map(len, payload)) == [tensor.nbytes for tensor in head.inputs if tensor.data is None]
    memo.put(message, parts, len(payload), head)
    return head


def check_others(data: bytes) -> None:
    """All other decoders."""
    for method in METHODS:
        with contextlib.suppress(ShoalError):
            grpc_messages.decode_request(method, data)
    for encoding in ("gzip", "deflate"):
        with contextlib.suppress(ShoalError):
            assert len(compression.decompress(encoding, data, 1000)) <= 1000
    compression.response_encoding(data.decode("latin1"))


def mutate(data: bytes, source: random.Random, pieces: list[bytes]) -> bytes:
    """The data with a few places changed, cut out, doubled or filled with something of the format."""
    changed = bytearray(data)
    for _ in range(source.randint(1, 4)):
        at = source.randrange(len(changed) + 1)
        end = min(len(changed), at + source.randint(0, 6))
        changed[at:end] = source.choice(
            [b"", source.randbytes(source.randint(1, 3)), source.choice(pieces), bytes(changed[at:end]) * 2]
        )
    return bytes(changed)


def mutate_rest(data: bytes, source: random.Random) -> bytes:
    """A body, changed."""
    return mutate(data, source, _REST_PIECES)


def mutate_grpc(data: bytes, source: random.Random) -> bytes:
    """A message, changed."""
    return mutate(data, source, _GRPC_PIECES)
