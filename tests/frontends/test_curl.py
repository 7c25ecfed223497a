"""The HTTP frontend with curl: what its options make of a request, and what is refused."""

from __future__ import annotations

import gzip
import json
import struct

import pytest

from shoal.transport.http2_frames import DATA, ErrorCode, frame
from tests.clients import HEADER_LENGTH, HttpConnection, body_of, row, tensor
from tests.curl import curl, needs_curl
from tests.serving import ShoalProcess
from tests.transport.http2_support import HTTP_HEADERS, Answer, Wire, headers_frame, with_path

pytestmark = needs_curl

JSON, _ = body_of(row(1, 2, 3))
INFER = "/v2/models/double/infer"
LARGE = row(*range(40_000))
LIMIT_NBYTES = 2_000


@pytest.fixture(scope="module")
def url(shoal):
    return f"http://{shoal.http}"


def data_of(reply):
    assert reply.status == 200, reply.body
    return reply.json["outputs"][0]["data"]


@pytest.mark.parametrize("version", ["--http1.1", "--http2", "--http2-prior-knowledge"])
def test_json(url, version):
    """``--http2`` offers an upgrade, which is not taken without TLS."""
    lines, reply = curl(url + INFER, version, body=JSON)
    assert lines == ["HTTP/2 200" if version == "--http2-prior-knowledge" else "HTTP/1.1 200 OK"]
    assert reply.headers["content-type"] == "application/json"
    assert data_of(reply) == [2, 4, 6]


def test_binary(url):
    body, headers = body_of(
        tensor("IN", [1, 2], binary_data_size=8),
        tail=struct.pack("<2f", 1, 2),
        outputs=[{"name": "OUT", "parameters": {"binary_data": True}}],
    )
    _, reply = curl(url + INFER, "--header", f"{HEADER_LENGTH}: {headers[HEADER_LENGTH]}", body=body)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/octet-stream")
    assert reply.json["outputs"][0]["shape"] == [1, 2]
    assert reply.binary == struct.pack("<2f", 2, 4)


def test_a_compressed_request(url):
    _, reply = curl(url + INFER, "--header", "Content-Encoding: gzip", body=gzip.compress(JSON))
    assert data_of(reply) == [2, 4, 6]


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_response(url, encoding):
    _, reply = curl(url + INFER, "--compressed", "--header", f"Accept-Encoding: {encoding}", body=JSON)
    assert reply.headers["content-encoding"] == encoding
    assert data_of(reply) == [2, 4, 6]


def test_the_response_that_is_compressed_is_shorter(url):
    body, _ = body_of(tensor("IN", [1, 5000], [0.0] * 5000))
    _, reply = curl(url + INFER, "--header", "Accept-Encoding: gzip", body=body)
    assert int(reply.headers["content-length"]) == len(reply.body) < len(body) // 10
    assert json.loads(gzip.decompress(reply.body))["outputs"][0]["data"] == [0] * 5000


def test_a_body_for_which_the_client_waits_for_100(url):
    lines, reply = curl(url + INFER, "--header", "Expect: 100-continue", "--expect100-timeout", "15", body=JSON)
    assert lines == ["HTTP/1.1 100 Continue", "HTTP/1.1 200 OK"]
    assert data_of(reply) == [2, 4, 6]


def test_an_expectation_that_is_unknown(url):
    lines, _ = curl(url + INFER, "--header", "Expect: tea", body=JSON)
    assert lines == ["HTTP/1.1 417 Expectation Failed"]


@pytest.mark.parametrize("options", [(), ("--http1.0",), ("--http2-prior-knowledge",)])
def test_large_bodies_both_ways(url, options):
    body, _ = body_of(LARGE)
    _, reply = curl(url + INFER, *options, body=body)
    assert data_of(reply) == [2 * value for value in range(40_000)]


@pytest.mark.parametrize("body", [JSON, body_of(LARGE)[0]])
def test_a_chunked_body(url, body):
    _, reply = curl(url + INFER, "--http1.1", "--header", "Transfer-Encoding: chunked", body=body)
    assert len(data_of(reply)) in {3, 40_000}


def test_http_1_0_closes_unless_asked_to_stay(url):
    closed = curl(url + INFER, "--http1.0", body=JSON)[1]
    kept = curl(url + INFER, "--http1.0", "--header", "Connection: keep-alive", body=JSON)[1]
    assert data_of(closed) == data_of(kept) == [2, 4, 6]
    assert closed.headers["connection"] == "close"
    assert kept.headers["connection"] == "keep-alive"


@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("GET", INFER),
        ("PUT", INFER),
        ("DELETE", INFER),
        ("POST", "/v2/models/double"),
        ("POST", "/v2/models/double/config"),
        ("POST", "/v2/health/ready"),
        ("OPTIONS", "/v2"),
    ],
)
def test_verbs_that_a_path_does_not_take(url, version, verb, path):
    _, reply = curl(url + path, version, "--request", verb)
    assert (reply.status, reply.json) == (405, {"error": "Method Not Allowed"})
    assert reply.headers["allow"] == ("POST" if path == INFER else "GET")


HEADS = pytest.mark.parametrize(
    ("path", "status"), [("/v2/health/live", 405), ("/v2", 405), (INFER, 405), ("/nothing", 404)]
)


@HEADS
@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
def test_head(url, version, path, status):
    """Over HTTP/2, a body would be an error of the protocol to curl."""
    assert curl(url + path, version, "--head")[1].status == status


@HEADS
def test_head_has_no_body(shoal, path, status):
    """With one, the next answer on the connection could not be read."""
    with HttpConnection(shoal.http) as connection:
        assert connection.ask("HEAD", path).status == status
        assert connection.ask("GET", "/v2").json["name"] == "shoal"


@pytest.mark.parametrize("path", ["/", "/v1/models/double", "/v2/models/double/inference", "/metrics", "/v2/health"])
def test_paths_that_do_not_exist(url, path):
    _, reply = curl(url + path)
    assert (reply.status, reply.json) == (404, {"error": "Not Found"})


def test_a_model_that_does_not_exist(url):
    _, reply = curl(url + "/v2/models/duble/infer", body=JSON)
    assert (reply.status, reply.error) == (404, "Request for unknown model: 'duble' is not found")


# --- --http-max-input-size ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def limited(repository):
    with ShoalProcess(repository, f"--http-max-input-size={LIMIT_NBYTES}") as process:
        yield f"http://{process.http}"


def padded(nbytes):
    return JSON + b" " * (nbytes - len(JSON))


CHUNKED = ("--http1.1", "--header", "Transfer-Encoding: chunked")


@pytest.mark.parametrize("options", [("--http1.1",), CHUNKED, ("--http2-prior-knowledge",)])
def test_a_body_as_long_as_allowed_is_served(limited, options):
    assert data_of(curl(limited + INFER, *options, body=padded(LIMIT_NBYTES))[1]) == [2, 4, 6]


H2C = ("--http2-prior-knowledge",)


@pytest.mark.parametrize("options", [("--http1.1",), CHUNKED, H2C])
@pytest.mark.parametrize("nbytes", [LIMIT_NBYTES + 1, 1_000_000])
def test_one_that_is_longer_is_refused_with_the_option_to_set(limited, options, nbytes):
    _, reply = curl(limited + INFER, *options, body=padded(nbytes))
    assert reply.status == 400
    assert "--http-max-input-size" in reply.error


@pytest.mark.parametrize("declared", [True, False])
def test_one_that_is_longer_is_refused_over_http_2(limited, declared):
    """RFC 9113 section 8.1: the whole answer; and to those who still send after a moment, RST_STREAM with NO_ERROR."""
    length = [("content-length", str(LIMIT_NBYTES + 1))] if declared else []
    head = headers_frame(1, [*with_path(HTTP_HEADERS, INFER), *length])
    with Wire(int(limited.rpartition(":")[2])) as wire:
        wire.send(head if declared else head + frame(DATA, 0, 1, padded(LIMIT_NBYTES + 1)))
        assert wire.answer(1).blocks[0][":status"] == "400"
        answer = Answer(wire.probe(), 1)
        assert "--http-max-input-size" in json.loads(answer.body)["error"]
        assert (answer.ended, answer.reset) == (True, None)
        while Answer(wire.frames, 1).reset is None:
            assert wire.read() is not None
        assert Answer(wire.frames, 1).reset == ErrorCode.NO_ERROR


@pytest.mark.parametrize("options", [H2C, (*H2C, "--header", "Transfer-Encoding: chunked")])
@pytest.mark.parametrize("nbytes", [LIMIT_NBYTES + 1, 3_000_000, 30_000_000])
def test_curl_never_loses_the_refusal_over_http_2(limited, options, nbytes):
    """It did when RST_STREAM came right behind the answer, while it was still sending."""
    statuses = {curl(limited + INFER, *options, body=padded(nbytes))[1].status for _ in range(8)}
    assert statuses == {400}


def test_a_body_that_only_becomes_too_long_is_refused(limited):
    body = gzip.compress(padded(LIMIT_NBYTES + 1))
    assert len(body) < LIMIT_NBYTES
    _, reply = curl(limited + INFER, "--header", "Content-Encoding: gzip", body=body)
    assert reply.status == 400
    assert str(LIMIT_NBYTES) in reply.error


def test_a_body_that_is_too_long_is_refused_before_it_is_sent(limited):
    lines, _ = curl(
        limited + INFER, "--header", "Expect: 100-continue", "--expect100-timeout", "15", body=padded(9_999)
    )
    assert lines == ["HTTP/1.1 400 Bad Request"]
