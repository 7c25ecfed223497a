"""The server's side of the fork server: starts it, asks it for workers, hears of their end."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable

import msgspec

from shoal.errors import WorkerError
from shoal.execution.messages import RECEIVE_NBYTES, Exited, FrameReader, FromForkServer, Spawn, Spawned, frame

ExitCallback = Callable[[int], None]
END_TIMEOUT_S = 1.0


class ForkClient:
    """Starts workers through the fork server, which starts with the first call of ``start``.

    ``start`` may be called long before an event loop runs, so that the fork server imports while the server does.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reader = FrameReader()
        self._decode: Callable[[bytes], FromForkServer] = msgspec.msgpack.Decoder(FromForkServer).decode
        self._next_worker = 1
        self._spawning: dict[int, asyncio.Future[int]] = {}
        self._exits: dict[int, ExitCallback] = {}

    @property
    def pid(self) -> int | None:
        """The fork server's process id, None before it was started."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the fork server, unless it runs."""
        if self._socket is not None and self._process is not None and self._process.poll() is None:
            return
        self._forget()
        self._end_process()
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "shoal.execution.forkserver", str(theirs.fileno()), str(os.getpid())]
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()
        ours.setblocking(False)
        self._socket = ours

    async def spawn(self, modules: list[str], descriptors: tuple[int, int, int], on_exit: ExitCallback) -> int:
        """Fork a worker.

        Args:
            modules: what the fork server is to import first.
            descriptors: the worker's control socket, log pipe and arena.
            on_exit: called on the event loop with the exit code, or minus the signal, when the worker is gone.

        Returns:
            The worker's process id.

        Raises:
            WorkerError: the fork server is gone or cannot fork.
        """
        self._attach()
        assert self._socket is not None
        assert self._loop is not None
        worker = self._next_worker
        self._next_worker += 1
        started = self._spawning[worker] = self._loop.create_future()
        self._exits[worker] = on_exit
        try:
            socket.send_fds(self._socket, [frame(Spawn(worker, modules))], list(descriptors))
        except OSError as error:
            del self._spawning[worker], self._exits[worker]
            raise WorkerError(f"the fork server cannot be asked for a worker: {error}") from None
        pid: int = await started
        return pid

    def _attach(self) -> None:
        """Listen to the fork server on the running loop, starting it again if it died."""
        self.start()
        if self._loop is None:
            assert self._socket is not None
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._socket.fileno(), self._receive)

    def _receive(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(RECEIVE_NBYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._forget()
            return
        for message in self._reader.split(data):
            self._handle(self._decode(message))

    def _handle(self, message: FromForkServer) -> None:
        if isinstance(message, Spawned):
            started = self._spawning.pop(message.worker)
            if (
                not started.done()
            ):  # else nobody waits any more; the worker ends when it finds its control socket closed
                started.set_result(message.pid)
            return
        assert isinstance(message, Exited)
        waiting = self._spawning.pop(message.worker, None)
        if waiting is not None and not waiting.done():
            waiting.set_exception(WorkerError("the fork server could not fork a worker; see its lines in the log"))
        self._exits.pop(message.worker)(message.status)

    def _forget(self) -> None:
        """The fork server is gone, and its workers with it: tell whoever waits."""
        if self._socket is not None:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
        self._socket, self._loop, self._reader = None, None, FrameReader()
        spawning, self._spawning = self._spawning, {}
        exits, self._exits = self._exits, {}
        for started in spawning.values():
            if not started.done():
                started.set_exception(WorkerError("the fork server died before it could start a worker"))
        for on_exit in exits.values():
            on_exit(-9)

    def close(self) -> None:
        """End the fork server; workers that still run die with it."""
        self._forget()
        self._end_process()

    def _end_process(self) -> None:
        """The fork server ends by itself when its socket is closed, unless it is stuck in an import."""
        if self._process is None:
            return
        try:
            self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
