"""Whether a cache elsewhere may be asked: not for a while after it failed."""

from __future__ import annotations

from collections.abc import Callable

FIRST_RETRY_S = 1.0
LAST_RETRY_S = 30.0


class Circuit:
    """Opens at a failure; from time to time one probe is let through, and closes it again when it succeeds.

    Open means that nothing passes, as in electricity. The time to the next probe doubles with each failure, until
    something has worked: a cache that answers probes and nothing else is asked more and more rarely.

    Args:
        now_s: the clock.

    Attributes:
        closed: whether the cache may be asked.
    """

    def __init__(self, now_s: Callable[[], float]) -> None:
        self.closed = False
        self._now_s = now_s
        self._wait_s = FIRST_RETRY_S
        self._probe_s = float("-inf")

    def close(self) -> None:
        """A probe succeeded: ask again."""
        self.closed = True

    def worked(self) -> None:
        """The cache did what it was asked for."""
        self._wait_s = FIRST_RETRY_S

    def open(self) -> None:
        """The cache failed."""
        self.closed = False
        self._probe_s = self._now_s() + self._wait_s
        self._wait_s = min(2 * self._wait_s, LAST_RETRY_S)

    def probe_is_due(self) -> bool:
        """Whether it is time to try again; asked by requests that came to an open circuit."""
        return not self.closed and self._now_s() >= self._probe_s
