"""Any bytes at all: the decoders of the protocols raise nothing but errors meant for the user."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.protocols.grpc_infer import PrefixMemo
from shoal.requests import InferHead
from tests.fuzz.protocols_target import (
    GRPC,
    REST,
    check_grpc,
    check_others,
    check_rest,
    mutate_grpc,
    mutate_rest,
)

SEEDS = st.integers(min_value=0, max_value=2**32)
MEMO: PrefixMemo[InferHead] = PrefixMemo()
"""One for all examples, so that what an odd message left there meets the next ones."""


@pytest.mark.parametrize("name", REST)
def test_every_rest_sample_is_decoded_and_so_is_each_beginning_of_it(name: str) -> None:
    body = REST[name]
    # A sample's name ends with the length of its JSON part.
    length = name.rpartition("-")[2]
    assert check_rest(body, length) is not None
    for end in range(len(body)):
        check_rest(body[:end], None)
        check_rest(body, str(end))


@pytest.mark.parametrize("name", GRPC)
def test_every_grpc_sample_is_decoded_and_so_is_each_beginning_of_it(name: str) -> None:
    message = GRPC[name]
    assert check_grpc(message, MEMO) is not None
    for end in range(len(message)):
        check_grpc(message[:end], MEMO)


@settings(max_examples=1000, deadline=None)
@given(st.sampled_from(list(REST.values())), SEEDS)
def test_mutated_rest_bodies(sample: bytes, seed: int) -> None:
    source = random.Random(seed)
    body = mutate_rest(sample, source)
    check_rest(body, None)
    check_rest(body, str(source.randrange(len(body) + 1)))


@settings(max_examples=1000, deadline=None)
@given(st.sampled_from(list(GRPC.values())), SEEDS)
def test_mutated_grpc_messages(sample: bytes, seed: int) -> None:
    check_grpc(mutate_grpc(sample, random.Random(seed)), MEMO)


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200), st.none() | st.text(max_size=6))
def test_any_bytes(data: bytes, header_length: str | None) -> None:
    check_rest(data, header_length)
    check_grpc(data, MEMO)
    check_others(data)
