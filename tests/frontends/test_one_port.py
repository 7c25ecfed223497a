"""``--port``: HTTP/1.1, HTTP/2, gRPC and the metrics on one port."""

from __future__ import annotations

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

from tests.clients import HttpConnection, ask, body_of, channel_to, get, grpc_ready, infer, row
from tests.curl import curl, needs_curl
from tests.serving import ShoalProcess

VALUES = np.array([[1, 2]], np.float32)


@pytest.fixture(scope="module")
def one(repository):
    with ShoalProcess(repository, "--port=0") as process:
        yield process


def doubled(module, address):
    """Infer with tritonclient."""
    tensor = module.InferInput("IN", [1, 2], "FP32")
    tensor.set_data_from_numpy(VALUES)
    with module.InferenceServerClient(address) as client:
        return client.infer("double", [tensor]).as_numpy("OUT").tolist()


def test_there_is_only_one_port(one):
    """The process and those below it listen nowhere else."""
    listening = {
        connection.laddr.port
        for process in one.processes()
        for connection in process.net_connections("inet")
        if connection.status == "LISTEN"
    }
    assert listening == set(one.ports.values())
    assert len(listening) == 1


def test_http_1(one):
    assert get(one.http, "/v2/health/ready").status == 200
    assert infer(one.http, "double", row(1, 2)).json["outputs"][0]["data"] == [2, 4]


@needs_curl
@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
@pytest.mark.parametrize(("path", "said"), [("/v2", b'"name":"shoal"'), ("/metrics", b"# HELP nv_inference_count")])
def test_rest_and_metrics_over_both_versions(one, version, path, said):
    lines, reply = curl(f"http://{one.http}{path}", version)
    assert lines == ["HTTP/2 200" if version == "--http2-prior-knowledge" else "HTTP/1.1 200 OK"]
    assert said in reply.body


@needs_curl
def test_infer_over_http_2(one):
    lines, reply = curl(f"http://{one.http}/v2/models/double/infer", "--http2-prior-knowledge", body=body_of(row(3))[0])
    assert (lines, reply.json["outputs"][0]["data"]) == (["HTTP/2 200"], [6])


@pytest.mark.parametrize("module", [tritonclient.http, tritonclient.grpc], ids=["http", "grpc"])
def test_tritonclient(one, module):
    assert doubled(module, one.http) == [[2, 4]]


def test_all_at_once(one):
    """Connections of each protocol are open at the same time and do not disturb each other."""
    with HttpConnection(one.http) as http, channel_to(one.grpc) as channel:
        for _ in range(3):
            assert http.ask("GET", "/v2/health/ready").status == 200
            assert grpc_ready(channel)
            assert b'service="all"} ' in http.ask("GET", "/metrics").body


def test_the_page_counts_every_protocol(one):
    def count():
        page = get(one.metrics, "/metrics").body.decode()
        return sum(
            float(line.split()[-1])
            for line in page.splitlines()
            if line.startswith('nv_inference_request_success{model="matrix"')
        )

    before = count()
    for module in (tritonclient.http, tritonclient.grpc):
        tensor = module.InferInput("IN", [1, 1, 2], "FP32")
        tensor.set_data_from_numpy(VALUES[None])
        with module.InferenceServerClient(one.http) as client:
            client.infer("matrix", [tensor])
    assert count() == before + 2


def test_what_the_page_does_not_take(one):
    reply = ask(one.metrics, "POST", "/metrics", b"")
    assert (reply.status, reply.headers["allow"]) == (405, "GET")
    assert get(one.metrics, "/metric").status == 404


def test_without_metrics_there_is_no_page(repository):
    with ShoalProcess(repository, "--port=0", "--allow-metrics=false") as process:
        assert get(process.http, "/metrics").status == 404
        assert doubled(tritonclient.grpc, process.http) == [[2, 4]]
