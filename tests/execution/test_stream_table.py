"""The numbers of requests that are answered response by response, and the order of their answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import UnavailableError
from shoal.execution.stream_table import StreamOrder, StreamTable

MOST = 4


class Request:
    """A request, as far as it matters here."""


@given(st.lists(st.integers(0, 5), max_size=60))
def test_no_number_is_used_twice_and_no_two_open_ones_share_a_byte(choices):
    """What comes for a request that has ended finds nobody, and no mark is another request's."""
    table, opened, seen = StreamTable(MOST), [], set()
    for choice in choices:
        if choice < len(opened):
            stream = opened.pop(choice)
            table.remove(stream)
            assert table.get(stream.number) is None
            assert table.of(stream.request) is None
        elif len(opened) < MOST:
            table.check_room(1)
            stream = table.add(Request(), 7)
            assert stream.number not in seen
            seen.add(stream.number)
            opened.append(stream)
            assert table.get(stream.number) is table.of(stream.request) is stream
        assert len({stream.number % MOST for stream in opened}) == len(opened) == len(table)


def test_a_full_table_takes_no_more():
    table = StreamTable(MOST)
    for _ in range(MOST):
        table.add(Request(), 0)
    with pytest.raises(UnavailableError, match="4 requests of this model instance are still being answered"):
        table.check_room(1)


@given(st.data())
def test_answers_come_in_the_order_of_their_requests(data):
    """preserve_ordering: however the answers of several requests mix, those of one come after those before it."""
    count = data.draw(st.integers(1, 4), "requests")
    answers = [data.draw(st.integers(0, 3), "answers") for _ in range(count)]
    order, requests = StreamOrder(), [Request() for _ in range(count)]
    for request in requests:
        order.add(request)
    left = [[(place, number) for number in range(answers[place] + 1)] for place in range(count)]
    delivered = []
    while any(left):
        place = data.draw(st.sampled_from([place for place in range(count) if left[place]]), "next")
        answer = left[place].pop(0)
        if order.first is requests[place]:
            assert all(not left[earlier] for earlier in range(place))
        for ready in order.deliver(
            requests[place], lambda answer=answer: delivered.append(answer), final=not left[place]
        ):
            ready()
    assert delivered == sorted(delivered)
    assert len(delivered) == sum(answers) + count
