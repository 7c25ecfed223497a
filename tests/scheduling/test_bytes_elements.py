"""Walking the elements of BYTES tensors (rule 30); the texts are compared with the real server's elsewhere."""

from __future__ import annotations

from struct import pack

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from queued_requests import NOBODY

from shoal.datatypes import DataType
from shoal.errors import InvalidArgumentError
from shoal.requests import LATEST, InferHead, InferRequest, InputHead, PlannedInput, RequestPlan
from shoal.scheduling.admission import check_payload
from shoal.scheduling.bytes_check import elements_error, elements_fit

HEAD = InferHead("m", LATEST, "", ())


def encoded(elements: list[bytes]) -> bytes:
    return b"".join(pack("<I", len(element)) + element for element in elements)


@given(st.lists(st.binary(max_size=9)), st.sampled_from([bytes, bytearray, memoryview]))
def test_whole_elements_fit_their_own_count_only(elements, kind):
    data, count = kind(encoded(elements)), len(elements)
    assert elements_fit(data, count)
    assert not elements_fit(data, count + 1)
    if count:
        assert not elements_fit(data, count - 1)
        assert not elements_fit(data[:-1], count)


@given(st.binary(max_size=24), st.integers(0, 4))
@example(b"\xff\xff\xff\xff", 1)
def test_any_bytes_either_fit_or_have_a_problem_that_is_put_in_words(data, count):
    fits = elements_fit(data, count)
    assert fits == (parsed(data) is not None and len(parsed(data)) == count)
    if not fits:
        assert "for inference input 'A'" in elements_error(HEAD, "A", data, count).message


def parsed(data: bytes) -> list[bytes] | None:
    """The elements, read one by one; None when the bytes end within one."""
    elements = []
    while data:
        length = int.from_bytes(data[:4], "little")
        if len(data) < 4 + length:
            return None
        elements.append(data[4 : 4 + length])
        data = data[4 + length :]
    return elements


def test_each_bytes_input_of_a_request_is_walked_and_named():
    head = InferHead(
        "m",
        LATEST,
        "seven",
        (
            InputHead("HEAD", DataType.BYTES, (1,), 0, encoded([b"x"])),
            InputHead("B", DataType.BYTES, (1,), 5),
            InputHead("A", DataType.BYTES, (2,), 10),
        ),
    )
    inputs = (PlannedInput(0, (2,), 1), PlannedInput(1, (1,), 0), PlannedInput(2, (1,), -1, encoded([b"x"])))
    plan = RequestPlan(head, NOBODY, 1, inputs, (), (), (5, 10), bytes_inputs=(0, 1))
    good = (encoded([b"x"]), encoded([b"x", b"y"]))
    check_payload(InferRequest(plan, good, NOBODY, None, 0))
    with pytest.raises(InvalidArgumentError, match=r"\[request id: seven\] .* input 'B' for model 'm'"):
        check_payload(InferRequest(plan, (b"\0\0\0\0\0", good[1]), NOBODY, None, 0))
    with pytest.raises(InvalidArgumentError, match="input 'A' for model 'm'"):
        check_payload(InferRequest(plan, (good[0], encoded([b"abcdef"])), NOBODY, None, 0))
