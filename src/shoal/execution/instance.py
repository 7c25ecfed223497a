"""The server's end of one instance's channel: sends a batch, hears of its end."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import msgspec

from shoal.config.spec import InstanceSpec
from shoal.errors import UnavailableError
from shoal.execution.arena import Arena
from shoal.execution.blocks import InstanceBlocks
from shoal.execution.messages import (
    RECEIVE_NBYTES,
    BatchDone,
    FrameReader,
    FromInstance,
    Released,
    RoomGranted,
    RoomNeeded,
    Streamed,
    frame,
)
from shoal.scheduling.contract import Batch

PIPE_NBYTES = 64 * 1024
"""What a pipe holds on Linux."""
WIDE_PIPE_NBYTES = 1024 * 1024

_decode: Callable[[bytes], FromInstance] = msgspec.msgpack.Decoder(FromInstance).decode


class ChannelEvents(NamedTuple):
    """Whom a channel tells what.

    Attributes:
        done: a batch is done.
        streamed: a request that is answered response by response got one.
        closed: the worker has closed its end.
    """

    done: Callable[[InstanceChannel, BatchDone], None]
    streamed: Callable[[InstanceChannel, Streamed], None]
    closed: Callable[[InstanceChannel], None]


class InstanceChannel:
    """One instance as the server sees it; runs one batch at a time.

    The channel is two pipes and not a socket: a message each way costs 6 microseconds instead of 10.

    Attributes:
        number: which of the model's instances it is.
        spec: its settings.
        blocks: its shared memory.
        up: whether it takes batches; False once its worker is known to be gone.
        batch: the batch that runs, None when idle.
        taken_ns: when that batch was taken from the queue.
        worker_ends: descriptors for the worker, to read from and to write to; to be closed with ``close_worker_ends``.
    """

    def __init__(
        self,
        number: int,
        spec: InstanceSpec,
        arena: Arena,
        events: ChannelEvents,
    ) -> None:
        self.number = number
        self.spec = spec
        self.blocks = InstanceBlocks(arena)
        self.up = True
        self.batch: Batch | None = None
        self.taken_ns = 0
        self._events = events
        self._reader = FrameReader()
        self._unsent = b""
        worker_reads, self._writes = os.pipe()
        self._reads, worker_writes = os.pipe()
        self.worker_ends = (worker_reads, worker_writes)
        os.set_blocking(self._reads, False)
        os.set_blocking(self._writes, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._reads, self.receive)

    def close_worker_ends(self) -> None:
        """Close this process's copies of the worker's descriptors."""
        for descriptor in self.worker_ends:
            os.close(descriptor)

    def send(self, data: bytes) -> None:
        """Send a framed message; what the pipe does not take at once follows when it can."""
        sent = 0
        if not self._unsent:
            try:
                sent = os.write(self._writes, data)
            except BlockingIOError:
                pass
            except OSError:
                return  # the worker is gone, which is noticed where its answers are read
            if sent == len(data):
                return
            self._loop.add_writer(self._writes, self._send_rest)
        self._unsent += data[sent:]

    def _send_rest(self) -> None:
        try:
            self._unsent = self._unsent[os.write(self._writes, self._unsent) :]
        except BlockingIOError:
            return
        except OSError:
            self._unsent = b""
        if not self._unsent:
            self._loop.remove_writer(self._writes)

    def receive(self) -> None:
        """Take what the worker sent; called when there is something."""
        if self._reads < 0:
            return
        try:
            data = os.read(self._reads, RECEIVE_NBYTES)
        except BlockingIOError:
            return
        if not data:
            self.close()
            self._events.closed(self)
            return
        if len(data) == PIPE_NBYTES:
            self._widen()
        for part in self._reader.split(data):
            message = _decode(part)
            if type(message) is BatchDone:
                self._events.done(self, message)
            elif type(message) is Streamed:
                self._events.streamed(self, message)
            elif type(message) is RoomNeeded:
                self._grant(message.nbytes)
            else:
                assert isinstance(message, Released)
                for offset in message.offsets:
                    self.blocks.unkeep(offset)

    def _widen(self) -> None:
        """The pipe was full, as with large responses of a decoupled model: with more room they take fewer turns."""
        with suppress(AttributeError, OSError):  # another system, or one that allows its user no more
            fcntl.fcntl(self._reads, fcntl.F_SETPIPE_SZ, WIDE_PIPE_NBYTES)

    def _grant(self, nbytes: int) -> None:
        try:
            block = self.blocks.more_output_room(nbytes)
        except UnavailableError:
            self.send(frame(RoomGranted(0, 0)))
        else:
            self.send(frame(RoomGranted(block.offset, block.nbytes)))

    def close(self) -> None:
        """Close the channel: the instance finishes its batch, if any, and ends."""
        if self._reads < 0:
            return
        self._loop.remove_reader(self._reads)
        if self._unsent:
            self._loop.remove_writer(self._writes)
            self._unsent = b""
        os.close(self._reads)
        os.close(self._writes)
        self._reads = self._writes = -1
