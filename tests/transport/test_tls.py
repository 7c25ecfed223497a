"""TLS: ALPN, client certificates, and what is said about files that do not fit."""

import socket
import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from shoal.errors import InvalidArgumentError
from shoal.transport import listener as listener_module
from shoal.transport.http1 import LINGER_TIMEOUT_S
from shoal.transport.listener import HTTP2_PREFACE
from shoal.transport.tls import server_ssl_context
from tests.transport.http1_support import RawClient, Server, serve
from tests.transport.test_listener import FakeHttp2


class Files:
    """A certificate authority, a server certificate and a client certificate, as files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.ca = self._write("ca.pem", self.authority.cert_pem)
        issued = self.authority.issue_cert("127.0.0.1")
        self.certificate = self._write("server.pem", *issued.cert_chain_pems)
        self.key = self._write("server.key", issued.private_key_pem)
        self.client = self.authority.issue_cert("client@example.org")

    def _write(self, name: str, *blobs: trustme.Blob) -> Path:
        path = self.folder / name
        path.write_bytes(b"".join(blob.bytes() for blob in blobs))
        return path

    def context(self, client_ca: Path | None = None) -> ssl.SSLContext:
        return server_ssl_context(self.certificate, self.key, client_ca)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("tls"))


def connect(server: Server, files: Files, *, alpn: tuple[str, ...] = (), client_certificate: bool = False) -> RawClient:
    context = ssl.create_default_context(cafile=str(files.ca))
    if alpn:
        context.set_alpn_protocols(alpn)
    if client_certificate:
        files.client.configure_cert(context)
    raw = socket.create_connection(("127.0.0.1", server.port), 20)
    return RawClient(context.wrap_socket(raw, server_hostname="127.0.0.1"))


@pytest.mark.parametrize("alpn", [(), ("http/1.1",), ("h2", "http/1.1"), ("h2",)])
def test_alpn_chooses_the_protocol(
    loop_kind: str, files: Files, alpn: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 7301; without ALPN the first bytes decide."""
    monkeypatch.setattr(listener_module, "_http2_connection", FakeHttp2)
    with serve(loop_kind, ssl_context=files.context()) as server, connect(server, files, alpn=alpn) as client:
        if "h2" in alpn:
            client.send(b"frames")
            assert client._exactly(6) == b"frames"
        else:
            client.send(b"GET / HTTP/1.1\r\n\r\n")
            assert client.response().status == 200


def test_http2_by_its_preface_under_tls(loop_kind: str, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_module, "_http2_connection", FakeHttp2)
    with serve(loop_kind, ssl_context=files.context()) as server, connect(server, files) as client:
        client.send(HTTP2_PREFACE)
        assert client._exactly(24) == HTTP2_PREFACE


def test_requests_and_large_bodies(loop_kind: str, files: Files) -> None:
    body = bytes(range(256)) * 8000
    with serve(loop_kind, ssl_context=files.context()) as server, connect(server, files) as client:
        for _ in range(3):
            client.send(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            assert client.response().body == body


def test_a_client_that_leaves_is_noticed(loop_kind: str, files: Files) -> None:
    with serve(loop_kind, ssl_context=files.context()) as server, connect(server, files) as client:
        client.send(b"GET /hold HTTP/1.1\r\n\r\n")
        exchange = server.handler.next("request")
        client.socket.close()
        assert server.handler.next("disconnected") is exchange


def test_a_refusal_reaches_the_client(loop_kind: str, files: Files) -> None:
    """TLS cannot be half closed, so the answer is sent and the client's close is awaited for a while."""
    with serve(loop_kind, ssl_context=files.context()) as server, connect(server, files) as client:
        client.send(b"GET / HTTP/3.0\r\n\r\n")
        assert client.response().status == 505
        server.sweep_after(LINGER_TIMEOUT_S + 1)
        server.until(lambda: server.listener.open_connections == 0)


def test_drain(loop_kind: str, files: Files) -> None:
    with serve(loop_kind, ssl_context=files.context()) as server, connect(server, files) as client:
        client.send(b"GET /hold HTTP/1.1\r\n\r\n")
        exchange = server.handler.next("request")
        server.call(server.listener.drain)
        server.call(exchange.respond, 200, b"", [b"x"])
        assert client.response().headers["connection"] == "close"
        assert client.closed()


def test_client_certificates(loop_kind: str, files: Files) -> None:
    """Mutual TLS: a client with a certificate of the authority is served, one without is not."""
    with serve(loop_kind, ssl_context=files.context(files.ca)) as server:
        with connect(server, files, client_certificate=True) as client:
            client.send(b"GET / HTTP/1.1\r\n\r\n")
            assert client.response().status == 200
        with pytest.raises((ssl.SSLError, ConnectionError)), connect(server, files) as client:
            client.send(b"GET / HTTP/1.1\r\n\r\n")
            client.response()


def test_plain_http_on_a_tls_port_is_closed(loop_kind: str, files: Files) -> None:
    with serve(loop_kind, ssl_context=files.context()) as server, server.connect() as client:
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(ConnectionError):
            client.response()


def test_old_versions_are_refused(loop_kind: str, files: Files) -> None:
    """RFC 8996: no TLS below 1.2, whatever OpenSSL's own configuration would allow."""
    assert files.context().minimum_version == ssl.TLSVersion.TLSv1_2
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(files.ca)
    old.set_ciphers("DEFAULT:@SECLEVEL=0")  # else the client's OpenSSL does not even try
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with serve(loop_kind, ssl_context=files.context()) as server:
        raw = socket.create_connection(("127.0.0.1", server.port), 20)
        with raw, pytest.raises(ssl.SSLError):
            old.wrap_socket(raw, server_hostname="127.0.0.1")


def test_a_port_for_grpc_alone_offers_http2_only(files: Files) -> None:
    """A client that offers HTTP/1.1 alone agrees on nothing, and is told so when it speaks it anyway."""
    context = server_ssl_context(files.certificate, files.key, http1=False)
    with (
        serve("asyncio", ssl_context=context, http=False, grpc=object()) as server,
        connect(server, files, alpn=("http/1.1",)) as client,
    ):
        assert client.socket.selected_alpn_protocol() is None
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        assert client.response().status == 505


def test_missing_files(files: Files) -> None:
    missing = files.folder / "missing.pem"
    for arguments, what in (
        ((missing, files.key), "certificate"),
        ((files.certificate, missing), "private key"),
        ((files.certificate, files.key, missing), "certificate authority"),
    ):
        with pytest.raises(InvalidArgumentError, match=f"TLS {what} file '{missing}' cannot be read: No such file"):
            server_ssl_context(*arguments)


def test_a_key_of_another_certificate(files: Files) -> None:
    other = files._write("other.key", files.authority.issue_cert("other").private_key_pem)
    with pytest.raises(InvalidArgumentError, match="does not belong to the certificate"):
        server_ssl_context(files.certificate, other)


def test_files_that_are_no_pem(files: Files) -> None:
    noise = files.folder / "noise.pem"
    noise.write_text("no certificate")
    for arguments in ((noise, files.key), (files.certificate, noise), (files.certificate, files.key, noise)):
        with pytest.raises(InvalidArgumentError, match="not a valid PEM file"):
            server_ssl_context(*arguments)


def test_an_encrypted_key_asks_for_no_passphrase(files: Files) -> None:
    """A server must not wait at a prompt."""
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    encrypted = files.folder / "encrypted.key"
    encrypted.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(InvalidArgumentError, match="is encrypted"):
        server_ssl_context(files.certificate, encrypted)
