"""A server with its sockets: opens the ports that the options ask for, and stops in good order."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

from shoal.execution.fork_client import ForkClient
from shoal.frontends.grpc import GrpcFrontend
from shoal.frontends.http import HttpFrontend
from shoal.frontends.metrics import MetricsFrontend, ServerSource
from shoal.observe.metrics import Metrics, MetricsSettings
from shoal.options import ServerOptions
from shoal.server import Server, ServerSettings
from shoal.transport.connection import ConnectionContext, Limits
from shoal.transport.handler import GrpcHandler, HttpHandler
from shoal.transport.listener import Listener
from shoal.transport.tls import server_ssl_context

LAST_WORDS_S = 0.5
"""How long clients have to read their answers when the time to stop is over."""

FINALIZE_S = 2.0
"""What models have at least to finalize, even when clients used up the time to stop."""
COMPRESSION_LEVELS = {"none": 0, "low": 1, "medium": 6, "high": 9}


def server_settings(options: ServerOptions) -> ServerSettings:
    """The part of the options that is about the server itself."""
    return ServerSettings(
        repositories=[Path(repository) for repository in options.model_repository],
        name=options.server_id,
        exit_on_error=options.exit_on_error,
        strict_readiness=options.strict_readiness,
        auto_complete=options.auto_complete,
        load_threads=options.model_load_thread_count,
        load_retries=options.model_load_retry_count,
        execution_timeout_s=options.execution_timeout,
        backend_settings=options.backend_settings(),
        rate_limits=options.rate_limits,
        max_queued_requests=options.max_queued_requests,
        max_queued_nbytes=options.max_queued_nbytes,
        cache=options.cache_settings(),
    )


class Serving:
    """A server and its listeners, by service: ``http``, ``grpc`` and ``metrics``, or ``all`` on one port.

    Attributes:
        server: the server.
        listeners: what is open.
    """

    def __init__(self, options: ServerOptions, client: ForkClient | None = None) -> None:
        self.server = Server(server_settings(options), client)
        self.listeners: dict[str, Listener] = {}
        self._options = options
        self._at_stop: list[Callable[[], None]] = []

    async def start(self) -> None:
        """Open the ports, then load the models; until they are loaded the server says that it is not ready.

        Raises:
            ShoalError: a port cannot be opened or a model not be loaded; everything is closed again.
        """
        try:
            self.listeners |= self._make_listeners()
            for listener in self.listeners.values():
                await listener.start()
            await self.server.start()
        except BaseException:
            await self._close_listeners(0.0)
            await self.server.stop(0.0)
            raise

    async def stop(self, timeout_s: float) -> bool:
        """Take no more connections, answer what is in flight, stop the models.

        Args:
            timeout_s: how long all of it may take; what is not answered then is refused.

        Returns:
            Whether every request was answered in time.
        """
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        self.server.refuse_readiness()
        for listener in self.listeners.values():
            listener.stop_accepting()
        for end in self._at_stop:
            end()
        clean = await self.server.drain(timeout_s)
        if not clean:
            await self.server.stop(0.0)  # those who still wait are told, before their connections are closed
        clean &= await self._close_listeners(max(LAST_WORDS_S, deadline_s - loop.time()))
        await self.server.stop(max(FINALIZE_S, deadline_s - loop.time()))
        return clean

    async def _close_listeners(self, timeout_s: float) -> bool:
        closed = await asyncio.gather(*(listener.stop(timeout_s) for listener in self.listeners.values()))
        return all(closed)

    # --- which ports there are --------------------------------------------------------------------------------------

    def _make_listeners(self) -> dict[str, Listener]:
        options = self._options
        http = HttpFrontend(
            self.server, options.http_max_input_size, options.http_header_forward_pattern, access_log=options.access_log
        )
        grpc = GrpcFrontend(
            self.server,
            options.grpc_header_forward_pattern,
            COMPRESSION_LEVELS[options.grpc_infer_response_compression_level],
            access_log=options.access_log,
        )
        self._at_stop.append(grpc.end_streams)
        metrics = Metrics(
            ServerSource(self.server, self.listeners),
            MetricsSettings(options.allow_cpu_metrics, options.metrics_interval_ms),
        )
        if options.port is not None:
            return {"all": self._shared_port(http, grpc, metrics)}
        return self._separate_ports(http, grpc, metrics)

    def _shared_port(self, http: HttpFrontend, grpc: GrpcFrontend, metrics: Metrics) -> Listener:
        options = self._options
        handler = MetricsFrontend(metrics, http) if options.allow_metrics else http
        assert options.port is not None
        return Listener(
            self._context(handler, grpc),
            options.http_address,
            options.port,
            ssl_context=self._http_tls(),
            reuse_port=options.reuse_http_port,
        )

    def _separate_ports(self, http: HttpFrontend, grpc: GrpcFrontend, metrics: Metrics) -> dict[str, Listener]:
        options = self._options
        listeners = {}
        if options.allow_http:
            listeners["http"] = Listener(
                self._context(http, None),
                options.http_address,
                options.http_port,
                ssl_context=self._http_tls(),
                reuse_port=options.reuse_http_port,
            )
        if options.allow_grpc:
            listeners["grpc"] = Listener(
                self._context(None, grpc),
                options.grpc_address,
                options.grpc_port,
                ssl_context=self._grpc_tls(),
                reuse_port=options.reuse_grpc_port,
            )
        if options.allow_metrics:
            page = self._context(MetricsFrontend(metrics), None)
            listeners["metrics"] = Listener(page, options.metrics_host, options.metrics_port)
        return listeners

    def _context(self, http: HttpHandler | None, grpc: GrpcHandler | None) -> ConnectionContext:
        limits = Limits(body_nbytes=self._options.http_max_input_size)
        return ConnectionContext(asyncio.get_running_loop(), http, grpc, limits)

    def _http_tls(self) -> ssl.SSLContext | None:
        options = self._options
        if not options.http_use_ssl:
            return None
        root = Path(options.http_root_cert) if options.http_root_cert else None
        return server_ssl_context(Path(options.http_server_cert), Path(options.http_server_key), root)

    def _grpc_tls(self) -> ssl.SSLContext | None:
        options = self._options
        if not options.grpc_tls:
            return None
        root = Path(options.grpc_root_cert) if options.grpc_use_ssl_mutual else None
        return server_ssl_context(Path(options.grpc_server_cert), Path(options.grpc_server_key), root, http1=False)
