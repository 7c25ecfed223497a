"""TLS for a listener: certificate, key, and the authority that client certificates must come from."""

from __future__ import annotations

import ssl
from pathlib import Path

from shoal.errors import InvalidArgumentError

HTTP1 = "http/1.1"
HTTP2 = "h2"


def server_ssl_context(
    certificate: Path, key: Path, client_ca: Path | None = None, *, http1: bool = True
) -> ssl.SSLContext:
    """TLS 1.2 and up, with the protocol chosen by ALPN (RFC 7301).

    Args:
        certificate: the server's certificate chain, PEM.
        key: its private key, PEM, not encrypted.
        client_ca: the authorities that client certificates must come from, PEM; None to ask for none (mutual TLS).
        http1: whether the port serves HTTP/1.1 besides HTTP/2.

    Raises:
        InvalidArgumentError: a file is missing, no PEM, or the key belongs to another certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols([HTTP2, HTTP1] if http1 else [HTTP2])
    _load_certificate(context, certificate, key)
    if client_ca is not None:
        _require_client_certificates(context, client_ca)
    return context


def _load_certificate(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    _check_readable(certificate, "certificate")
    _check_readable(key, "private key")

    def refuse_password() -> str:
        raise InvalidArgumentError(f"the TLS private key '{key}' is encrypted; give one without a passphrase")

    try:
        context.load_cert_chain(certificate, key, refuse_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            message = f"the TLS private key '{key}' does not belong to the certificate '{certificate}'"
        else:
            message = (
                f"the TLS certificate '{certificate}' or its private key '{key}' is not a valid PEM file ({error})"
            )
        raise InvalidArgumentError(message) from None


def _require_client_certificates(context: ssl.SSLContext, client_ca: Path) -> None:
    _check_readable(client_ca, "certificate authority")
    try:
        context.load_verify_locations(client_ca)
    except ssl.SSLError as error:
        raise InvalidArgumentError(
            f"the TLS certificate authority '{client_ca}' is not a valid PEM file ({error})"
        ) from None
    context.verify_mode = ssl.CERT_REQUIRED


def _check_readable(path: Path, what: str) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise InvalidArgumentError(f"the TLS {what} file '{path}' cannot be read: {error.strerror}") from None
