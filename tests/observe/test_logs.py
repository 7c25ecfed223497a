"""Log lines as a process of its own writes them: their shapes, their levels, and where they go."""

import json
import os
import pty
import re
import subprocess
import sys

import pytest

from shoal.errors import InvalidArgumentError
from shoal.observe.logs import LogFormat, LogSettings, access, setup_logging

PROGRAM = """
import logging, sys
from shoal.observe.logs import LogFormat, LogSettings, access, setup_logging
setup_logging(LogSettings(**eval(sys.argv[1])))
log = logging.getLogger("shoal.part")
log.debug("quiet")
log.info("model '%s' is up", "m", extra={"model": "m", "version": 3})
log.warning("two\\nlines \\x1b[2J")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("bad")
access(protocol="http", peer="1.2.3.4:5", method="GET", target="/v2\\n", status=200, nbytes=7, duration_us=12,
       model="m", request_id="")
"""


def run(**settings):
    """Run the program with standard error as a pipe, and return what it wrote."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, repr_of(settings)], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == ""
    return done.stderr


def repr_of(settings):
    items = (
        f"{name!r}: {value}" if isinstance(value, LogFormat) else f"{name!r}: {value!r}"
        for name, value in settings.items()
    )
    return "{" + ", ".join(items) + "}"


def run_on_terminal(environ, **settings):
    """Run the program with standard error as a terminal, and return what it wrote."""
    terminal, side = pty.openpty()
    environ = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm"} | environ
    try:
        subprocess.run(
            [sys.executable, "-c", PROGRAM, repr_of(settings)], stderr=side, timeout=30, check=True, env=environ
        )
        return os.read(terminal, 65536).decode().replace("\r\n", "\n")
    finally:
        os.close(terminal)
        os.close(side)


def test_lines_are_json_where_there_is_no_terminal():
    lines = [json.loads(line) for line in run().splitlines()]
    assert [line["level"] for line in lines] == ["info", "warning", "error"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", lines[0].pop("time"))
    assert lines[0] == {
        "level": "info",
        "logger": "shoal.part",
        "message": "model 'm' is up",
        "model": "m",
        "version": 3,
    }
    assert lines[1]["message"] == "two\nlines \x1b[2J"
    assert lines[2]["exception"].endswith("ZeroDivisionError: division by zero")


def test_lines_on_a_terminal_are_for_people_and_coloured():
    text = run_on_terminal({})
    assert "\x1b[36mI\x1b[0m" in text
    assert "model 'm' is up" in text
    assert "two\n    lines \\x1b[2J" in text


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colour_can_be_refused(environ):
    text = run_on_terminal(environ)
    assert "\x1b" not in text
    assert "I shoal.part: model 'm' is up  model=m version=3\n" in text


def test_lines_for_people_can_be_asked_for():
    first, *rest = run(format=LogFormat.HUMAN).splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3} I shoal\.part: model 'm' is up  model=m version=3", first)
    assert "    lines \\x1b[2J" in rest
    assert rest[-1] == "ZeroDivisionError: division by zero"


def test_lines_can_be_tritons():
    """Section 1.12: the default form."""
    lines = run(format=LogFormat.DEFAULT).splitlines()
    assert re.fullmatch(
        r'I\d{4} \d\d:\d\d:\d\d\.\d{6} \d+ <string>:\d+\] "model \'m\' is up model=m version=3"', lines[0]
    )
    assert [line[0] for line in lines] == ["I", "W", "E"]


def test_lines_can_be_tritons_with_iso_time():
    """Section 1.12: ``--log-format=ISO8601``."""
    lines = run(format=LogFormat.ISO8601).splitlines()
    assert re.fullmatch(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ W \d+ <string>:\d+\] "two\\nlines \\u001b\[2J"', lines[1])


@pytest.mark.parametrize(
    ("settings", "levels"),
    [
        ({"verbose": 1}, ["verbose", "info", "warning", "error"]),
        ({"info": False}, ["warning", "error"]),
        ({"info": False, "verbose": 2}, ["verbose", "warning", "error"]),
        ({"warning": False}, ["info", "error"]),
        ({"error": False}, ["info", "warning"]),
        ({"info": False, "warning": False, "error": False}, []),
        ({"info": False, "warning": False, "error": False, "access": True}, ["info"]),
    ],
)
def test_each_level_has_its_switch(settings, levels):
    """Section 1.12: Triton's switches are independent of each other, and the access log of them all."""
    assert [json.loads(line)["level"] for line in run(**settings).splitlines()] == levels


def test_the_access_log_has_a_line_per_request():
    line = json.loads(run(access=True).splitlines()[-1])
    del line["time"]
    assert line == {
        "level": "info",
        "logger": "shoal.access",
        "message": "request",
        "protocol": "http",
        "peer": "1.2.3.4:5",
        "method": "GET",
        "target": "/v2\n",
        "status": 200,
        "nbytes": 7,
        "duration_us": 12,
        "model": "m",
    }


@pytest.mark.parametrize("shape", LogFormat)
def test_a_client_cannot_forge_a_line(shape):
    """The line end in the request's target stays within the line."""
    last = run(access=True, format=shape).splitlines()[-1]
    assert "/v2\\n" in last
    assert "1.2.3.4:5" in last


def test_lines_go_to_the_file_and_nowhere_else(tmp_path):
    path = tmp_path / "log"
    path.write_text("before\n")
    assert run(file=str(path)) == ""
    before, *lines = path.read_text().splitlines()
    assert before == "before"
    assert [json.loads(line)["level"] for line in lines] == ["info", "warning", "error"]


def test_a_file_that_cannot_be_written_is_an_error(tmp_path):
    path = tmp_path / "nowhere" / "log"
    with pytest.raises(InvalidArgumentError, match=rf"log-file '{path}' cannot be opened for writing: No such file"):
        setup_logging(LogSettings(file=str(path)))


def test_a_second_setup_replaces_the_first(tmp_path):
    """No line is written twice, and the first file is closed."""
    known = {"protocol": "grpc", "peer": "", "method": "POST", "target": "/x", "status": 0, "nbytes": 0}
    try:
        setup_logging(LogSettings(file=str(tmp_path / "one"), access=True))
        setup_logging(LogSettings(file=str(tmp_path / "two"), access=True))
        access(**known, duration_us=1)
    finally:
        setup_logging(LogSettings())
    assert (tmp_path / "one").read_text() == ""
    assert len((tmp_path / "two").read_text().splitlines()) == 1
