"""TLS on the HTTP, gRPC and shared ports, with and without certificates of the clients."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
import trustme

from tests.clients import TIMEOUT_S, body_of, row, unary
from tests.curl import curl, needs_curl
from tests.serving import ShoalProcess

VALUES = np.array([[1, 2]], np.float32)
INFER = "/v2/models/double/infer"


class Files:
    """An authority's certificate, with a server's and a client's, as files in PEM."""

    def __init__(self, folder):
        authority = trustme.CA()
        self.folder = folder
        self.root = self._write("root.pem", authority.cert_pem)
        self.server_certificate, self.server_key = self._issue(authority, "server", "localhost", "127.0.0.1")
        self.client_certificate, self.client_key = self._issue(authority, "client", "client@example.org")
        self.other_certificate, self.other_key = self._issue(trustme.CA(), "other", "other@example.org")

    def _issue(self, authority, name, *identities):
        issued = authority.issue_cert(*identities)
        certificate = self._write(f"{name}.pem", *issued.cert_chain_pems)
        return certificate, self._write(f"{name}.key", issued.private_key_pem)

    def _write(self, name, *blobs):
        (self.folder / name).write_bytes(b"".join(blob.bytes() for blob in blobs))
        return str(self.folder / name)

    def options(self, service):
        return f"--{service}-server-cert={self.server_certificate}", f"--{service}-server-key={self.server_key}"

    def credentials(self, certificate=None, key=None):
        """What a gRPC client presents."""
        given = [Path(path).read_bytes() if path else None for path in (self.root, key, certificate)]
        return grpc.ssl_channel_credentials(*given)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return Files(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def secure(repository, files):
    """HTTP and gRPC, each over TLS on a port of its own."""
    options = ["--http-use-ssl", *files.options("http"), "--grpc-use-ssl", *files.options("grpc")]
    with ShoalProcess(repository, *options) as process:
        yield process


@pytest.fixture(scope="module")
def mutual(repository, files):
    """The same, and clients must have a certificate."""
    options = ["--http-use-ssl", *files.options("http"), f"--http-root-cert={files.root}"]
    options += ["--grpc-use-ssl-mutual", *files.options("grpc"), f"--grpc-root-cert={files.root}"]
    with ShoalProcess(repository, *options) as process:
        yield process


@pytest.fixture(scope="module")
def shared(repository, files):
    """Everything on one port over TLS."""
    with ShoalProcess(repository, "--port=0", "--http-use-ssl", *files.options("http")) as process:
        yield process


def infer(module, client):
    tensor = module.InferInput("IN", [1, 2], "FP32")
    tensor.set_data_from_numpy(VALUES)
    with client:
        return client.infer("double", [tensor]).as_numpy("OUT").tolist()


def infer_http(address, files, **certificate):
    options = {"ca_certs": files.root, **certificate}
    client = tritonclient.http.InferenceServerClient(
        address, ssl=True, ssl_options=options, ssl_context_factory=ssl.create_default_context
    )
    return infer(tritonclient.http, client)


def infer_grpc(address, files, certificate=None, key=None):
    client = tritonclient.grpc.InferenceServerClient(
        address, ssl=True, root_certificates=files.root, private_key=key, certificate_chain=certificate
    )
    return infer(tritonclient.grpc, client)


def refused_grpc(address, credentials):
    """The code with which a call fails."""
    request = tritonclient.grpc.service_pb2.ServerLiveRequest()
    with (
        grpc.secure_channel(address, credentials, [("grpc.use_local_subchannel_pool", 1)]) as channel,
        pytest.raises(grpc.RpcError) as raised,
    ):
        unary(channel, "ServerLive")(request, timeout=TIMEOUT_S)
    return raised.value.code()


# --- the server's certificate ---------------------------------------------------------------------------------------


@needs_curl
@pytest.mark.parametrize("server", ["secure", "shared"])
@pytest.mark.parametrize(("version", "line"), [("--http1.1", "HTTP/1.1 200 OK"), ("--http2", "HTTP/2 200")])
def test_curl(server, files, version, line, request):
    process = request.getfixturevalue(server)
    lines, reply = curl(f"https://{process.http}{INFER}", version, "--cacert", files.root, body=body_of(row(1, 2))[0])
    assert (lines, reply.json["outputs"][0]["data"]) == ([line], [2, 4])


@needs_curl
@pytest.mark.parametrize("version", ["--tlsv1.2", "--tlsv1.3"])
def test_versions_of_tls(secure, files, version):
    limits = (version, "--tls-max", version.removeprefix("--tlsv"))
    assert curl(f"https://{secure.http}/v2/health/live", *limits, "--cacert", files.root)[1].status == 200


@needs_curl
def test_curl_does_not_trust_the_authority_by_itself(secure):
    with pytest.raises(subprocess.CalledProcessError) as raised:
        curl(f"https://{secure.http}/v2/health/live")
    assert raised.value.returncode == 60


@needs_curl
def test_without_tls_nothing_is_served(secure, files):
    """A plain request to a port with TLS fails, and the port serves on."""
    with pytest.raises(subprocess.CalledProcessError):
        curl(f"http://{secure.http}/v2/health/live")
    assert refused_grpc(secure.grpc, grpc.local_channel_credentials()) is grpc.StatusCode.UNAVAILABLE
    assert curl(f"https://{secure.http}/v2/health/live", "--cacert", files.root)[1].status == 200


@pytest.mark.parametrize("server", ["secure", "shared"])
def test_tritonclient(server, files, request):
    process = request.getfixturevalue(server)
    assert infer_http(process.http, files) == [[2, 4]]
    assert infer_grpc(process.grpc, files) == [[2, 4]]


@needs_curl
def test_the_metrics_of_a_shared_port_are_behind_tls(shared, files):
    _, reply = curl(f"https://{shared.metrics}/metrics", "--cacert", files.root)
    assert b"# HELP nv_inference_count" in reply.body


# --- the client's certificate ---------------------------------------------------------------------------------------


def test_grpc_with_a_certificate_is_served(mutual, files):
    assert infer_grpc(mutual.grpc, files, files.client_certificate, files.client_key) == [[2, 4]]


def test_grpc_without_a_certificate_is_refused(mutual, files):
    assert refused_grpc(mutual.grpc, files.credentials()) is grpc.StatusCode.UNAVAILABLE


def test_grpc_with_a_certificate_of_another_authority_is_refused(mutual, files):
    credentials = files.credentials(files.other_certificate, files.other_key)
    assert refused_grpc(mutual.grpc, credentials) is grpc.StatusCode.UNAVAILABLE


def test_http_with_a_certificate_is_served(mutual, files):
    own = {"certfile": files.client_certificate, "keyfile": files.client_key}
    assert infer_http(mutual.http, files, **own) == [[2, 4]]


@needs_curl
@pytest.mark.parametrize("name", [None, "other"])
def test_http_without_the_right_certificate_is_refused(mutual, files, name):
    own = ("--cert", files.other_certificate, "--key", files.other_key) if name else ()
    with pytest.raises(subprocess.CalledProcessError):
        curl(f"https://{mutual.http}/v2/health/live", "--cacert", files.root, *own)
    right = ("--cert", files.client_certificate, "--key", files.client_key)
    assert curl(f"https://{mutual.http}/v2/health/live", "--cacert", files.root, *right)[1].status == 200
