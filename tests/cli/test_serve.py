"""``shoal serve`` as a process: how it ends, and what its options do."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import psutil
import pytest
from tritonclient.grpc import service_pb2

from tests.clients import HttpConnection, channel_to, get, grpc_ready, grpc_row, infer, row, tensor, unary
from tests.execution.models import write_model
from tests.gated import Gate, wait_until
from tests.serving import ShoalProcess

BROKEN = """
class TritonPythonModel:
    def initialize(self, args):
        raise RuntimeError("[bold] it is broken [/]")

    def execute(self, requests):
        return []
"""


@pytest.fixture
def gate(tmp_path):
    return Gate(tmp_path / "models")


@pytest.fixture
def repository(tmp_path):
    write_model(tmp_path / "models", "double")
    return tmp_path / "models"


@pytest.fixture
def pool():
    with ThreadPoolExecutor(8) as pool:
        yield pool


def in_flight(shoal, gate, pool):
    """A request over HTTP and one over gRPC, both running or queued in the gated model."""
    over_http = pool.submit(infer, shoal.http, "gated", row(1))
    over_grpc = pool.submit(ask_grpc, shoal.grpc)
    gate.wait_for_batches(1)
    wait_until(lambda: pending(shoal) + sum(map(len, gate.batches)) == 2, "the requests are taken")
    return over_http, over_grpc


def ask_grpc(address):
    with channel_to(address) as channel:
        return unary(channel, "ModelInfer")(grpc_row("gated", 2), timeout=20)


def pending(shoal):
    page = get(shoal.metrics, "/metrics").body.decode()
    return int(float(re.search(r"^nv_inference_pending_request_count\{.*\} (\S+)$", page, re.MULTILINE)[1]))


def check_nothing_is_left(processes):
    """The server, the fork server and the workers are gone."""
    assert len(processes) >= 3
    wait_until(lambda: not any(map(is_alive, processes)), "all processes end")


def is_alive(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE  # then it waits for its parent alone, which may take its time
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_when_what_is_in_flight_is_answered(gate, pool, tmp_path, number):
    with (
        ShoalProcess(tmp_path / "models") as shoal,
        HttpConnection(shoal.http) as kept,
        channel_to(shoal.grpc) as channel,
    ):
        processes = shoal.processes()
        assert kept.ask("GET", "/v2/health/ready").status == 200
        assert grpc_ready(channel)
        over_http, over_grpc = in_flight(shoal, gate, pool)
        shoal.process.send_signal(number)
        wait_until(lambda: "stopping" in shoal.log(), "the server says that it stops")
        assert kept.ask("GET", "/v2/health/ready").status == 503
        assert not grpc_ready(channel)
        assert not over_http.done()
        assert not over_grpc.done()
        gate.open()
        assert over_http.result().json["outputs"][0]["data"] == [1.0]
        assert over_grpc.result().raw_output_contents == [b"\0\0\0@"]
        assert shoal.wait() == 0
        assert "every request was answered" in shoal.log()
    check_nothing_is_left(processes)


def test_once_it_stops_new_requests_are_refused(gate, pool, tmp_path):
    with (
        ShoalProcess(tmp_path / "models") as shoal,
        HttpConnection(shoal.http) as kept,
        channel_to(shoal.grpc) as channel,
    ):
        grpc_ready(channel)
        kept.ask("GET", "/v2/health/ready")
        in_flight(shoal, gate, pool)
        shoal.process.send_signal(signal.SIGTERM)
        wait_until(lambda: kept.ask("GET", "/v2/health/ready").status == 503, "the server stops")
        body = json.dumps({"inputs": [row(1)]}).encode()
        wait_until(lambda: refused(shoal.http), "new connections are refused")
        reply = kept.ask("POST", "/v2/models/gated/infer", body)
        assert reply.status == 503
        assert "Server is stopping" in reply.error
        with pytest.raises(grpc.RpcError) as error:
            unary(channel, "ModelInfer")(grpc_row("gated", 2), timeout=20)
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE
        gate.open()
        assert shoal.wait() == 0


def refused(address):
    try:
        get(address, "/v2/health/live")
    except ConnectionError:
        return True
    return False


def test_in_the_drain_window_it_is_not_ready_and_serves(repository):
    with ShoalProcess(repository, "--drain-secs=600") as shoal, channel_to(shoal.grpc) as channel:
        processes = shoal.processes()
        shoal.process.send_signal(signal.SIGTERM)
        wait_until(lambda: get(shoal.http, "/v2/health/ready").status == 503, "it is not ready")
        assert get(shoal.http, "/v2/health/live").status == 200
        assert not grpc_ready(channel)
        assert infer(shoal.http, "double", row(2)).json["outputs"][0]["data"] == [4.0]
        assert unary(channel, "ModelInfer")(grpc_row("double", 2)).outputs[0].name == "OUT"
        shoal.process.send_signal(signal.SIGTERM)
        assert shoal.wait() == 128 + signal.SIGTERM
    check_nothing_is_left(processes)


def test_a_short_drain_window_ends_by_itself(repository):
    with ShoalProcess(repository, "--drain-secs=0.05") as shoal:
        assert shoal.stop() == 0


def test_requests_that_outlast_the_exit_timeout_make_status_1(gate, pool, tmp_path):
    with ShoalProcess(tmp_path / "models", "--exit-timeout-secs=1") as shoal:
        processes = shoal.processes()
        over_http, over_grpc = in_flight(shoal, gate, pool)
        assert shoal.stop() == 1
        assert "Exit timeout expired" in shoal.log()
    check_nothing_is_left(processes)
    assert over_http.result().status == 503
    assert over_grpc.exception().code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(gate, pool, tmp_path, number):
    with ShoalProcess(tmp_path / "models") as shoal:
        processes = shoal.processes()
        over_http, over_grpc = in_flight(shoal, gate, pool)
        shoal.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "stopping" in shoal.log(), "the server says that it stops")
        assert shoal.stop(number) == 128 + number
        assert "second signal" in shoal.log()
    check_nothing_is_left(processes)
    assert over_http.exception() is not None
    assert over_grpc.exception() is not None


def test_a_signal_while_models_load_ends_it(tmp_path):
    code = """
    class TritonPythonModel:
        def initialize(self, args):
            open(os.path.join(args["model_repository"], "loading"), "w").close()
            time.sleep(600)
        def execute(self, requests):
            return []
    """
    folder = write_model(tmp_path / "models", "slow_to_load", code)
    shoal = ShoalProcess(tmp_path / "models")
    wait_until((folder / "loading").exists, "the model begins to load")
    processes = shoal.processes()
    assert shoal.stop() == 0
    shoal.__exit__()
    check_nothing_is_left(processes)


def test_when_the_server_is_killed_its_processes_end(repository):
    with ShoalProcess(repository) as shoal:
        processes = shoal.processes()
        shoal.process.kill()
        shoal.process.wait(10)
    check_nothing_is_left(processes)


def test_while_models_load_it_is_live_and_not_ready(tmp_path):
    code = """
    class TritonPythonModel:
        def initialize(self, args):
            gate = os.path.join(args["model_repository"], "open")
            while not os.path.exists(gate):
                time.sleep(0.002)
        def execute(self, requests):
            return [answer(value(request)) for request in requests]
    """
    folder = write_model(tmp_path / "models", "slow_to_load", code)
    port = free_port()
    shoal = ShoalProcess(tmp_path / "models", f"--port={port}")
    address = f"127.0.0.1:{port}"
    wait_until(lambda: not refused(address), "the port is open")
    assert get(address, "/v2/health/live").status == 200
    assert get(address, "/v2/health/ready").status == 400
    with channel_to(address) as channel:
        assert not grpc_ready(channel)
    (folder / "open").touch()
    with shoal:
        assert get(address, "/v2/health/ready").status == 200
        assert shoal.stop() == 0


def free_port():
    import socket  # noqa: PLC0415 # for this alone

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# --- options --------------------------------------------------------------------------------------------------------


def test_options_come_from_variables_and_a_file_and_flags_win(repository, tmp_path):
    config = tmp_path / "shoal.toml"
    config.write_text('id = "from the file"\nallow-metrics = false\nhttp-max-input-size = 100\n')
    environment = {"SHOAL_CONFIG": str(config), "SHOAL_HTTP_MAX_INPUT_SIZE": "300", "SHOAL_ACCESS_LOG": "true"}
    with ShoalProcess(repository, "--access-log=false", environment=environment) as shoal:
        assert get(shoal.http, "/v2").json["name"] == "from the file"
        assert set(shoal.ports) == {"HTTP", "gRPC"}
        assert infer(shoal.http, "double", row(*range(20))).status == 200
        reply = infer(shoal.http, "double", row(*range(200)))
        assert reply.status == 400
        assert "300" in reply.error
        assert shoal.stop() == 0
        assert "request" not in [record["message"] for record in shoal.records]


def test_without_exit_on_error_the_others_are_served(repository):
    write_model(repository, "broken", BROKEN)
    with ShoalProcess(repository, "--exit-on-error=false") as shoal, channel_to(shoal.grpc) as channel:
        assert get(shoal.http, "/v2/health/live").status == 200
        assert get(shoal.http, "/v2/health/ready").status == 400
        assert not grpc_ready(channel)
        assert get(shoal.http, "/v2/models/double/ready").status == 200
        assert get(shoal.http, "/v2/models/broken/ready").status == 400
        assert infer(shoal.http, "double", row(2)).status == 200
        assert infer(shoal.http, "broken", row(2)).status == 404
        assert not unary(channel, "ModelReady")(service_pb2.ModelReadyRequest(name="broken")).ready
        assert "it is broken" in shoal.log()
        assert "started, but not ready" in shoal.log()
        assert shoal.stop() == 0


def test_without_strict_readiness_a_broken_model_does_not_count(repository):
    write_model(repository, "broken", BROKEN)
    with ShoalProcess(repository, "--exit-on-error=false", "--strict-readiness=false") as shoal:
        assert get(shoal.http, "/v2/health/ready").status == 200
        assert get(shoal.http, "/v2/models/broken/ready").status == 400


def test_log_lines_are_json_and_say_what_is_served(repository):
    with ShoalProcess(repository) as shoal:
        assert shoal.stop() == 0
        assert all({"time", "level", "logger", "message"} <= set(record) for record in shoal.records), shoal.records
        assert [record["model"] for record in shoal.records if "is READY" in record["message"]] == ["double"]
        assert {record["service"] for record in shoal.records if "address" in record} == {"HTTP", "gRPC", "metrics"}


def test_the_access_log_has_a_line_for_every_request(repository):
    with ShoalProcess(repository, "--access-log") as shoal, channel_to(shoal.grpc) as channel:
        infer(shoal.http, "double", row(2), id="over http")
        infer(shoal.http, "double", tensor("IN", [9, 1], [1] * 9), id="refused")
        infer(shoal.http, "absent", row(2))
        get(shoal.http, "/v2/health/ready")
        unary(channel, "ModelInfer")(grpc_row("double", 2, id="over grpc"))
        with pytest.raises(grpc.RpcError):
            unary(channel, "ModelInfer")(grpc_row("absent", 2, id="refused too"))
        assert shoal.stop() == 0
    lines = [record for record in shoal.records if record["logger"] == "shoal.access"]
    assert [(line["protocol"], line["status"], line["target"]) for line in lines] == [
        ("http", 200, "/v2/models/double/infer"),
        ("http", 400, "/v2/models/double/infer"),
        ("http", 404, "/v2/models/absent/infer"),
        ("http", 200, "/v2/health/ready"),
        ("grpc", 0, "/inference.GRPCInferenceService/ModelInfer"),
        ("grpc", 5, "/inference.GRPCInferenceService/ModelInfer"),
    ]
    assert lines[0]["request_id"] == "over http"
    assert lines[0]["model"] == "double"
    assert lines[0]["nbytes"] > 0
    assert lines[0]["duration_us"] > 0
    assert lines[4]["request_id"] == "over grpc"


def test_a_log_file_takes_the_log(repository, tmp_path):
    log = tmp_path / "log"
    command = [sys.executable, "-m", "shoal", "serve", "--model-repository", str(repository), "--port=0"]
    process = subprocess.Popen(
        [*command, "--log-format=default", f"--log-file={log}"], stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: log.exists() and "ready" in log.read_text(), "the server is ready")
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=20)
    assert (process.returncode, stderr) == (0, "")
    assert all(re.match(r"[IW]\d{4} \d\d:\d\d:\d\d\.\d{6} \d+ .*\]", line) for line in log.read_text().splitlines())


# --- on a terminal --------------------------------------------------------------------------------------------------


class Terminal:
    """``shoal serve`` with a terminal for its standard error; a context manager."""

    def __init__(self, repository, *options):
        self._leader, follower = pty.openpty()
        command = [sys.executable, "-m", "shoal", "serve", "--model-repository", str(repository), "--port=0", *options]
        environment = {**os.environ, "COLUMNS": "200", "TERM": "xterm"}
        self.process = subprocess.Popen(
            command, stdin=follower, stdout=follower, stderr=follower, env=environment, start_new_session=True
        )
        os.close(follower)
        os.set_blocking(self._leader, False)
        self._text = b""

    @property
    def text(self):
        """What it has shown so far, without its colours."""
        try:
            while data := os.read(self._leader, 65536):
                self._text += data
        except OSError:  # nothing more for now, or for ever
            pass
        return re.sub(r"\x1b\[[0-9;]*m", "", self._text.decode())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(10)
        os.close(self._leader)


def test_a_terminal_shows_a_table(repository):
    Gate(repository, "gated", max_batch_size=0, more="", count=2)
    write_model(repository, "kept", max_batch_size=4, more="sequence_batching { oldest { } }")
    with Terminal(repository) as terminal:
        wait_until(lambda: "Press Ctrl-C to stop." in terminal.text, terminal.text)
        lines = terminal.text.splitlines()
        assert "Shoal is ready" in terminal.text
        assert re.search(r"double +. 1 +. READY . python, 1 CPU instance, batches up to 8, \d+\.\d\d s", terminal.text)
        assert re.search(r"gated +. 1 +. READY . python, 2 CPU instances, one request at a time", terminal.text)
        assert re.search(r"kept +. 1 +. READY . python, 1 CPU instance, batches up to 4, \d", terminal.text)
        assert [line for line in lines if re.fullmatch(r"HTTP, gRPC and metrics on 0\.0\.0\.0:\d+", line.strip())]
        os.killpg(terminal.process.pid, signal.SIGINT)  # as Ctrl-C does: to the workers too
        assert terminal.process.wait(20) == 0
        assert "Traceback" not in terminal.text


def test_a_terminal_shows_why_a_model_is_not_served(repository):
    write_model(repository, "broken", BROKEN)
    with Terminal(repository, "--exit-on-error=false") as terminal:
        wait_until(lambda: "Press Ctrl-C to stop." in terminal.text, "the server has started")
        assert "Shoal is started, but not ready" in terminal.text
        assert re.search(r"broken +. 1 +. UNAVAILABLE . .*RuntimeError: \[bold\] it is broken \[/\]", terminal.text)
