"""The fork server: a small process that has imported what workers need and forks one in milliseconds.

``python -m shoal.execution.forkserver FD`` serves the socket ``FD``. It has one thread and loads no model, so forking
it is safe. It runs in a session of its own: a Ctrl-C in the terminal or a signal to the server's process group reaches
neither it nor a worker, which live until the server tells them to go or is gone itself.
"""

from __future__ import annotations

import gc
import importlib
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from shoal.execution.messages import Exited, FrameReader, Spawn, Spawned, frame
from shoal.execution.parent_death import die_with_parent
from shoal.execution.worker import run_worker

WORKER_DESCRIPTORS = 3
"""What comes along with ``Spawn``: the control socket, the log pipe, the arena."""
MESSAGE_NBYTES = 64 * 1024


class ForkServer:
    """Reads ``Spawn`` messages, forks workers, and reports the end of each."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._decode = msgspec.msgpack.Decoder(Spawn).decode
        self._reader = FrameReader()
        self._workers: dict[int, int] = {}
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        os.set_blocking(self._wake_read, False)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def serve(self) -> None:
        """Serve until the server closes its end."""
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if self._wake_read in ready:
                with suppress(BlockingIOError):
                    os.read(self._wake_read, MESSAGE_NBYTES)
                self._reap()
            if self._connection.fileno() in ready and not self._receive():
                return

    def _receive(self) -> bool:
        data, descriptors, _, _ = socket.recv_fds(self._connection, MESSAGE_NBYTES, WORKER_DESCRIPTORS)
        if not data:
            return False
        for message in self._reader.split(data):
            self._spawn(self._decode(message), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        return True

    def _spawn(self, message: Spawn, descriptors: Sequence[int]) -> None:
        for module in message.modules:
            with suppress(Exception):  # the worker imports it again and says why it cannot
                importlib.import_module(module)
        gc.freeze()  # collections in the children then leave these pages alone, which stay shared
        server = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            sys.stderr.write(f"cannot fork a worker: {error}\n")
            self._connection.sendall(frame(Exited(message.worker, 1)))
            return
        if pid == 0:
            self._become_worker(server, descriptors)
        self._workers[pid] = message.worker
        self._connection.sendall(frame(Spawned(message.worker, pid)))

    def _become_worker(self, parent: int, descriptors: Sequence[int]) -> None:
        """Turn the forked child into a worker; never returns."""
        status = 1
        try:
            die_with_parent(parent)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for descriptor in (self._connection.fileno(), self._wake_read, self._wake_write):
                os.close(descriptor)
            control, log, arena = descriptors
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.close(log)
            status = run_worker(socket.socket(fileno=control), arena)
        finally:
            with suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            worker = self._workers.pop(pid)
            self._connection.sendall(frame(Exited(worker, os.waitstatus_to_exitcode(status))))


def main() -> None:
    """Serve the socket whose number is the first argument; the second is the server's process id."""
    die_with_parent(int(sys.argv[2]))
    os.setsid()
    connection = socket.socket(fileno=int(sys.argv[1]))
    ForkServer(connection).serve()


if __name__ == "__main__":
    main()
