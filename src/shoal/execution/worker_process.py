"""The server's handle on one worker process: its control socket, its output, its end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections import deque
from contextlib import suppress
from typing import Any

import msgspec

from shoal.errors import ShoalError, Status, WorkerError
from shoal.execution.arena import Arena
from shoal.execution.fork_client import ForkClient
from shoal.execution.messages import (
    RECEIVE_NBYTES,
    Completed,
    FrameReader,
    FromControl,
    LoadFailed,
    LoadModel,
    Ready,
    StartInstances,
    frame,
)

KEPT_LINES = 20
LONGEST_LINE_NBYTES = 16 * 1024
LAST_READS = 16
LAST_WORDS_S = 1.0
"""How long the answer of a worker that has ended may be on its way."""
log = logging.getLogger("shoal.worker")


class LoadError(ShoalError):
    """A model could not be loaded, with the status that its worker gave."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status


class WorkerProcess:
    """One worker, from ``start`` until ``exited``.

    Attributes:
        model: the model that it loads, for messages.
        instances: the names of its instances, for its log lines; known once they are started.
        pid: its process id.
        exited: done when the process is gone, with its exit code or minus the signal that killed it.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        self.instances = ""
        self.pid = 0
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._control, self._their_control = socket.socketpair()
        self._control.setblocking(False)
        self._log_read, self._log_write = os.pipe()
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._partial = b""
        self._reader = FrameReader()
        self._decode = msgspec.msgpack.Decoder(FromControl).decode

    async def start(self, client: ForkClient, modules: list[str], arena: Arena) -> None:
        """Fork the process.

        Raises:
            WorkerError: the fork server is gone.
        """
        loop = asyncio.get_running_loop()
        os.set_blocking(self._log_read, False)
        loop.add_reader(self._log_read, self._read_log)
        descriptors = (self._their_control.fileno(), self._log_write, arena.descriptor)
        try:
            self.pid = await client.spawn(modules, descriptors, self._gone)
        finally:
            self._their_control.close()
            os.close(self._log_write)
            self._log_write = -1

    async def load(self, message: LoadModel) -> bytes:
        """Have the worker load its backend and complete the configuration.

        Returns:
            The serialized configuration.

        Raises:
            LoadError: the model refused.
            WorkerError: the worker died.
        """
        answer = await self._ask(message, [])
        assert isinstance(answer, Completed)
        return answer.config

    async def start_instances(self, message: StartInstances, channels: list[int]) -> None:
        """Have the worker start its instances on the given descriptors, two for each.

        Raises:
            LoadError: the model refused.
            WorkerError: the worker died.
        """
        answer = await self._ask(message, channels)
        assert isinstance(answer, Ready)

    async def _ask(self, message: msgspec.Struct, descriptors: list[int]) -> FromControl:
        loop = asyncio.get_running_loop()
        data = frame(message)
        try:
            sent = socket.send_fds(self._control, [data], descriptors)
            await loop.sock_sendall(self._control, data[sent:])
            received: list[bytes] = []
            while not received:
                received = self._reader.split(await self._receive())
        except OSError:
            self.kill()
            raise await self.death() from None
        answer: FromControl = self._decode(received[0])
        if isinstance(answer, LoadFailed):
            raise LoadError(Status[answer.status], answer.message)
        return answer

    async def _receive(self) -> bytes:
        """The next bytes of the control socket.

        The end of the process is watched besides the end of the socket, which a process that the model started may
        hold open.
        """
        receiving = asyncio.ensure_future(asyncio.get_running_loop().sock_recv(self._control, RECEIVE_NBYTES))
        ends: list[asyncio.Future[Any]] = [receiving, self.exited]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if not receiving.done():
            await asyncio.wait({receiving}, timeout=LAST_WORDS_S)
        if not receiving.done():
            receiving.cancel()
            raise await self.death()
        data = receiving.result()
        if not data:
            raise await self.death()
        return data

    async def death(self) -> WorkerError:
        """Waits for the process to end and says how it ended and what it printed last."""
        return WorkerError(self.describe_end(await asyncio.shield(self.exited)))

    def describe_end(self, status: int) -> str:
        """How the worker ended, in words, with its last lines of output."""
        how = f"exited with code {status}" if status >= 0 else f"was killed by {_signal_name(-status)}"
        text = f"the worker process (pid {self.pid}) of model '{self.model}' {how}"
        return f"{text}; its last output:\n" + "\n".join(self._lines) if self._lines else f"{text}; it printed nothing"

    def kill(self) -> None:
        """Kill the process, if it is there."""
        if not self.exited.done() and self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def abandon(self) -> None:
        """Give the process up, at whatever point of its start: kill it, and close this side of everything."""
        self.kill()
        self._control.close()
        self._their_control.close()
        if self._log_write >= 0:
            os.close(self._log_write)
            self._log_write = -1
        if not self.pid:
            self._close_log()

    async def stop(self, timeout_s: float) -> None:
        """Wait for the process to end by itself, then kill it. Its channels are to be closed before."""
        self._control.close()
        try:
            await asyncio.wait_for(asyncio.shield(self.exited), timeout_s)
        except TimeoutError:
            log.warning("model '%s': worker %d did not end within %g s and is killed", self.model, self.pid, timeout_s)
            self.kill()
            await self.exited

    def _gone(self, status: int) -> None:
        for _ in range(LAST_READS):  # more may come from processes that the model left behind
            if not self._read_log():
                break
        if self._partial:
            self._keep(self._partial)
        self._close_log()
        if not self.exited.done():
            self.exited.set_result(status)

    def _close_log(self) -> None:
        if self._log_read >= 0:
            asyncio.get_running_loop().remove_reader(self._log_read)
            os.close(self._log_read)
            self._log_read = -1

    def _read_log(self) -> bool:
        """Take what the worker printed, one read at a time so that nobody waits for a model that prints without end.

        Returns:
            Whether there may be more.
        """
        if self._log_read < 0:
            return False
        try:
            data = os.read(self._log_read, LONGEST_LINE_NBYTES)
        except BlockingIOError:
            return False
        if not data:
            self._close_log()
            return False
        *lines, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) >= LONGEST_LINE_NBYTES:
            lines.append(self._partial)
            self._partial = b""
        for line in lines:
            self._keep(line)
        return True

    def _keep(self, data: bytes) -> None:
        line = data.decode(errors="replace").rstrip()
        self._lines.append(line)
        log.info("%s", line, extra={"model": self.model, "instance": self.instances, "worker": self.pid})


def _signal_name(number: int) -> str:
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"
