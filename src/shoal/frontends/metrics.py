"""The metrics page over HTTP, on a port of its own or beside the v2 protocol on a shared one."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable, Mapping

from shoal.caching.contract import LocalCacheStatistics, RemoteCacheStatistics
from shoal.observe.metrics import CONTENT_TYPE, Metrics
from shoal.observe.source import ModelSample, ProcessSample, Role
from shoal.server import Server
from shoal.transport.handler import HttpExchange, HttpHandler, RequestHead
from shoal.transport.listener import Listener

PATH = "/metrics"
PAGE_HEADERS = f"Content-Type: {CONTENT_TYPE}\r\n".encode()
ERROR_HEADERS = b"Content-Type: application/json\r\n"

log = logging.getLogger("shoal.metrics")


class MetricsFrontend:
    """Serves ``/metrics`` (a ``transport.handler.HttpHandler``).

    Args:
        metrics: what makes the page.
        others: serves every other path; None for 404.
    """

    def __init__(self, metrics: Metrics, others: HttpHandler | None = None) -> None:
        self._metrics = metrics
        self._others = others

    def request(self, exchange: HttpExchange) -> None:
        """Answer a request for the page, or pass it on."""
        if exchange.head.path != PATH:
            if self._others is not None:
                self._others.request(exchange)
            else:
                exchange.respond(404, ERROR_HEADERS, [b'{"error":"Not Found"}'])
        elif exchange.head.method != "GET":
            exchange.respond(405, ERROR_HEADERS + b"Allow: GET\r\n", [b'{"error":"Method Not Allowed"}'])
        else:
            self._respond(exchange)

    def _respond(self, exchange: HttpExchange) -> None:
        """Make the page on another thread: with hundreds of models it takes milliseconds."""
        exchange.context = self
        page = asyncio.get_running_loop().run_in_executor(None, self._metrics.render, self._metrics.snapshot())
        page.add_done_callback(lambda done: self._send(exchange, done))

    def _send(self, exchange: HttpExchange, page: asyncio.Future[bytes]) -> None:
        if exchange.context is not self:  # the client went away meanwhile
            return
        exchange.context = None
        if page.exception() is None:
            exchange.respond(200, PAGE_HEADERS, [page.result()])
        else:
            log.error("the metrics page could not be made", exc_info=page.exception())
            exchange.respond(500, ERROR_HEADERS, [b'{"error":"the metrics page could not be made; see the log"}'])

    def body_buffer(self, head: RequestHead, nbytes: int) -> memoryview | None:
        """Where to receive a large body."""
        return None if self._others is None else self._others.body_buffer(head, nbytes)

    def disconnected(self, exchange: HttpExchange) -> None:
        """The client is gone."""
        if exchange.context is self:
            exchange.context = None
        elif self._others is not None:
            self._others.disconnected(exchange)


class ServerSource:
    """What the metrics page shows of a server (an ``observe.source.MetricsSource``)."""

    def __init__(self, server: Server, listeners: Mapping[str, Listener]) -> None:
        self._server = server
        self._listeners = listeners

    def models(self) -> Iterable[ModelSample]:
        """Every model version that is loaded."""
        for served in self._server.served():
            runtime = served.runtime
            yield ModelSample(
                spec=served.spec,
                statistics=self._server.model_statistics(served.spec),
                queue=runtime.queue_statistics(),
                load_seconds=served.load_s,
                instances=sum(len(group.channels) for group in runtime.groups if group.up),
                worker_restarts=sum(group.restarts for group in runtime.groups),
            )

    def processes(self) -> Iterable[ProcessSample]:
        """The server's own process and those that it started."""
        yield ProcessSample(os.getpid(), Role.SERVER)
        if self._server.client.pid is not None:
            yield ProcessSample(self._server.client.pid, Role.FORK_SERVER)
        for served in self._server.served():
            for group in served.runtime.groups:
                if group.pid:
                    yield ProcessSample(group.pid, Role.WORKER, served.spec.name)

    def connections(self) -> Mapping[str, int]:
        """Open connections by service."""
        return {service: listener.open_connections for service, listener in self._listeners.items()}

    def cache(self) -> LocalCacheStatistics | RemoteCacheStatistics | None:
        """What the response cache counts; None without one."""
        return self._server.cache_statistics()
