"""Padded lengths at admission: what is refused, what may share a batch, and which bucket a request is in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.config.padding import PaddedInput, PaddedLength, PaddingSpec
from shoal.config.spec import InstanceKind, InstanceSpec, ModelSpec, TensorSpec
from shoal.datatypes import DataType
from shoal.errors import InvalidArgumentError
from shoal.requests import LATEST, InferHead, InputHead
from shoal.scheduling.admission import plan_raw_request, plan_request
from shoal.scheduling.batch_key import bucket_of

LENGTH = PaddedLength((PaddedInput(0, 1, b"\0"), PaddedInput(1, 2, b"\0")), maximum=64, buckets=(8, 32))


def model(length=LENGTH, names="XY"):
    inputs = (
        TensorSpec("X", DataType.UINT8, (-1, -1)),
        TensorSpec("Y", DataType.UINT8, (3, -1), optional=True),
        TensorSpec("Z", DataType.UINT8, (1,), optional=True),
    )
    instance = InstanceSpec("m_0", InstanceKind.CPU, 0)
    outputs = (TensorSpec("O", DataType.UINT8, (1,)),)
    kept = tuple(tensor for tensor in inputs if tensor.name in names)
    return ModelSpec("m", 1, "python", "python", 8, kept, outputs, (instance,), padding=PaddingSpec((length,)))


def plan(spec, request_id="", **shapes):
    heads = []
    for name, shape in shapes.items():
        nbytes = 1
        for size in shape:
            nbytes *= size
        heads.append(InputHead(name, DataType.UINT8, shape, nbytes))
    return plan_request(InferHead("m", LATEST, request_id, tuple(heads)), spec, None)


def key(*x, **more):
    return plan(model(), X=x, **more).batch_key


def test_lengths_of_one_bucket_share_a_batch_and_other_dimensions_still_count():
    assert key(1, 2, 5) == key(4, 8, 5)
    assert key(1, 2, 5) != key(1, 2, 6)
    assert key(1, 8, 5) != key(1, 9, 5)
    assert key(1, 9, 5) == key(1, 32, 5)
    assert key(1, 33, 5) == key(1, 64, 5)
    assert key(1, 2, 5) != key(1, 2, 5, Y=(1, 3, 2))


@given(length=st.integers(0, 100), buckets=st.lists(st.integers(1, 90), min_size=1, unique=True).map(sorted))
def test_a_bucket_is_the_first_that_is_long_enough(length, buckets):
    found = PaddedLength((), buckets=tuple(buckets)).bucket(length)
    assert all(size < length for size in buckets[:found])
    assert all(size >= length for size in buckets[found:])


def test_without_buckets_any_lengths_meet():
    spec = model(PaddedLength(LENGTH.inputs))
    assert plan(spec, X=(1, 2, 5)).batch_key == plan(spec, X=(1, 900, 5)).batch_key


def test_the_bucket_stands_in_the_key():
    class Request:
        plan = plan(model(), X=(1, 9, 5))

    assert bucket_of(Request()) == (1,)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (
            {"X": (1, 65, 1)},
            "[request id: r] input 'X' for model 'm' has length 65 in dimension 1, at most 64 is allowed",
        ),
        (
            {"X": (1, 4, 1), "Y": (1, 3, 5)},
            "[request id: r] input 'Y' for model 'm' has length 5 in dimension 2, but must be as long as input 'X', ",
        ),
        (
            {"Z": (1, 1)},
            "[request id: r] input 'X' is missing, and model 'm' pads its requests to its length",
        ),
    ],
)
def test_what_does_not_fit_the_policy_is_refused(shapes, message):
    with pytest.raises(InvalidArgumentError) as caught:
        plan(model(names="XYZ"), "r", **shapes)
    assert caught.value.message.startswith(message)


def test_a_raw_request_is_held_to_the_maximum_too():
    length = PaddedLength((PaddedInput(0, 1, b"\0"),), maximum=4)
    instance = InstanceSpec("m_0", InstanceKind.CPU, 0)
    tensor = TensorSpec("X", DataType.UINT8, (-1,))
    spec = ModelSpec("m", 1, "python", "python", 8, (tensor,), (tensor,), (instance,), padding=PaddingSpec((length,)))
    head = InferHead("m", LATEST, "", (), raw=True)
    assert plan_raw_request(head, 4, spec, None).rows == 1
    with pytest.raises(InvalidArgumentError, match="has length 5 in dimension 1, at most 4"):
        plan_raw_request(head, 5, spec, None)
