"""The access log's lines, from what the transports and requests know."""

from __future__ import annotations

import time

from shoal.observe import logs
from shoal.requests import InferHead
from shoal.transport.handler import GrpcCall, HttpExchange


def log_http(exchange: HttpExchange, status: int, nbytes: int, arrival_ns: int, *, model: str, request_id: str) -> None:
    """Write the line of one HTTP request.

    Args:
        exchange: the request, answered.
        status: the answer's status.
        nbytes: the answer's length.
        arrival_ns: when the request had arrived (monotonic).
        model: the model that it is about, "" for none.
        request_id: the client's id, "" for none.
    """
    logs.access(
        protocol="http",
        peer=exchange.peer,
        method=exchange.head.method,
        target=exchange.head.target,
        status=status,
        nbytes=nbytes,
        duration_us=(time.monotonic_ns() - arrival_ns) // 1000,
        model=model,
        request_id=request_id,
    )


def log_grpc(call: GrpcCall, code: int, nbytes: int, arrival_ns: int, head: InferHead | None = None) -> None:
    """Write the line of one gRPC request.

    Args:
        call: the request, or the stream that it came in.
        code: the answer's gRPC status.
        nbytes: the answer's length.
        arrival_ns: when the request had arrived (monotonic).
        head: what it says, when it could be decoded and is for a model.
    """
    logs.access(
        protocol="grpc",
        peer=call.peer,
        method="POST",
        target=call.path,
        status=code,
        nbytes=nbytes,
        duration_us=(time.monotonic_ns() - arrival_ns) // 1000,
        model=head.model_name if head else "",
        request_id=head.request_id if head else "",
    )
