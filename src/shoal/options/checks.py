"""What options must be together, whichever way each of them was given."""

from __future__ import annotations

from itertools import combinations

from shoal.errors import InvalidArgumentError
from shoal.options.declare import OptionError
from shoal.options.server import ServerOptions

_WILDCARDS = {"", "0.0.0.0", "::", "*"}  # noqa: S104 - compared with, not bound to

_TWO_CACHES = (
    "Incompatible flags --response-cache-byte-size and --cache-config both provided. Please provide one or the other."
)
"""Triton's words."""


def check_options(options: ServerOptions) -> None:
    """Check what no option can be checked for by itself.

    Raises:
        OptionError: with one line per problem.
    """
    problems = [*_no_repository(options), *_same_ports(options), *_tls(options), *_cache(options)]
    if problems:
        raise OptionError("\n".join(problems))


def _no_repository(options: ServerOptions) -> list[str]:
    if options.model_repository:
        return []
    return ["--model-repository must be specified: the folder with the models to serve"]


def _cache(options: ServerOptions) -> list[str]:
    if options.cache_config and options.response_cache_byte_size is not None:
        return [_TWO_CACHES]
    try:
        options.cache_settings()
    except InvalidArgumentError as error:
        return [error.message]
    return []


def _same_ports(options: ServerOptions) -> list[str]:
    if options.port is not None:
        return []
    services = [
        ("HTTP", "http", options.allow_http, options.http_address, options.http_port),
        ("GRPC", "grpc", options.allow_grpc, options.grpc_address, options.grpc_port),
        ("metrics", "metrics", options.allow_metrics, options.metrics_host, options.metrics_port),
    ]
    problems = []
    for one, other in combinations([service for service in services if service[2]], 2):
        (name, word, _, address, port), (other_name, other_word, _, other_address, other_port) = one, other
        if port == other_port != 0 and (address == other_address or {address, other_address} & _WILDCARDS):
            problems.append(
                f"The server cannot listen to {name} requests and {other_name} requests at the same address and port "
                f"{address}:{port}; change --{word}-port or --{other_word}-port, or serve all on one with --port"
            )
    return problems


def _tls(options: ServerOptions) -> list[str]:
    problems = []
    if options.port is not None and options.grpc_tls:
        problems.append("--grpc-use-ssl does not go with --port: the one port has the TLS of --http-use-ssl")
    uses = [
        ("http", "use-ssl", options.http_use_ssl, options.http_server_cert, options.http_server_key),
        ("grpc", "use-ssl", options.grpc_tls, options.grpc_server_cert, options.grpc_server_key),
    ]
    problems += [
        f"--{word}-{flag} needs --{word}-server-cert and --{word}-server-key"
        for word, flag, used, certificate, key in uses
        if used and not (certificate and key)
    ]
    if options.grpc_use_ssl_mutual and not options.grpc_root_cert:
        problems.append("--grpc-use-ssl-mutual needs --grpc-root-cert")
    return problems
