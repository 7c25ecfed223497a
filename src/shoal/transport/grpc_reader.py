"""Length-prefixed gRPC messages out of DATA frames that split them anywhere.

Used for all but the common case, a frame that holds one whole message, which ``grpc_call`` reads by itself.
"""

from __future__ import annotations

from struct import Struct
from typing import Protocol

from shoal.transport.handler import LARGE_BODY_NBYTES
from shoal.transport.http2_frames import HEAD_NBYTES

PREFIX = Struct(">BI")
PREFIX_NBYTES = 5
_FIRST_NBYTES = 4096
"""How much of a large message is collected before the handler is asked for its buffer: enough for a request's head."""


class MessageTaker(Protocol):
    """The call whose messages are read."""

    def begun(self, nbytes: int) -> bool:
        """A message's prefix has arrived; False refuses the message, and with it the call."""

    def buffer(self, compressed: bool, first: memoryview, nbytes: int) -> memoryview:
        """A buffer of exactly ``nbytes`` for a large message that begins with ``first``."""

    def taken(self, compressed: bool, message: memoryview) -> bool:
        """A whole message has arrived; False when the call is over."""


class MessageReader:
    """Where a call stands in the stream of its messages."""

    __slots__ = ("_compressed", "_filled", "_prefix", "_taker", "_target", "_total")

    def __init__(self, taker: MessageTaker) -> None:
        self._taker = taker
        self._prefix = b""
        self._compressed = False
        self._total = 0
        self._filled = 0
        self._target: memoryview | None = None

    @property
    def within_message(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._target is not None or self._prefix != b""

    def feed(self, data: bytes | memoryview, start: int, stop: int) -> None:
        """Read on from ``data[start:stop]``."""
        target, filled = self._target, self._filled + stop - start
        if target is not None and filled < len(target):  # the common frame of a large message
            target[self._filled : filled] = data[start:stop]
            self._filled = filled
            return
        view = memoryview(data)[start:stop]
        while len(view):
            target = self._target
            if target is None:
                taken = PREFIX_NBYTES - len(self._prefix)
                self._prefix += bytes(view[:taken])
                view = view[taken:]
                if len(self._prefix) == PREFIX_NBYTES and not self._begin(view):
                    return
                continue
            taken = min(len(target) - self._filled, len(view))
            target[self._filled : self._filled + taken] = view[:taken]
            view = view[taken:]
            if not self.advance(taken):
                return

    def copy_run(self, data: bytes | memoryview, position: int, nbytes: int, run_nbytes: int) -> int:
        """Copy the contents of a run of frames that ends before the message does.

        Args:
            data: what was received.
            position: where the head of the first frame is.
            nbytes: the length of each frame's content.
            run_nbytes: the length of all frames, heads included.

        Returns:
            How much was copied: all of it, or 0 when these frames are not the middle of a large message.
        """
        target, filled = self._target, self._filled
        stride = nbytes + HEAD_NBYTES
        copied_nbytes = run_nbytes // stride * nbytes
        if target is None or filled + copied_nbytes >= len(target):
            return 0
        for start in range(position + HEAD_NBYTES, position + run_nbytes, stride):
            target[filled : filled + nbytes] = data[start : start + nbytes]
            filled += nbytes
        self._filled = filled
        return copied_nbytes

    def region(self, limit_nbytes: int) -> memoryview | None:
        """Where the next bytes may be received in place; None where they are few or not of one message."""
        if self._target is None or len(self._target) != self._total:
            return None
        nbytes = min(limit_nbytes, self._total - self._filled)
        return self._target[self._filled : self._filled + nbytes] if nbytes >= LARGE_BODY_NBYTES else None

    def advance(self, nbytes: int) -> bool:
        """So much of the message has arrived; False when the call is over."""
        self._filled += nbytes
        target = self._target
        if target is None or self._filled < len(target):
            return True
        if self._filled < self._total:
            self._target = self._taker.buffer(self._compressed, target, self._total)
            self._target[: self._filled] = target
            return True
        self._target = None
        return self._taker.taken(self._compressed, target)

    def _begin(self, view: memoryview) -> bool:
        """A prefix is complete and ``view`` is what follows it; False when the call is over."""
        flags, self._total = PREFIX.unpack(self._prefix)
        self._prefix = b""
        self._compressed = bool(flags & 1)
        self._filled = 0
        total = self._total
        if not self._taker.begun(total):
            return False
        if total == 0:
            return self._taker.taken(self._compressed, memoryview(b""))
        if total < LARGE_BODY_NBYTES:
            self._target = memoryview(bytearray(total))
        elif len(view) < _FIRST_NBYTES:
            self._target = memoryview(bytearray(_FIRST_NBYTES))
        else:
            self._target = self._taker.buffer(self._compressed, view[:total], total)
        return True
