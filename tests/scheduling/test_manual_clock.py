"""The clock that tests move by hand."""

from __future__ import annotations

import pytest

from shoal.testing.clock import ManualClock


def test_time_stands_still_until_moved():
    clock = ManualClock(5)
    assert (clock.now_ns(), clock.now_ns()) == (5, 5)
    assert clock.advance_ns(2) == clock.now_ns() == 7
    assert clock.advance_us(3) == clock.now_ns() == 3_007


def test_time_never_goes_back():
    clock = ManualClock(5)
    with pytest.raises(ValueError, match="cannot go back by 1 ns"):
        clock.advance_ns(-1)
    assert clock.move_to_ns(3) == 5
    assert clock.move_to_ns(9) == clock.now_ns() == 9
