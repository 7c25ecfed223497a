"""What a strategy of the sequence batcher is: it picks, for one instance, whose next request runs in the next batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from shoal.scheduling.contract import CloseReason
from shoal.scheduling.sequence_table import LiveSequence


class Pick(NamedTuple):
    """The sequences whose first request runs now.

    Attributes:
        sequences: in the order of the batch; None for a row that only fills it.
        reason: why the batch was closed.
    """

    sequences: Sequence[LiveSequence | None]
    reason: CloseReason


class InstanceBatcher(Protocol):
    """Joins the first requests of one instance's sequences.

    Attributes:
        due_ns: after a ``take`` that gave nothing, when to ask again although nothing was offered; None for never.
    """

    due_ns: int | None

    def offer(self, sequence: LiveSequence, now_ns: int) -> None:
        """The sequence's first request may run from now on."""

    def withdraw(self, sequence: LiveSequence) -> None:
        """It may not any more."""

    def take(self, now_ns: int) -> Pick | None:
        """Whose requests run in the next batch, none of them offered any more; None when nothing is to run now."""
