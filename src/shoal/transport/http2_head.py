"""The head of a request over HTTP/2: validated fields, and what they say of the call (RFC 9113 section 8)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from urllib.parse import unquote

from shoal.transport import grpc_codec
from shoal.transport.connection import Limits
from shoal.transport.handler import RequestHead

_NAME = re.compile(rb"[!-9;-@\[-~]+").fullmatch
_BAD_VALUE = re.compile(rb"[\0\r\n]|^[ \t]|[ \t]$").search
_CONNECTION_SPECIFIC = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}
_REQUIRED = (":method", ":scheme", ":path")
_PSEUDO = {*_REQUIRED, ":authority"}
_DIGITS = re.compile(r"[0-9]{1,18}").fullmatch


class MalformedError(Exception):
    """The header list breaks a rule of RFC 9113 section 8, which ends the stream with PROTOCOL_ERROR."""


class Http2Head(RequestHead):
    """A request head with what gRPC needs of it; shared by all requests with the same header block, so never changed.

    Attributes:
        fields: how many header fields there are.
        list_nbytes: their length together as SETTINGS_MAX_HEADER_LIST_SIZE counts it.
        grpc: whether it is a POST whose content type is gRPC's.
        metadata: the headers with ``-bin`` values decoded; for a gRPC call.
        timeout_s: the client's time limit from ``grpc-timeout``; None when there is none.
        refusal: why a gRPC call cannot be served, as (code, message); None when it can.
        encoding: how the client's messages are compressed.
        accepts: the compression that the client understands and we would use; empty for none.
    """

    __slots__ = ("accepts", "encoding", "fields", "grpc", "list_nbytes", "metadata", "refusal", "timeout_s")

    def __init__(self, method: str, target: str, headers: dict[str, str], fields: int, list_nbytes: int) -> None:
        path = target.partition("#")[0].partition("?")[0]
        super().__init__(method, target, path, headers, _content_length(headers))
        self.fields = fields
        self.list_nbytes = list_nbytes
        self.grpc = method == "POST" and grpc_codec.is_grpc(headers.get("content-type", ""))
        self.metadata: dict[str, str | bytes] = {}
        self.timeout_s: float | None = None
        self.refusal: tuple[int, str] | None = None
        self.encoding = ""
        self.accepts = ""
        if self.grpc:
            self._read_grpc()
        else:
            self.path = unquote(path)

    def too_long(self, limits: Limits) -> bool:
        """Whether there are more headers than a client may send."""
        return self.list_nbytes > limits.head_nbytes or self.fields > limits.header_count

    def complaint(self, limits: Limits) -> str:
        """What ``too_long`` finds wrong, for the client."""
        return (
            f"the request has {self.fields} headers of {self.list_nbytes} bytes; "
            f"the limits are {limits.header_count} and {limits.head_nbytes}"
        )

    def _read_grpc(self) -> None:
        headers = self.headers
        self.encoding = headers.get("grpc-encoding", "identity")
        self.accepts = grpc_codec.response_encoding(headers.get("grpc-accept-encoding", ""))
        try:
            self.metadata = grpc_codec.decode_metadata(headers)
            timeout = headers.get("grpc-timeout")
            if timeout is not None:
                self.timeout_s = grpc_codec.parse_timeout(timeout)
        except ValueError as error:
            self.refusal = (grpc_codec.INTERNAL, str(error))
        if self.encoding not in grpc_codec.ENCODINGS:
            self.refusal = (grpc_codec.UNIMPLEMENTED, f"compression '{self.encoding}' is not supported; {_SUPPORTED}")


_SUPPORTED = f"use one of: {grpc_codec.ACCEPT_ENCODING}"


def read_head(fields: Sequence[tuple[bytes, bytes]]) -> Http2Head:
    """The head that a request's header list describes: name and value of each field, in their order.

    Raises:
        MalformedError: the list breaks a rule.
    """
    pseudo: dict[str, str] = {}
    headers: dict[str, str] = {}
    for raw_name, raw_value in fields:
        if raw_name[:1] == b":":
            if headers:
                raise MalformedError("a pseudo-header stands behind a regular header")
            _add_pseudo(pseudo, raw_name, raw_value)
        else:
            add_header(headers, raw_name, raw_value)
    _check_pseudo(pseudo, headers)
    authority = pseudo.get(":authority")
    list_nbytes = 32 * len(fields) + sum([len(name) + len(value) for name, value in fields])
    head = Http2Head(pseudo[":method"], pseudo.get(":path", authority or ""), headers, len(fields), list_nbytes)
    if authority is not None and not head.grpc:
        headers.setdefault("host", authority)
    return head


def read_trailers(fields: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """The client's trailers, checked.

    Raises:
        MalformedError: a field is not allowed in trailers.
    """
    trailers: dict[str, str] = {}
    for raw_name, raw_value in fields:
        add_header(trailers, raw_name, raw_value)
    return trailers


def _add_pseudo(pseudo: dict[str, str], raw_name: bytes, raw_value: bytes) -> None:
    name = raw_name.decode("latin-1")
    if name not in _PSEUDO:
        raise MalformedError(f"unknown pseudo-header '{name}' in a request")
    if name in pseudo:
        raise MalformedError(f"pseudo-header '{name}' stands twice")
    if _BAD_VALUE(raw_value):
        raise MalformedError(f"the value of '{name}' holds a forbidden character")
    pseudo[name] = raw_value.decode("latin-1")


def add_header(headers: dict[str, str], raw_name: bytes, raw_value: bytes) -> None:
    """Add a regular field; a repeated one is joined to the first.

    Raises:
        MalformedError: the field is not allowed in HTTP/2 (RFC 9113 section 8.2).
    """
    if not _NAME(raw_name):
        raise MalformedError(f"header name {raw_name!r} is not allowed")
    if _BAD_VALUE(raw_value):
        raise MalformedError(f"the value of {raw_name!r} holds a forbidden character")
    name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
    if name in _CONNECTION_SPECIFIC or (name == "te" and value != "trailers"):
        raise MalformedError(f"header '{name}: {value}' belongs to an HTTP/1.1 connection")
    known = headers.get(name)
    if known is not None:
        value = f"{known}{'; ' if name == 'cookie' else ', '}{value}"
    headers[name] = value


def _check_pseudo(pseudo: dict[str, str], headers: dict[str, str]) -> None:
    """Raise unless the pseudo-headers make a request (RFC 9113 section 8.3.1 and, for CONNECT, 8.5)."""
    if pseudo.get(":method") == "CONNECT":
        if ":scheme" in pseudo or ":path" in pseudo or not pseudo.get(":authority"):
            raise MalformedError("CONNECT takes ':authority' and neither ':scheme' nor ':path'")
        return
    missing = [name for name in _REQUIRED if not pseudo.get(name)]
    if missing:
        raise MalformedError(f"pseudo-header '{missing[0]}' is missing or empty")
    path = pseudo[":path"]
    if path[0] != "/" and not (path == "*" and pseudo[":method"] == "OPTIONS"):
        raise MalformedError("':path' must begin with '/'")
    authority, host = pseudo.get(":authority"), headers.get("host")
    if authority is not None and host is not None and authority.lower() != host.lower():
        raise MalformedError("':authority' and 'host' name different servers")


def _content_length(headers: dict[str, str]) -> int | None:
    value = headers.get("content-length")
    if value is None:
        return None
    first, *others = [item.strip() for item in value.split(",")]
    if not _DIGITS(first) or any(other != first for other in others):
        raise MalformedError(f"content-length '{value}' is not a number")
    return int(first)
