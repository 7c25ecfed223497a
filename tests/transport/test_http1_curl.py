"""HTTP/1.1 with curl."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.transport.http1_support import Server, serve

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def curl(server: Server, path: str, *options: str) -> bytes:
    command = ["curl", "--silent", "--show-error", "--fail-with-body", "--max-time", "20", "--noproxy", "*", *options]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{server.port}{path}"], capture_output=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def body_file(tmp_path: Path) -> Path:
    path = tmp_path / "body"
    path.write_bytes(bytes(range(256)) * 20_000)
    return path


@pytest.mark.parametrize(
    "options",
    [
        ("--http1.1",),
        ("--http1.0",),
        ("--header", "Transfer-Encoding: chunked"),
        ("--header", "Expect: 100-continue"),
        ("--header", "Expect:"),
        ("--header", "Connection: close"),
        ("--http2",),
    ],
)
@pytest.mark.parametrize("path", ["/echo", "/stream"])
def test_large_bodies(loop_kind: str, body_file: Path, path: str, options: tuple[str, ...]) -> None:
    """``--http2`` offers an upgrade to h2c, which is not taken."""
    with serve(loop_kind) as server:
        expected = body_file.read_bytes()
        if path == "/stream":
            expected = expected.replace(b"|", b"")
        assert curl(server, path, *options, "--data-binary", f"@{body_file}") == expected


def test_one_connection_serves_many_requests(loop_kind: str) -> None:
    with serve(loop_kind) as server:
        url = f"http://127.0.0.1:{server.port}"
        written = curl(server, "/a", "--data-binary", "x", f"{url}/b", f"{url}/c", "--write-out", "%{num_connects}")
        assert written == b"x1x0x0"


def test_head(loop_kind: str) -> None:
    with serve(loop_kind) as server:
        assert b"Content-Length: 0" in curl(server, "/", "--head")


def test_through_a_proxy_request(loop_kind: str) -> None:
    """A client that takes the server for its proxy sends the absolute form."""
    with serve(loop_kind) as server:
        curl(server, "/v2/health/live?a=1", "--proxy", f"http://127.0.0.1:{server.port}", "--noproxy", "")
        head = server.handler.next("request").head
        assert (head.target, head.path) == ("/v2/health/live?a=1", "/v2/health/live")
