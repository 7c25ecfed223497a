"""Starts ``shoal serve`` as a child process on free ports, and stops it again."""

import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

READY_WITHIN_S = 30
STOPPED_WITHIN_S = 15
POLL_EVERY_S = 0.02
LAST_LINES = 20
SHOAL = [str(Path(sys.executable).with_name("shoal")), "serve"]


class DemoServerError(Exception):
    """The server did not come up, or did not go down; the message ends with its last lines."""


class DemoServer:
    """A server on three free ports of the loopback interface: ``with DemoServer(models) as server: ...``.

    Attributes:
        http_port: where it speaks HTTP.
        grpc_port: where it speaks gRPC.
        metrics_port: where ``/metrics`` is.
        ready_s: the seconds from start to ready.
    """

    def __init__(self, model_repository: Path, command: list[str] | None = None) -> None:
        self.http_port, self.grpc_port, self.metrics_port = free_ports(3)
        ports = [f"--{name}-port={getattr(self, name + '_port')}" for name in ("http", "grpc", "metrics")]
        addresses = [f"--{name}-address=127.0.0.1" for name in ("http", "grpc", "metrics")]
        self.command = [*(command or SHOAL), f"--model-repository={model_repository}", *ports, *addresses]
        self.ready_s = 0.0

    def __enter__(self) -> "DemoServer":
        with ExitStack() as stack:
            self._log = stack.enter_context(tempfile.TemporaryFile("w+", errors="replace"))
            started = time.monotonic()
            self._process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT
            )
            stack.callback(self._stop)
            while not self._is_ready():
                self._check(time.monotonic() - started)
                time.sleep(POLL_EVERY_S)
            self.ready_s = time.monotonic() - started
            self._cleanup = stack.pop_all()
        return self

    def __exit__(self, *failure: object) -> None:
        self._cleanup.close()

    def get(self, path: str, port: int | None = None) -> str:
        """The body at ``path`` of the HTTP port, or of another."""
        with urllib.request.urlopen(f"http://127.0.0.1:{port or self.http_port}{path}", timeout=10) as reply:
            return reply.read().decode()

    def _is_ready(self) -> bool:
        try:
            self.get("/v2/health/ready")
        except (OSError, urllib.error.URLError):
            return False
        return True

    def _check(self, waited_s: float) -> None:
        if self._process.poll() is not None:
            raise DemoServerError(f"the server ended with status {self._process.returncode}.{self._last_lines()}")
        if waited_s > READY_WITHIN_S:
            raise DemoServerError(f"the server was not ready after {READY_WITHIN_S} s.{self._last_lines()}")

    def _stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOPPED_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise DemoServerError(
                f"the server did not stop within {STOPPED_WITHIN_S} s of SIGTERM.{self._last_lines()}"
            ) from None

    def _last_lines(self) -> str:
        self._log.seek(0)
        lines = self._log.read().splitlines()[-LAST_LINES:]
        return "\n".join([" Its last lines:", *lines] if lines else [" It printed nothing."])


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, from the operating system."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports
