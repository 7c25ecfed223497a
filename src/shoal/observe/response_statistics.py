"""The responses of a decoupled model by their index: the first, second, ... of a request (``response_stats``).

The keys and durations are those of Triton's statistics extension (section 2.9): an answered response counts with the
time to compute it and the time to make it ready, one that is empty or tells of a cancellation with all of its time.
"""

from __future__ import annotations

from typing import Any

from shoal.errors import ShoalError, Status
from shoal.execution.recorder import ResponseTimes

MOST_INDICES = 1024
"""Responses that are counted by their own index; those further on are counted with the last of these."""

_KINDS = ("success", "fail", "empty_response", "cancel")


class IndexStatistics:
    """The responses with one index: how many of each kind, and their nanoseconds added up."""

    __slots__ = ("compute_infer_ns", "compute_output_ns", "computed", "counts", "ns")

    def __init__(self) -> None:
        self.computed = self.compute_infer_ns = self.compute_output_ns = 0
        self.counts = dict.fromkeys(_KINDS, 0)
        self.ns = dict.fromkeys(_KINDS, 0)

    def add(self, kind: str, times: ResponseTimes) -> None:
        """Count one response."""
        infer_ns = max(0, times.infer_ns - times.start_ns)  # threads of a model may overtake each other
        output_ns = times.output_ns - times.infer_ns
        self.counts[kind] += 1
        self.ns[kind] += infer_ns + output_ns
        if kind in ("success", "fail"):
            self.computed += 1
            self.compute_infer_ns += infer_ns
            self.compute_output_ns += output_ns

    def to_dict(self) -> dict[str, Any]:
        """The entry of ``response_stats``."""
        return {
            "compute_infer": {"count": self.computed, "ns": self.compute_infer_ns},
            "compute_output": {"count": self.computed, "ns": self.compute_output_ns},
            **{kind: {"count": self.counts[kind], "ns": self.ns[kind]} for kind in _KINDS},
        }


class ResponseStatistics:
    """All responses of one model version."""

    __slots__ = ("_indices",)

    def __init__(self) -> None:
        self._indices: dict[int, IndexStatistics] = {}

    def add(self, index: int, times: ResponseTimes, error: ShoalError | None, *, empty: bool) -> None:
        """Count one response; the arguments are those of ``Recorder.response_sent``."""
        index = min(index, MOST_INDICES - 1)
        found = self._indices.get(index)
        if found is None:
            found = self._indices[index] = IndexStatistics()
        if error is not None:
            kind = "cancel" if error.status is Status.CANCELLED else "fail"
        else:
            kind = "empty_response" if empty else "success"
        found.add(kind, times)

    def to_dict(self) -> dict[str, Any]:
        """``response_stats``; empty for a model that is not decoupled."""
        return {str(index): self._indices[index].to_dict() for index in sorted(self._indices)}
