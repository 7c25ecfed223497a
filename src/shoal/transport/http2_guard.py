"""What an HTTP/2 client may do that costs us and serves nobody, and for how long it may keep us waiting.

Each kind of frame that asks for work without being part of a request is counted. A client that sends too many of them
between two answers, or resets too many of its own requests, is sent away with ENHANCE_YOUR_CALM. The limits are far
above what correct clients do: one WINDOW_UPDATE or two per answer, a keepalive ping every few seconds, a burst of
cancelled calls now and then.
"""

from __future__ import annotations

from shoal.transport.http2_frames import ErrorCode, Http2ConnectionError

_NUISANCE_LIMIT = 10_000
_NUISANCE_PERIOD_S = 10.0
_RESET_BURST = 1000.0
_RESETS_PER_S = 200.0

CONTINUATIONS_LIMIT = 128
"""CONTINUATION frames of one header block."""
UNREAD_PATIENCE = 4
"""A stream that its client does not read gets so much longer than a socket: an application may read at leisure."""

LIGHT, HEAVY = 1, 10
"""The cost of a frame: one that only costs its parsing, and one that is answered or carries nothing."""


class Guard:
    """The counters of one connection.

    Attributes:
        nuisance: the weight of such frames since the last answer; set to 0 with each answer.
    """

    __slots__ = ("_period_start_s", "_reset_time_s", "_reset_tokens", "nuisance")

    def __init__(self, now_s: float) -> None:
        self.nuisance = 0
        self._period_start_s = now_s
        self._reset_tokens = _RESET_BURST
        self._reset_time_s = now_s

    def count(self, weight: int, now_s: float, what: str) -> None:
        """Count a frame.

        Raises:
            Http2ConnectionError: it was one too many.
        """
        self.nuisance += weight
        if self.nuisance <= _NUISANCE_LIMIT:
            return
        if now_s - self._period_start_s < _NUISANCE_PERIOD_S:
            raise Http2ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, what)
        self._period_start_s = now_s
        self.nuisance = weight

    def count_reset(self, now_s: float) -> None:
        """Count an unanswered request that the client reset, or made us reset (CVE-2023-44487, CVE-2025-8671).

        Raises:
            Http2ConnectionError: it was one too many.
        """
        tokens = self._reset_tokens + (now_s - self._reset_time_s) * _RESETS_PER_S
        self._reset_tokens = min(tokens, _RESET_BURST) - 1
        self._reset_time_s = now_s
        if self._reset_tokens < 0:
            raise Http2ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, "too many reset streams")
