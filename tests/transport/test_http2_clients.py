"""HTTP/2 with other people's clients: curl, nghttp, h2load and the ``h2`` library, over real sockets."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest

from tests.transport.http1_support import TIMEOUT_S, Server
from tests.transport.http2_support import GRPC_HEADERS, HTTP_HEADERS, message, serve_http2


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with serve_http2(request.param) as running:
        yield running


@pytest.fixture
def body_file(tmp_path: Path) -> Path:
    path = tmp_path / "body"
    path.write_bytes(bytes(range(256)) * 20_000)
    return path


def run(*command: str) -> bytes:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


CURL = ("curl", "--silent", "--show-error", "--fail-with-body", "--noproxy", "*", "--http2-prior-knowledge")


def test_curl(server: Server, body_file: Path) -> None:
    url = f"http://127.0.0.1:{server.port}"
    assert run(*CURL, "--data-binary", f"@{body_file}", f"{url}/echo") == body_file.read_bytes()
    assert run(*CURL, "--data", "1|2|3", f"{url}/stream") == b"123"
    assert b"content-length: 0" in run(*CURL, "--head", f"{url}/echo")
    headers = run(*CURL, "--include", "--header", "Expect: 100-continue", "--data", "x", f"{url}/echo")
    assert headers.startswith((b"HTTP/2 100", b"HTTP/2 200"))


def test_nghttp(server: Server, body_file: Path) -> None:
    """It opens five idle streams with PRIORITY, pads, and uses CONTINUATION."""
    url = f"http://127.0.0.1:{server.port}/echo"
    assert run("nghttp", f"--data={body_file}", url) == body_file.read_bytes()
    out = run(
        "nghttp",
        "--verbose",
        "--null-out",
        "--padding=200",
        "--continuation",
        "--multiply=20",
        f"--data={body_file}",
        url,
    )
    assert out.count(b"recv (stream_id=") >= 20 * 3
    assert b"RST_STREAM" not in out
    assert out.count(b":status: 200") == 20


@pytest.mark.parametrize("nbytes", [100, 1_000_000])
def test_h2load(server: Server, tmp_path: Path, nbytes: int) -> None:
    """The load generator of the benchmarks, with the windows that it uses there."""
    path = tmp_path / "message"
    path.write_bytes(message(bytes(nbytes)))
    headers = [
        part
        for name, value in (("content-type", "application/grpc"), ("te", "trailers"))
        for part in ("-H", f"{name}: {value}")
    ]
    out = run(
        "h2load",
        "-n",
        "200",
        "-c",
        "2",
        "-m",
        "10",
        "-w",
        "24",
        "-W",
        "26",
        "-d",
        str(path),
        *headers,
        f"http://127.0.0.1:{server.port}/echo.Echo/Unary",
    )
    assert b"200 total, 200 started, 200 done, 200 succeeded, 0 failed, 0 errored" in out


class Client:
    """A client of the ``h2`` library."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.events: list[h2.events.Event] = []
        self.flush()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def until(self, kind: type, stream_id: int | None = None) -> h2.events.Event:
        """Read until such an event."""
        while True:
            for event in self.events:
                if isinstance(event, kind) and stream_id in (None, getattr(event, "stream_id", None)):
                    return event
            data = self.socket.recv(1 << 16)
            assert data, "the server closed"
            self.events += self.h2.receive_data(data)
            for event in self.events:
                if isinstance(event, h2.events.DataReceived) and event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    event.flow_controlled_length = 0
            self.flush()

    def body(self, stream_id: int) -> bytes:
        self.until(h2.events.StreamEnded, stream_id)
        parts = [
            event.data
            for event in self.events
            if isinstance(event, h2.events.DataReceived) and event.stream_id == stream_id
        ]
        return b"".join(parts)


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.port) as connected:
        yield connected


def test_h2_finds_nothing_wrong_with_a_call(client: Client) -> None:
    client.h2.send_headers(1, GRPC_HEADERS)
    client.h2.send_data(1, message(b"hello"), end_stream=True)
    client.flush()
    assert client.body(1) == message(b"hello")
    assert dict(client.until(h2.events.ResponseReceived, 1).headers)[":status"] == "200"
    assert dict(client.until(h2.events.TrailersReceived, 1).headers) == {"grpc-status": "0"}


def test_h2_keeps_to_its_own_windows(client: Client) -> None:
    """A response larger than all windows, read and acknowledged as it comes."""
    data = bytes(range(256)) * 4000
    client.h2.send_headers(1, HTTP_HEADERS)
    position = 0
    while position < len(data):
        client.until(h2.events.RemoteSettingsChanged)
        size = min(client.h2.max_outbound_frame_size, client.h2.local_flow_control_window(1), len(data) - position)
        client.h2.send_data(1, data[position : position + size], pad_length=7)
        client.flush()
        position += size
    client.h2.end_stream(1)
    client.flush()
    assert client.body(1) == data


def test_h2_resets_and_pings(client: Client, server: Server) -> None:
    client.h2.send_headers(1, [(name, "/echo.Echo/Held" if name == ":path" else value) for name, value in GRPC_HEADERS])
    client.h2.send_data(1, message(b"x"))
    client.h2.ping(b"in order")
    client.flush()
    client.until(h2.events.PingAckReceived)
    handler = server.context.grpc
    call = handler.calls[-1]
    client.h2.reset_stream(1)
    client.flush()
    server.until(lambda: call in handler.cancelled_calls)


def test_h2_lowers_its_header_table(client: Client) -> None:
    """Its decoder insists on the acknowledgement of RFC 7541 section 4.2."""
    client.h2.update_settings({1: 0, 4: 100_000})
    client.flush()
    client.until(h2.events.SettingsAcknowledged)
    for stream_id in (1, 3):
        client.h2.send_headers(stream_id, HTTP_HEADERS, end_stream=True)
        client.flush()
        assert client.body(stream_id) == b""
