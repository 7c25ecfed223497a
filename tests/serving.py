"""Runs ``shoal serve`` as a user would, as a process of its own, and tells where it listens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

import psutil

START_TIMEOUT_S = 60


class ShoalProcess:
    """``shoal serve`` on free ports; a context manager.

    Attributes:
        process: the process.
        ports: the port of each service, once it is ready.
        records: its log so far, line by line.
    """

    def __init__(self, repository: Path, *options: str, environment: dict[str, str] | None = None) -> None:
        ports = [] if any(option.startswith("--port") for option in options) else [
            "--http-port=0", "--grpc-port=0", "--metrics-port=0",
        ]  # fmt: skip
        command = [sys.executable, "-m", "shoal", "serve", "--model-repository", str(repository), "--log-format=json"]
        self.process = subprocess.Popen(
            [*command, *ports, *options],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self.ports: dict[str, int] = {}
        self.records: list[dict] = []
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                record = json.loads(line)
            except ValueError:
                record = {"message": line.rstrip()}
            self.records.append(record)
            if "address" in record:
                self.ports[record["service"]] = int(record["address"].rpartition(":")[2])
            if record.get("message") == "ready" or "started, but not ready" in record.get("message", ""):
                self._ready.set()
        self._ready.set()

    def __enter__(self) -> Self:
        if self._ready.wait(START_TIMEOUT_S) and self.ports:
            return self
        self.__exit__()
        raise AssertionError(self.log())

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        self._reader.join(10)
        assert self.process.stderr is not None
        self.process.stderr.close()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and give the exit status."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end and give the exit status."""
        status = self.process.wait(START_TIMEOUT_S)
        self._reader.join(10)
        return status

    def processes(self) -> list[psutil.Process]:
        """The server's process and all below it."""
        process = psutil.Process(self.process.pid)
        return [process, *process.children(recursive=True)]

    def log(self) -> str:
        """The messages so far."""
        return "\n".join(str(record.get("message")) for record in self.records)

    @property
    def http(self) -> str:
        """Where HTTP is served, as host and port."""
        return f"127.0.0.1:{self.ports.get('HTTP') or self.ports['HTTP, gRPC and metrics']}"

    @property
    def grpc(self) -> str:
        """Where gRPC is served, as host and port."""
        return f"127.0.0.1:{self.ports.get('gRPC') or self.ports['HTTP, gRPC and metrics']}"

    @property
    def metrics(self) -> str:
        """Where the metrics are served, as host and port."""
        return f"127.0.0.1:{self.ports.get('metrics') or self.ports['HTTP, gRPC and metrics']}"
