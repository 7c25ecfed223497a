"""Warnings about what may happen with every request, and is worth one line now and then."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

EVERY_S = 30.0


class RareWarning:
    """Logs at most one warning in ``EVERY_S`` seconds, and how many it left out since the last.

    Args:
        log: where to.
        now_s: the clock.
    """

    def __init__(self, log: logging.Logger, now_s: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._now_s = now_s
        self._next_s = float("-inf")
        self._left_out = 0

    def __call__(self, text: str, *values: object) -> None:
        """Log the text, or count it."""
        now_s = self._now_s()
        if now_s < self._next_s:
            self._left_out += 1
            return
        if self._left_out:
            text, values = f"{text} (%d more such warnings were left out)", (*values, self._left_out)
        self._log.warning(text, *values)
        self._next_s, self._left_out = now_s + EVERY_S, 0
