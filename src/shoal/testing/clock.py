"""A clock that tests move by hand."""

from __future__ import annotations


class ManualClock:
    """A ``shoal.clock.Clock`` whose time stands still until it is moved.

    Args:
        now_ns: the time at the beginning.
    """

    def __init__(self, now_ns: int = 1_000_000_000) -> None:
        self._now_ns = now_ns

    def now_ns(self) -> int:
        """The time that the clock was moved to."""
        return self._now_ns

    def advance_ns(self, step_ns: int) -> int:
        """Move the time forward and return it.

        Raises:
            ValueError: the step is negative; a monotonic clock never goes back.
        """
        if step_ns < 0:
            raise ValueError(f"a monotonic clock cannot go back by {-step_ns} ns; give a step of 0 or more")
        self._now_ns += step_ns
        return self._now_ns

    def advance_us(self, step_us: int) -> int:
        """Move the time forward by microseconds and return it in nanoseconds."""
        return self.advance_ns(step_us * 1_000)

    def move_to_ns(self, then_ns: int) -> int:
        """Move the time forward to a moment, or leave it where it is when that moment has passed; return the time."""
        self._now_ns = max(self._now_ns, then_ns)
        return self._now_ns
