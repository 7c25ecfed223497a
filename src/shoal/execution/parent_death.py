"""Makes a process die with the one that started it, so that no worker outlives its server."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import threading

PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent dies (Linux; ``prctl(2)``).

    Args:
        parent: the process id that the parent should have: if it is gone already, this process ends here.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def exit_when_closed(lifeline: socket.socket) -> None:
    """End this process at once when the other end of a socket closes, for systems without a parent death signal."""

    def wait() -> None:
        while lifeline.recv(1):
            pass
        os._exit(1)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()
