"""A server with its listeners on a thread of this process, so that a test can look into it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import uvloop

from shoal.execution.runtime import ModelRuntime
from shoal.frontends.serving import Serving
from shoal.options import ServerOptions

START_TIMEOUT_S = 60


class ServingThread:
    """``Serving`` on free ports; a context manager.

    Attributes:
        serving: the server and its listeners; to be touched on its own thread only, through ``call``.
    """

    def __init__(self, repository: Path, **options: object) -> None:
        ports = {"http_port": 0, "grpc_port": 0, "metrics_port": 0, "http_address": "127.0.0.1"}
        self._options = ServerOptions(model_repository=(str(repository),), **(ports | options))  # type: ignore[arg-type]
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.serving: Serving

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._start())
        return self

    async def _start(self) -> None:
        self.serving = Serving(self._options)
        await self.serving.start()

    def __exit__(self, *_: object) -> None:
        try:
            self._run(self.serving.stop(10.0))
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(START_TIMEOUT_S)

    def call(self, function: Callable[[], Any]) -> Any:
        """Call a function on the server's thread and give its result."""

        async def work() -> Any:
            return function()

        return self._run(work())

    def address(self, service: str) -> str:
        """Where a service is, as host and port."""
        return f"127.0.0.1:{self.serving.listeners[service].port}"

    @property
    def http(self) -> str:
        """Where HTTP is served."""
        return self.address("http")

    @property
    def grpc(self) -> str:
        """Where gRPC is served."""
        return self.address("grpc")

    def runtime(self, model: str) -> ModelRuntime:
        """What runs a model."""
        return self.serving.server.catalog.find(model).runtime

    def used_nbytes(self, model: str) -> int:
        """Shared memory of a model that is in use."""
        return int(self.call(lambda: self.runtime(model).arena.used_nbytes))

    def waiting(self, model: str) -> int:
        """Requests of a model that wait in its queue."""
        return int(self.call(lambda: self.runtime(model).scheduler.statistics().requests))

    def connections(self) -> int:
        """Open connections of all services."""
        return int(self.call(lambda: sum(one.open_connections for one in self.serving.listeners.values())))
