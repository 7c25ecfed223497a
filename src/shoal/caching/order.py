"""Answers in the order of their requests, where the model's configuration asks for it (``preserve_ordering``).

The runtime keeps the answers of the requests that it runs in order. An answer from the cache is there at once; it must
wait for those of requests that came before it and still run.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

log = logging.getLogger("shoal.cache")


class Turn:
    """One request's place in the order; ``deliver`` is set when its answer is there."""

    __slots__ = ("deliver",)

    def __init__(self) -> None:
        self.deliver: Callable[[], None] | None = None


def _nothing() -> None:
    """Deliver nothing: what had this turn was answered out of turn, with an error."""


class AnswerOrder:
    """Holds answers back until those of earlier requests are delivered."""

    def __init__(self) -> None:
        self._turns: deque[Turn] = deque()

    def begin(self) -> Turn:
        """A request came."""
        turn = Turn()
        self._turns.append(turn)
        return turn

    def answer(self, turn: Turn, deliver: Callable[[], None]) -> None:
        """Deliver an answer when its turn comes, and all that waited for it."""
        turn.deliver = deliver
        turns = self._turns
        while turns and turns[0].deliver is not None:
            ready = turns.popleft().deliver
            assert ready is not None
            try:
                ready()
            except Exception:  # the others must be answered
                log.exception("an answer could not be delivered")

    def forgo(self, turn: Turn) -> None:
        """There will be no answer: errors do not wait."""
        self.answer(turn, _nothing)
