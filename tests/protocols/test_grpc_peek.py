"""What the first bytes of a large message tell."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from shoal.protocols import grpc_infer
from shoal.protocols.grpc_peek import peek
from shoal.requests import LATEST

REQUEST = service_pb2.ModelInferRequest(model_name="m", id="x", raw_input_contents=[bytes(1000), b"more"])
REQUEST.inputs.add(name="IN", datatype="UINT8", shape=[1000])


@pytest.mark.parametrize(("text", "version"), [("", LATEST), ("12", 12)])
def test_the_model_and_the_first_raw_content_are_found(text: str, version: int) -> None:
    REQUEST.model_version = text
    message = REQUEST.SerializeToString()
    start = grpc_infer.split(message).raws[0][0]
    for end in range(len(message)):
        known = peek(memoryview(message)[:end])
        assert known == (("m", version, start) if end >= start else None)


def test_nothing_is_told_of_a_version_that_is_none() -> None:
    REQUEST.model_version = "abc"
    assert peek(REQUEST.SerializeToString()) is None


@given(st.binary(max_size=40))
def test_any_bytes_tell_something_or_nothing(data: bytes) -> None:
    known = peek(data)
    assert known is None or 0 < known.first_raw <= len(data)
