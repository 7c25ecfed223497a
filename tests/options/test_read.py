"""Where options come from, which source counts, and what is said of a value that is wrong."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.observe.logs import LogFormat, LogSettings
from shoal.options import OPTIONS, OptionError, ServerOptions, read_options
from shoal.options.kinds import FALSE_WORDS, TRUE_WORDS, integer
from shoal.options.read import _from_file, unknown_option
from shoal.options.server import BY_NAME
from shoal.options.unsupported import UNSUPPORTED
from tests.options.samples import SAMPLES

NEEDED = {"model-repository": ["somewhere"]}
BY_ID = {"ids": lambda option: option.name}
WITH_WRONG = [option for option in OPTIONS if SAMPLES[option.name].wrong is not None]


@pytest.fixture(autouse=True)
def no_cross_checks(monkeypatch, request):
    """One option at a time: what they must be together is another matter."""
    if "alone" in request.fixturenames:
        monkeypatch.setattr("shoal.options.read.check_options", lambda _: None)


@pytest.fixture
def alone():
    """For tests of one option by itself."""


def expected(option, value):
    return (value,) if option.repeatable else value


def write_toml(folder, text):
    path = folder / "shoal.toml"
    path.write_text(text)
    return str(path)


def toml_of(name, text):
    return f"{name} = '''{text}'''\n"


@pytest.mark.parametrize("option", OPTIONS, **BY_ID)
def test_every_option_by_every_source(option, tmp_path, alone):
    """Nobody, a flag, a variable, a TOML key with dashes, one with underscores."""
    text, value, _ = SAMPLES[option.name]
    assert getattr(read_options({}, {}), option.field) == option.default != expected(option, value) or text == "NONE"
    by_flag = read_options({option.name: [text]}, {})
    by_variable = read_options({}, {option.variable: text})
    by_key = read_options({}, {}, write_toml(tmp_path, toml_of(option.name, text)))
    by_other_key = read_options({}, {}, write_toml(tmp_path, toml_of(option.name.replace("-", "_"), text)))
    for options in (by_flag, by_variable, by_key, by_other_key):
        assert getattr(options, option.field) == expected(option, value)
    assert by_flag.notes == by_variable.notes == by_key.notes


def test_toml_values_may_be_native(tmp_path):
    text = (
        'http-port = 80\nallow-grpc = false\ndrain-secs = 1.5\nmodel-repository = ["a", "b"]\nbackend_config = "x=1"\n'
    )
    options = read_options({}, {}, write_toml(tmp_path, text))
    assert (options.http_port, options.allow_grpc, options.drain_secs) == (80, False, 1.5)
    assert options.model_repository == ("a", "b")
    assert options.backend_settings() == {"": {"x": "1"}}


ports = st.none() | st.integers(0, 65535).map(str)


@given(flag=ports, variable=ports, key=ports)
def test_a_flag_counts_before_a_variable_before_the_file(tmp_path_factory, flag, variable, key):
    path = write_toml(tmp_path_factory.mktemp("toml"), f"metrics-port = {key}\n" if key else "")
    flags = {
        "model-repository": ["m"],
        "allow-http": ["0"],
        "allow-grpc": ["0"],
        "metrics-port": [flag] if flag else [],
    }
    options = read_options(flags, {"SHOAL_METRICS_PORT": variable} if variable else {}, path)
    assert options.metrics_port == int(next((one for one in (flag, variable, key) if one), 8002))


def test_values_of_a_source_replace_those_of_the_next(tmp_path):
    path = write_toml(tmp_path, 'model-repository = ["x", "y"]')
    assert read_options({}, {"SHOAL_MODEL_REPOSITORY": "a;b"}, path).model_repository == ("a", "b")
    assert read_options({"model-repository": ["c"]}, {"SHOAL_MODEL_REPOSITORY": "a;b"}, path).model_repository == ("c",)


def test_the_last_flag_counts():
    assert read_options(NEEDED | {"id": ["a", "b"]}, {}).server_id == "b"


def test_the_file_may_be_named_by_a_variable(tmp_path):
    path = write_toml(tmp_path, "id = 'from file'")
    other = tmp_path / "other.toml"
    other.write_text("id = 'from other'")
    assert read_options(NEEDED, {"SHOAL_CONFIG": path}).server_id == "from file"
    assert read_options(NEEDED, {"SHOAL_CONFIG": path}, str(other)).server_id == "from other"


def test_an_empty_variable_is_none():
    """``SHOAL_HTTP_PORT= shoal serve`` means the default, as in most programs."""
    assert read_options(NEEDED, {"SHOAL_HTTP_PORT": ""}).http_port == 8000


@pytest.mark.parametrize("link", ["tcp://10.0.0.7:8000", "udp://10.0.0.7:8000"])
def test_kubernetes_service_links_are_not_options(link):
    """Kubernetes sets SHOAL_PORT in every pod beside a service that is named shoal."""
    options = read_options(NEEDED, {"SHOAL_PORT": link, "SHOAL_HTTP_PORT": link})
    assert (options.port, options.http_port, options.notes) == (None, 8000, ())


# --- values that are wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", WITH_WRONG, **BY_ID)
def test_a_wrong_value_is_named_with_its_option_source_and_range(option, tmp_path):
    wrong = SAMPLES[option.name].wrong
    path = write_toml(tmp_path, toml_of(option.name, wrong))
    for flags, environ, config, source in (
        ({option.name: [wrong]}, {}, None, "the command line"),
        ({}, {option.variable: wrong}, None, f"the variable {option.variable}"),
        ({}, {}, path, f"the key '{option.name}' in {path}"),
    ):
        with pytest.raises(OptionError) as caught:
            read_options(flags, environ, config)
        beginning = f"option '{option.name}': '{wrong}' from {source} is not valid: it takes "
        assert caught.value.message.startswith(beginning)
        assert len(caught.value.message) > len(beginning)


def test_the_range_is_said():
    with pytest.raises(OptionError, match=r"it takes an integer from 0 to 65535$"):
        read_options({"http-port": ["-1"]}, {})
    with pytest.raises(OptionError, match=r"it takes auto, human, json, default or ISO8601$"):
        read_options({"log-format": ["x"]}, {})


@pytest.mark.parametrize("mode", ["poll", "EXPLICIT"])
def test_a_model_control_mode_of_triton_is_explained(mode):
    with pytest.raises(OptionError, match="this mode is not supported yet; 'none' loads every model"):
        read_options({"model-control-mode": [mode]}, {})


def test_all_wrong_values_are_named_at_once():
    with pytest.raises(OptionError) as caught:
        read_options({"http-port": ["x"], "grpc-port": ["y"]}, {"SHOAL_METRICS_PORT": "z"})
    assert len(caught.value.message.splitlines()) == 3


@given(st.text(max_size=8))
def test_integers_are_digits_within_the_range(text):
    kind = integer(-5, 300)
    try:
        value = kind.parse(text)
    except ValueError:
        assert not re.fullmatch(r"[+-]?[0-9]+", text) or not -5 <= int(text) <= 300
    else:
        assert -5 <= value <= 300
        assert value == int(text)


@given(st.sampled_from([*TRUE_WORDS, *FALSE_WORDS]), st.randoms(use_true_random=False))
def test_booleans_have_tritons_spellings(word, random):
    """Section 1.14: true, on, 1, false, off, 0, in any case."""
    spelt = "".join(random.choice((one.upper(), one.lower())) for one in word)
    assert read_options(NEEDED | {"access-log": [spelt]}, {}).access_log is (word in TRUE_WORDS)


@pytest.mark.parametrize("text", ["python", "python,a", ",", "=x", "python,=x", "a,b,c=d", ""])
def test_backend_settings_that_are_none(text):
    with pytest.raises(OptionError, match="it takes BACKEND,KEY=VALUE, or KEY=VALUE for every backend"):
        read_options({"backend-config": [text]}, {})


def test_backend_settings_by_backend_and_key():
    """As Triton: the setting of no backend holds for all, and the last of equal ones counts."""
    texts = ["python,a=1", "python,a=2", "onnxruntime,b=x,y", "default-max-batch-size=8", ",c="]
    options = read_options(NEEDED | {"backend-config": texts}, {})
    assert options.backend_settings() == {
        "python": {"a": "2"},
        "onnxruntime": {"b": "x,y"},
        "": {"default-max-batch-size": "8", "c": ""},
    }


# --- the file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("http-port = x", "is not valid TOML: Invalid value (at line 1, column 13)"),
        ("http-prt = 1", "there is no option 'http-prt'; did you mean 'http-port'?"),
        (
            "load-model = 'x'",
            "'load-model' is an option of Triton that Shoal does not have: models are loaded at start-up",
        ),
        ("http-port = [1, 2]", "option 'http-port': [1, 2] from the key 'http-port' in"),
        ("[http]\nport = 1", "there is no option 'http'"),
        ("http-port = 1\nhttp_port = 2", "option 'http-port' is given twice"),
        ("http-port = 1.5", "it takes an integer from 0 to 65535"),
    ],
)
def test_files_that_are_wrong(tmp_path, text, message):
    path = write_toml(tmp_path, text)
    with pytest.raises(OptionError) as caught:
        read_options(NEEDED, {}, path)
    assert message in caught.value.message
    assert path in caught.value.message


def test_a_file_that_is_not_there(tmp_path):
    path = tmp_path / "none.toml"
    with pytest.raises(OptionError, match=rf"configuration file '{path}' cannot be read: No such file or directory"):
        read_options(NEEDED, {}, str(path))


@given(st.binary(max_size=40))
def test_no_file_brings_a_traceback(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("toml") / "shoal.toml"
    path.write_bytes(content)
    try:
        outcome = _from_file(path)
    except OptionError as error:
        outcome = error.message
    assert str(path) in outcome if isinstance(outcome, str) else set(outcome) <= set(BY_NAME)


# --- names that are none ----------------------------------------------------------------------------------------------


def test_every_option_of_triton_is_known():
    """Each option that the real server's help lists is there, or explained."""
    names = (Path(__file__).parent / "triton_options.txt").read_text().split()
    assert len(names) > 80
    assert [name for name in names if name not in BY_NAME and name not in UNSUPPORTED] == []
    assert [name for name in UNSUPPORTED if name in BY_NAME] == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("--http-prt", "there is no option '--http-prt'; did you mean '--http-port'?"),
        ("--http_port", "there is no option '--http_port'; did you mean '--http-port'?"),
        ("--model-stor", "there is no option '--model-stor'; did you mean '--model-store'?"),
        ("--cofig", "there is no option '--cofig'; did you mean '--config'?"),
        ("--zzz", "there is no option '--zzz'"),
        (
            "--trace-config",
            "'--trace-config' is an option of Triton that Shoal does not have: tracing is not supported yet",
        ),
    ],
)
def test_the_nearest_option_is_named(name, text):
    assert unknown_option(name) == text


# --- notes ------------------------------------------------------------------------------------------------------------


def test_what_has_no_effect_is_said():
    options = read_options(NEEDED | {"http-thread-count": ["3"]}, {"SHOAL_STRICT_MODEL_CONFIG": "1"})
    assert set(options.notes) == {
        "the option 'http-thread-count' has no effect: one event loop serves all connections",
        "the option 'strict-model-config' is deprecated; use disable-auto-complete-config",
    }


def test_ports_beside_the_one_port_are_said_to_have_no_effect():
    options = read_options(NEEDED | {"port": ["9000"]}, {"SHOAL_GRPC_PORT": "9001"})
    assert options.notes == ("the option 'grpc-port' has no effect, because 'port' is given",)


def test_rate_limits_without_a_rate_limiter_are_said_to_have_no_effect():
    options = read_options(NEEDED | {"rate-limit-resource": ["R:2"]}, {})
    assert options.notes == ("the option 'rate-limit-resource' has no effect without --rate-limit=execution_count",)
    options = read_options(NEEDED | {"rate-limit-resource": ["R:2"], "rate-limit": ["execution_count"]}, {})
    assert options.notes == ()


def test_a_misspelt_variable_is_noticed():
    """It would otherwise do nothing, and say nothing."""
    options = read_options(NEEDED, {"SHOAL_HTP_PORT": "1", "SHOAL_SERVICE_HOST": "10.0.0.1", "PATH": ""})
    assert options.notes == ("the variable SHOAL_HTP_PORT is none of the server's; did you mean SHOAL_HTTP_PORT?",)


# --- what is made of them ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "completed"),
    [({}, True), ({"disable-auto-complete-config": ["on"]}, False), ({"strict-model-config": ["true"]}, False)],
)
def test_two_options_stop_completing_configurations(flags, completed):
    assert read_options(NEEDED | flags, {}).auto_complete is completed


def test_the_metrics_are_where_http_is_unless_told_otherwise():
    """As Triton's ``--metrics-address``."""
    assert ServerOptions(http_address="::1").metrics_host == "::1"
    assert ServerOptions(http_address="::1", metrics_address="127.0.0.1").metrics_host == "127.0.0.1"


def test_mutual_tls_implies_tls():
    """As Triton's ``--grpc-use-ssl-mutual``."""
    assert not ServerOptions().grpc_tls
    assert ServerOptions(grpc_use_ssl=True).grpc_tls
    assert ServerOptions(grpc_use_ssl_mutual=True).grpc_tls


def test_logging_gets_its_options():
    flags = {"log-verbose": ["2"], "log-info": ["0"], "log-warning": ["0"], "log-error": ["0"]}
    flags |= {"log-format": ["json"], "log-file": ["x"], "access-log": ["1"]}
    wanted = LogSettings(2, info=False, warning=False, error=False, format=LogFormat.JSON, file="x", access=True)
    assert read_options(NEEDED | flags, {}).log_settings() == wanted
