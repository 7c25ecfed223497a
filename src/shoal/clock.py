"""Time, injected: schedulers ask a clock and never the operating system, so that tests can move time by hand."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """A monotonic clock in nanoseconds."""

    def now_ns(self) -> int:
        """Nanoseconds since some fixed moment; never goes back."""


class MonotonicClock:
    """The machine's monotonic clock; on Linux every process of the machine reads the same one."""

    now_ns = staticmethod(time.monotonic_ns)
