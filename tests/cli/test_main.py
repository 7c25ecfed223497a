"""The ``shoal`` command itself: its help, its errors and its statuses, as a process."""

import subprocess
import sys

import click
import pytest

from shoal import __version__
from shoal.cli.main import COMMANDS, main, shoal


def run(*args):
    return subprocess.run(
        [sys.executable, "-m", "shoal.cli.main", *args], capture_output=True, text=True, timeout=30, check=False
    )


def test_the_help_names_every_command_and_imports_none():
    code = (
        "import sys, shoal.cli.main as it; it.main(['--help']);"
        "sys.exit(any(entry.module in sys.modules for entry in it.COMMANDS.values()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for name, entry in COMMANDS.items():
        assert f"{name}" in done.stdout
        assert entry.summary in done.stdout


def test_it_starts_without_heavy_modules():
    """Start-up is what every command pays."""
    code = "import sys, shoal.cli.main; print([m for m in ('numpy', 'google.protobuf', 'asyncio') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there(name):
    done = run(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: shoal {name} ")


def test_the_version():
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"shoal {__version__}\n")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["serv"], "error: There is no command 'serv'; did you mean 'serve'?\nSee 'shoal --help'.\n"),
        (["serve", "--http-prt", "1"], "error: there is no option '--http-prt'; did you mean '--http-port'?\n"),
        (["serve", "--http-port"], "error: Option '--http-port' requires an argument\nSee 'shoal serve --help'.\n"),
        (["serve"], "error: --model-repository must be specified: the folder with the models to serve\n"),
        (
            ["serve", "--model-repository", "m", "--http-use-ssl", "--http-port=x"],
            "error: option 'http-port': 'x' from the command line is not valid: it takes an integer from 0 to 65535\n",
        ),
    ],
)
def test_errors_are_lines_on_standard_error_and_status_1(args, message):
    """Section 1.14: a bad option ends Triton with status 1."""
    done = run(*args)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", message)


def test_without_a_command_the_help_is_shown():
    done = run()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Usage: shoal ")


@pytest.mark.parametrize(("result", "status"), [(None, 0), (0, 0), (3, 3), ("text", 0)])
def test_a_commands_number_is_the_status(monkeypatch, result, status):
    command = click.Command("check", callback=lambda: result)
    monkeypatch.setattr(type(shoal), "get_command", lambda *_: command)
    assert main(["check"]) == status


def test_an_interrupt_is_status_130(monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(type(shoal), "get_command", lambda *_: click.Command("check", callback=interrupted))
    assert main(["check"]) == 130
