"""The client of the ``redis`` package as the response cache needs it, imported when there is such a cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shoal.caching.settings import RedisSettings, TlsSettings
from shoal.errors import UnavailableError

if TYPE_CHECKING:
    from redis.asyncio import Redis

MISSING = "--cache-config redis needs the package 'redis', which is not installed: run pip install 'shoal[redis]'"


def check_installed() -> None:
    """Check that the package is there.

    Raises:
        UnavailableError: it is not.
    """
    try:
        import redis.asyncio  # noqa: F401, PLC0415 - only where there is a Redis cache
    except ImportError as error:
        raise UnavailableError(MISSING) from error


def make_client(settings: RedisSettings) -> Redis:
    """A client with a pool of connections, none of which is open yet. It tries nothing twice: a failure is a miss."""
    from redis.asyncio import Redis  # noqa: PLC0415 - only where there is a Redis cache
    from redis.asyncio.connection import Connection, ConnectionPool  # noqa: PLC0415
    from redis.asyncio.retry import Retry  # noqa: PLC0415
    from redis.backoff import NoBackoff  # noqa: PLC0415

    options: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "username": settings.user or None,
        "password": settings.password or None,
        "db": settings.db,
        "socket_connect_timeout": settings.connect_timeout_s,
        "socket_timeout": settings.socket_timeout_s,
        "socket_keepalive": True,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "connection_class": Connection if settings.tls is None else _tls_connection(settings.tls),
    }
    if settings.tls is not None:
        options |= _tls_options(settings.tls)
    pool = ConnectionPool(max_connections=settings.pool_size + 1, **options)  # one more for the probe
    return Redis.from_pool(pool)


def _tls_options(tls: TlsSettings) -> dict[str, Any]:
    return {
        "ssl_certfile": tls.cert or None,
        "ssl_keyfile": tls.key or tls.cert or None,
        "ssl_ca_certs": tls.cacert or None,
        "ssl_ca_path": tls.cacert_dir or None,
        "ssl_check_hostname": True,
    }


def _tls_connection(tls: TlsSettings) -> type[Any]:
    """A connection with TLS that asks for the name that is set; the package itself asks for the host's."""
    from redis.asyncio.connection import SSLConnection  # noqa: PLC0415 - only where there is a Redis cache

    if not tls.sni:
        return SSLConnection

    class NamedSSLConnection(SSLConnection):
        def _connection_arguments(self) -> dict[str, Any]:
            return {**super()._connection_arguments(), "server_hostname": tls.sni}

    return NamedSSLConnection
