"""What the first bytes of a large ``ModelInferRequest`` tell while the rest of it is still on its way."""

from __future__ import annotations

from typing import NamedTuple

from shoal.errors import ShoalError
from shoal.protocols import wire
from shoal.protocols.grpc_infer_decode import RAW_TAG
from shoal.protocols.parameters import parse_version
from shoal.requests import LATEST, Buffer

MODEL_NAME_TAG = 1 << 3 | wire.BYTES
MODEL_VERSION_TAG = 2 << 3 | wire.BYTES


class Peek(NamedTuple):
    """The model and version of the request, and where its first raw content begins."""

    model_name: str
    model_version: int
    first_raw: int


def peek(first: Buffer) -> Peek | None:
    """Look into the beginning of a message; None when the first raw content does not begin in it."""
    name, version, at = "", LATEST, 0
    try:
        while at < len(first):
            tag, content = wire.read_varint(first, at)
            nbytes, content = wire.read_varint(first, content)
            if tag == RAW_TAG:
                return Peek(name, version, content)
            if tag & 7 != wire.BYTES:
                return None
            at = content + nbytes
            if tag == MODEL_NAME_TAG:
                name = bytes(first[content:at]).decode("utf-8", "replace")
            elif tag == MODEL_VERSION_TAG:
                version = parse_version(bytes(first[content:at]).decode("utf-8", "replace"))
    except ShoalError:
        return None
    return None
