"""preserve_ordering: answers leave in the order in which their batches were dispatched."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from queued_requests import model

from shoal.config.spec import BatchingSpec, DirectSpec, OldestSpec, SequenceSpec
from shoal.scheduling.contract import Batch, CloseReason
from shoal.scheduling.ordering import ResponseOrder, keeps_order


def batch() -> Batch:
    """All equal by value, so that only identity can tell them apart."""
    return Batch([], 1, CloseReason.IDLE)


def test_a_later_batch_waits_for_an_earlier_one():
    order, out = ResponseOrder(), []
    first, second = batch(), batch()
    order.dispatched(first)
    order.dispatched(second)
    assert order.completed(second, lambda: out.append("second")) == []
    assert order.waiting == 1
    for deliver in order.completed(first, lambda: out.append("first failed")):
        deliver()
    assert out == ["first failed", "second"]
    assert order.waiting == 0


@given(st.permutations(range(8)), st.integers(1, 8))
def test_every_delivery_comes_once_and_in_order_whatever_the_completions(finishing, overlap):
    order, batches, out = ResponseOrder(), [batch() for _ in finishing], []
    dispatched = 0
    for position, number in enumerate(finishing):
        while dispatched < len(batches) and (dispatched <= number or dispatched < position + overlap):
            order.dispatched(batches[dispatched])
            dispatched += 1
        for deliver in order.completed(batches[number], lambda number=number: out.append(number)):
            deliver()
        assert out == list(range(len(out)))
    assert out == list(range(len(batches)))


def test_completing_what_is_not_open_is_refused():
    order, known = ResponseOrder(), batch()
    with pytest.raises(ValueError, match="once"):
        order.completed(known, lambda: None)
    order.dispatched(known)
    order.completed(known, lambda: None)
    with pytest.raises(ValueError, match="once"):
        order.completed(known, lambda: None)


@pytest.mark.parametrize("preserve_ordering", [False, True])
def test_order_is_kept_where_a_batcher_is_told_to(preserve_ordering):
    """The dynamic batcher and the oldest strategy have the setting; nothing else keeps an order."""
    batching = BatchingSpec(preserve_ordering=preserve_ordering)
    oldest = SequenceSpec(OldestSpec(preserve_ordering=preserve_ordering), 1_000)
    assert keeps_order(model(4, batching)) is preserve_ordering
    assert keeps_order(replace(model(4, None), sequence=oldest)) is preserve_ordering
    assert not keeps_order(replace(model(4, None), sequence=SequenceSpec(DirectSpec(), 1_000)))
    assert not keeps_order(model(4, None))
