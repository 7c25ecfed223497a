"""What an HTTP/2 connection sends: one write per turn of the loop, within the client's windows, fair among streams.

Frames that fit are appended to ``pieces`` and written together by ``flush``. Data that does not fit, be it for a window
or because the socket is full, waits in its stream's queue; ``flush`` takes from the queues in turn. A large buffer is
cut into frames by slicing views and never copied here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from shoal.requests import Buffer
from shoal.transport.handler import LARGE_BODY_NBYTES
from shoal.transport.hpack_blocks import SHRINK_TABLE
from shoal.transport.http2_frames import (
    CONTINUATION,
    DATA,
    DEFAULT_FRAME_NBYTES,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    FRAME,
    HEADERS,
    MAX_WINDOW,
    ErrorCode,
    Http2ConnectionError,
    frame,
)

_BURST_NBYTES = 1024 * 1024
"""How much queued data goes to the socket at a time, before it is asked whether it is full."""
_MAX_FRAME_NBYTES = 256 * 1024
"""We cut data into frames no longer than this, so that no stream keeps the others waiting."""


class Sender:
    """The sending side of one stream.

    Attributes:
        stream_id: the stream.
        send_window: how much DATA the client takes on this stream; negative after it shrank its initial window.
        queue: data that waits.
        queued_nbytes: its length.
        tail: what ends the stream once the queue is empty: a block of trailers, empty for none; None while it goes on.
        queued: whether the outbox has the stream in its list of those that may send.
        unqueued_nbytes: how much has left the queue so far, by which ``sweep`` sees that a client reads.
    """

    __slots__ = ("queue", "queued", "queued_nbytes", "send_window", "stream_id", "tail", "unqueued_nbytes")

    queue: deque[Buffer] | None
    queued: bool
    queued_nbytes: int
    send_window: int
    stream_id: int
    tail: bytes | None
    unqueued_nbytes: int

    def sent(self) -> None:
        """The stream's last byte has been handed to the socket."""
        raise NotImplementedError

    def drained(self) -> None:
        """The queue is empty again, and the stream goes on."""


class Outbox:
    """The sending side of one connection.

    Attributes:
        pieces: frames to write at the end of this turn, in their order.
        window: how much DATA the client takes on the connection.
        initial_window: how much it takes on a new stream.
        frame_nbytes: the longest frame it takes.
        small_nbytes: data up to this length may be appended to ``pieces`` as one frame; 0 while the socket is full.
        scheduled: whether ``flush`` is going to be called.
    """

    __slots__ = (
        "_large", "_loop", "_owes_shrink", "_paused", "_ready", "_transport", "frame_nbytes", "initial_window",
        "pieces", "scheduled", "small_nbytes", "window",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.pieces: list[Buffer] = []
        self.window = DEFAULT_WINDOW
        self.initial_window = DEFAULT_WINDOW
        self.frame_nbytes = DEFAULT_FRAME_NBYTES
        self.small_nbytes = DEFAULT_FRAME_NBYTES
        self.scheduled = False
        self._large = False
        self._loop = loop
        self._owes_shrink = False
        self._paused = False
        self._ready: deque[Sender] = deque()
        self._transport: asyncio.WriteTransport | None = None

    def attach(self, transport: asyncio.WriteTransport | None) -> None:
        """Write to this transport from now on; None once it is gone, after which everything is dropped."""
        self._transport = transport
        if transport is None:
            self._ready.clear()
            self.pieces.clear()

    def schedule(self) -> None:
        """Have ``flush`` called at the end of this turn of the loop."""
        if not self.scheduled:
            self.scheduled = True
            self._loop.call_soon(self.flush)

    def control(self, data: bytes) -> None:
        """Send a frame that flow control does not count."""
        self.pieces.append(data)
        if not self.scheduled:
            self.schedule()

    def headers(self, stream_id: int, block: bytes, flags: int = 0) -> None:
        """Send a header block, as HEADERS and as many CONTINUATION frames as it takes."""
        if self._owes_shrink:
            self._owes_shrink = False
            block = SHRINK_TABLE + block
            self._set_small()
        size = self.frame_nbytes
        if len(block) <= size:
            self.control(frame(HEADERS, flags | END_HEADERS, stream_id, block))
            return
        self.control(frame(HEADERS, flags, stream_id, block[:size]))
        for start in range(size, len(block), size):
            last = END_HEADERS if start + size >= len(block) else 0
            self.control(frame(CONTINUATION, last, stream_id, block[start : start + size]))

    def data(self, sender: Sender, parts: Sequence[Buffer], nbytes: int) -> None:
        """Send data on a stream: at once where it fits, else when the client and the socket take it.

        Args:
            sender: the stream.
            parts: buffers that follow each other.
            nbytes: their length together.
        """
        if sender.queue is None:
            if nbytes <= self.small_nbytes and nbytes <= sender.send_window and nbytes <= self.window:
                self.window -= nbytes
                sender.send_window -= nbytes
                self.pieces.append(b"".join((FRAME.pack(nbytes << 8 | DATA, 0, sender.stream_id), *parts)))
                self.schedule()
                return
            sender.queue = deque()
        if nbytes < LARGE_BODY_NBYTES:
            sender.queue.append(b"".join(parts))
        else:
            sender.queue.extend([memoryview(part).cast("B") for part in parts if memoryview(part).nbytes])
        sender.queued_nbytes += nbytes
        self.wake(sender)

    def end(self, sender: Sender, trailers: bytes = b"") -> None:
        """End a stream behind its queued data.

        Args:
            sender: the stream.
            trailers: their header block; empty to end the stream without trailers.
        """
        sender.tail = trailers
        if sender.queue is None:
            self._end(sender)

    def drop(self, sender: Sender) -> None:
        """Forget what a stream has queued."""
        sender.queue = None
        sender.queued_nbytes = 0

    def wake(self, sender: Sender) -> None:
        """The stream's window or queue grew: let it send if it can."""
        if sender.queue is not None and not sender.queued and sender.send_window > 0:
            sender.queued = True
            self._ready.append(sender)
            self.schedule()

    def grant(self, increment: int) -> None:
        """The client takes more on the connection.

        Raises:
            Http2ConnectionError: the window grows over 2^31-1.
        """
        self.window += increment
        if self.window > MAX_WINDOW:
            raise Http2ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window grows over 2^31-1")
        if self._ready:
            self.schedule()

    def set_frame_nbytes(self, nbytes: int) -> None:
        """The client announced the longest frame that it takes."""
        self.frame_nbytes = min(nbytes, _MAX_FRAME_NBYTES)
        self._set_small()

    def owe_shrink(self) -> None:
        """The client announced a smaller header table, which the next header block has to acknowledge."""
        self._owes_shrink = True
        self._set_small()

    def pause(self, paused: bool) -> None:
        """The socket is full, or takes data again."""
        self._paused = paused
        self._set_small()
        if not paused:
            self.schedule()

    def flush(self) -> None:
        """Write all that may be written now."""
        self.scheduled = False
        if self._ready and not self._paused and self.window > 0:
            self._pump()
        if self.pieces:
            self._write()

    def _set_small(self) -> None:
        """Small answers bypass the queues; not so while the socket is full or the next header block is special."""
        small = min(self.frame_nbytes, LARGE_BODY_NBYTES - 1)
        self.small_nbytes = 0 if self._paused or self._owes_shrink else small

    def _write(self) -> None:
        """Hand all pieces to the socket: small ones as one, large ones as they are."""
        pieces, self.pieces = self.pieces, []
        if self._transport is None:
            return
        if self._large:
            self._large = False
            self._transport.writelines(pieces)
        else:
            self._transport.write(b"".join(pieces))

    def _pump(self) -> None:
        """Send from the queues, one frame of each stream in turn, until a window or the socket is full."""
        ready = self._ready
        budget = _BURST_NBYTES
        while ready and self.window > 0 and self._transport is not None:
            if budget <= 0:
                self._write()
                budget = _BURST_NBYTES
                if self._paused:
                    return
            sender = ready.popleft()
            budget -= self._emit(sender, self.frame_nbytes if ready else budget)
            if sender.queue is None or sender.send_window <= 0:
                sender.queued = False
            else:
                ready.append(sender)

    def _emit(self, sender: Sender, allowance: int) -> int:
        """Send up to this much of a stream's queue, and the stream's end behind the last of it; returns how much."""
        queue = sender.queue
        if queue is None:
            return 0
        allowance = min(allowance, self.window, sender.send_window, sender.queued_nbytes)
        if allowance < 0:  # the client shrank the stream's window since the stream was woken
            return 0
        self._large = self._large or sender.queued_nbytes >= LARGE_BODY_NBYTES
        left, full = allowance, self.frame_nbytes
        if left > full:
            head = FRAME.pack(full << 8 | DATA, 0, sender.stream_id)
            while left >= full:
                moved = _move_frames(queue, self.pieces, head, full, left)
                if not moved:  # the next buffer ends within the frame
                    self.pieces.append(head)
                    _move(queue, self.pieces, full)
                    moved = full
                left -= moved
        if left:
            self.pieces.append(FRAME.pack(left << 8 | DATA, 0, sender.stream_id))
            _move(queue, self.pieces, left)
        self.window -= allowance
        sender.send_window -= allowance
        sender.queued_nbytes -= allowance
        sender.unqueued_nbytes += allowance
        if not sender.queued_nbytes:
            sender.queue = None
            if sender.tail is not None:
                self._end(sender)
            else:
                sender.drained()
        return allowance

    def _end(self, sender: Sender) -> None:
        """Send the stream's end."""
        if sender.tail:
            self.headers(sender.stream_id, sender.tail, END_STREAM)
        else:
            self.control(frame(DATA, END_STREAM, sender.stream_id))
        sender.sent()


def _move(queue: deque[Buffer], pieces: list[Buffer], nbytes: int) -> None:
    """Move this much from the front of a queue to the end of the pieces; cuts a buffer where the length ends."""
    while nbytes:
        part = queue[0]
        if len(part) <= nbytes:
            pieces.append(queue.popleft())
            nbytes -= len(part)
        else:
            pieces.append(part[:nbytes])
            queue[0] = part[nbytes:]
            nbytes = 0


def _move_frames(queue: deque[Buffer], pieces: list[Buffer], head: bytes, frame_nbytes: int, most_nbytes: int) -> int:
    """Move as many whole frames as the first buffer of a queue has, each behind its head; returns their length."""
    part = queue[0]
    nbytes = min(len(part), most_nbytes) // frame_nbytes * frame_nbytes
    for start in range(0, nbytes, frame_nbytes):
        pieces += (head, part[start : start + frame_nbytes])
    if nbytes == len(part):
        queue.popleft()
    elif nbytes:
        queue[0] = part[nbytes:]
    return nbytes
