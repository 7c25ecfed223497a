"""``shoal explain``: what it shows of a real server, and what it says when it cannot."""

import json
import os
import pty
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from shoal.cli.explain_page import duration
from shoal.cli.main import main
from tests.clients import get, infer, row
from tests.execution.models import write_model
from tests.serving import ShoalProcess


@pytest.fixture(scope="module")
def shoal(tmp_path_factory):
    repository = tmp_path_factory.mktemp("explain") / "models"
    write_model(
        repository, "double", max_batch_size=8, more="dynamic_batching { priority_levels: 2 default_priority_level: 2 }"
    )
    with ShoalProcess(repository) as server:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda value: infer(server.http, "double", row(value)), range(40)))
        yield server


def explain(shoal, capsys, *options, model="double"):
    status = main(["explain", model, "--url", f"http://{shoal.http}", *options])
    shown = capsys.readouterr()
    return status, shown.out, shown.err


def test_the_page_tells_reasons_instances_and_priorities(shoal, capsys):
    status, out, _ = explain(shoal, capsys)
    assert status == 0
    assert "double version 1: dynamic batcher, max_batch_size 8" in out
    assert "40 requests in" in out
    for part in ("closed by", "idle", "double_0_0", "priority"):
        assert part in out


def test_json_is_what_the_server_counted(shoal, capsys):
    _, out, _ = explain(shoal, capsys, "--json")
    told = json.loads(out)
    assert told["batches"]["requests"] == 40 == sum(each["requests"] for each in told["priorities"])
    statistics = get(shoal.http, "/v2/models/double/stats").json["model_stats"][0]
    assert told["batches"]["batches"] == statistics["execution_count"]
    assert statistics["batching"]["reasons"] == told["reasons"]


def test_the_trace_has_every_batch_on_its_lane(shoal, capsys, tmp_path):
    status, out, _ = explain(shoal, capsys, "--trace", str(tmp_path / "trace.json"))
    assert (status, "ui.perfetto.dev" in out) == (0, True)
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    lanes = {event["args"]["name"]: event["tid"] for event in events if event["name"] == "thread_name"}
    ran = [event for event in events if event["ph"] == "X" and event["tid"] == lanes["double_0_0"]]
    waited = [event for event in events if event["ph"] == "X" and event["tid"] == lanes["queue"]]
    assert sum(event["args"]["requests"] for event in ran) == 40
    assert all(first["ts"] + first["dur"] == then["ts"] for first, then in zip(waited, ran, strict=True))


def test_metrics_have_the_same_numbers(shoal):
    page = get(shoal.metrics, "/metrics").body.decode()
    assert 'shoal_instance_rows_total{instance="double_0_0",model="double",version="1"} 40.0' in page
    assert 'shoal_priority_requests_total{model="double",priority="2",version="1"} 40.0' in page


@pytest.mark.parametrize(
    ("model", "url", "expected"),
    [
        ("nosuch", None, "Request for unknown model: 'nosuch' is not found"),
        ("double", "http://127.0.0.1:9", "no server answers at http://127.0.0.1:9"),
        ("double", "127.0.0.1:9", "no server answers at http://127.0.0.1:9"),
        ("double", "metrics", "Not Found"),
    ],
)
def test_what_cannot_be_explained_is_one_clear_line(shoal, capsys, model, url, expected):
    url = f"http://{shoal.metrics}" if url == "metrics" else url
    status, out, err = explain(shoal, capsys, *(["--url", url] if url else []), model=model)
    assert (status, out) == (1, "")
    assert expected in err
    assert "Traceback" not in err


def test_a_terminal_sees_it_live(shoal):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "shoal", "explain", "double", "--url", f"http://{shoal.http}", "--interval", "0.1"]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"}) as process:
        os.close(theirs)
        seen = b""
        while b"requests/s" not in seen:
            seen += os.read(ours, 65536)
        process.terminate()
    os.close(ours)
    assert b"closed by" in seen


@pytest.mark.parametrize(("microseconds", "text"), [(0, "0 us"), (999, "999 us"), (1500, "1.5 ms"), (2.5e6, "2.5 s")])
def test_durations_are_short(microseconds, text):
    assert duration(microseconds) == text
