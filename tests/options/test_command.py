"""The options as flags of a command."""

import click
import pytest
from click.testing import CliRunner

from shoal.options import OPTIONS, OptionError
from shoal.options.command import ServerCommand, complete_booleans
from shoal.options.kinds import BOOLEAN
from tests.options.samples import SAMPLES


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for option in OPTIONS:
        monkeypatch.delenv(option.variable, raising=False)


def parse(*args, params=()):
    """What a command with these arguments gets."""
    got = {}
    command = ServerCommand("serve", callback=lambda **given: got.update(given), params=list(params))
    command.main(list(args), standalone_mode=False)
    return got


def options_of(*args):
    return parse("--model-repository", "m", *args)["options"]


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_every_option_is_a_flag(option, monkeypatch):
    """As two words and as one, which Triton takes both, and by its aliases."""
    monkeypatch.setattr("shoal.options.read.check_options", lambda _: None)
    text, value, _ = SAMPLES[option.name]
    for name in (option.name, *option.aliases):
        for args in ([f"--{name}", text], [f"--{name}={text}"]):
            assert getattr(parse(*args)["options"], option.field) == ((value,) if option.repeatable else value)


@pytest.mark.parametrize("option", [one for one in OPTIONS if one.kind is BOOLEAN], ids=lambda option: option.name)
def test_a_boolean_flag_alone_is_true(option, monkeypatch):
    monkeypatch.setattr("shoal.options.read.check_options", lambda _: None)
    assert getattr(parse(f"--{option.name}")["options"], option.field) is True
    assert getattr(parse(f"--{option.name}", "--id", "x")["options"], option.field) is True


def test_a_repeatable_flag_adds_up_with_its_alias():
    assert parse("--model-store", "a", "--model-repository=b")["options"].model_repository == ("a", "b")


@pytest.mark.parametrize(
    ("args", "completed"),
    [
        (["--access-log"], ["--access-log=true"]),
        (["--access-log", "OFF"], ["--access-log", "OFF"]),
        (["--access-log", "maybe"], ["--access-log", "maybe"]),
        (["--id", "--access-log"], ["--id", "--access-log"]),
        (["--access-log", "--id"], ["--access-log=true", "--id"]),
        (["--access-log=0", "1"], ["--access-log=0", "1"]),
        (["--", "--access-log"], ["--", "--access-log"]),
        (["--other", "--access-log"], ["--other", "--access-log=true"]),
        ([], []),
    ],
)
def test_boolean_flags_get_a_value(args, completed):
    assert complete_booleans(args, has_arguments=False) == completed


def test_a_boolean_flag_leaves_arguments_alone():
    got = parse("--model-repository", "m", "--access-log", "extra", params=[click.Argument(["folder"])])
    assert got["folder"] == "extra"
    assert got["options"].access_log is True


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--http-prt", "1"], "there is no option '--http-prt'; did you mean '--http-port'?"),
        (["--http_port=1"], "there is no option '--http_port'; did you mean '--http-port'?"),
        (["--cache-directory", "x"], "'--cache-directory' is an option of Triton that Shoal does not have"),
        (
            ["--allow-http", "maybe"],
            "option 'allow-http': 'maybe' from the command line is not valid: it takes true, on",
        ),
    ],
)
def test_flags_that_are_wrong(args, message):
    with pytest.raises(OptionError) as caught:
        parse("--model-repository", "m", *args)
    assert caught.value.message.startswith(message)


def test_a_flag_without_its_value():
    with pytest.raises(click.UsageError, match="'--http-port' requires an argument"):
        parse("--http-port")


def test_variables_and_the_file_are_read(monkeypatch, tmp_path):
    path = tmp_path / "shoal.toml"
    path.write_text("http-port = 1\ngrpc-port = 2\n")
    monkeypatch.setenv("SHOAL_GRPC_PORT", "3")
    options = options_of("--config", str(path))
    assert (options.http_port, options.grpc_port) == (1, 3)


def test_the_help_names_every_option_under_its_group():
    result = CliRunner().invoke(ServerCommand("serve", callback=lambda **_: None), ["--help"], terminal_width=200)
    assert result.exit_code == 0
    for option in OPTIONS:
        assert f"--{option.name}" in result.output
        assert f"\n{option.group}:\n" in result.output
    assert "[default: 67108864]" in result.output
    assert "--config FILE" in result.output
