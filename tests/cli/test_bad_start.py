"""``shoal serve`` that cannot start: status 1, one message that says why and where, no traceback, no process left."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import uuid
from contextlib import suppress

import psutil
import pytest

from shoal.execution.gpus import count_gpus
from tests.execution.models import write_model

MARK = "SHOAL_TESTED_BY"
EXECUTE = """
    def execute(self, requests):
        return []
"""
CLASS = "class TritonPythonModel:" + EXECUTE
TENSORS = """
input [ { name: "A" data_type: TYPE_FP32 dims: [ 1 ] } ]
output [ { name: "B" data_type: TYPE_FP32 dims: [ 1 ] } ]
"""


def start(repository, *options, environment=None):
    """Run the command to its end; gives its standard error."""
    mark = uuid.uuid4().hex
    given = [f"--model-repository={repository}"] if repository else []
    ports = [] if any("port=" in option for option in options) else ["--port=0"]
    done = subprocess.run(
        [sys.executable, "-m", "shoal", "serve", *given, *ports, *options],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, MARK: mark, **(environment or {})},
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert started_with(mark) == []
    return done.stderr


def started_with(mark):
    """The processes that still run of those that a command has started."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == mark:
                found.append(process)
    return found


def error_of(repository, *options, **more):
    """The one message of a start that fails, with nothing before or behind it."""
    head, colon, text = start(repository, *options, **more).rstrip("\n").partition(": ")
    assert (head, colon) == ("error", ": ")
    return text


def write_files(repository, name, config, **files):
    """Write a model's folder; a file ``model_py`` is ``1/model.py``."""
    folder = repository / name
    (folder / "1").mkdir(parents=True)
    if config is not None:
        (folder / "config.pbtxt").write_text(config)
    for file, content in (files or {"model_py": CLASS}).items():
        data = content if isinstance(content, bytes) else content.encode()
        (folder / "1" / file.replace("_", ".")).write_bytes(data)


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def taken_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


@pytest.mark.parametrize("service", ["http", "grpc", "metrics"])
def test_a_port_that_is_in_use(repository, taken_port, service):
    write_model(repository, "double")
    ports = [f"--{name}-port={taken_port if name == service else 0}" for name in ("http", "grpc", "metrics")]
    assert error_of(repository, *ports) == (
        f"cannot listen on 0.0.0.0:{taken_port}: it is already in use; stop the other server or choose another port"
    )


def test_an_address_that_is_not_here(repository):
    write_model(repository, "double")
    assert error_of(repository, "--http-address=192.0.2.1").startswith("cannot listen on 192.0.2.1:0: no such address")


# --- the repository -------------------------------------------------------------------------------------------------


def test_no_repository():
    assert error_of(None) == "--model-repository must be specified: the folder with the models to serve"


def test_a_repository_that_does_not_exist(tmp_path):
    assert error_of(tmp_path / "absent") == f"{tmp_path}/absent: the model repository does not exist"


def test_a_repository_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    assert "must be a folder, and this is a file" in error_of(tmp_path / "file")


def test_a_repository_that_leads_in_a_circle(tmp_path):
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    text = error_of(tmp_path / "circle")
    assert text.startswith(f"{tmp_path}/circle: ")
    assert "\n" not in text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_repository_that_must_not_be_read(repository):
    repository.chmod(0)
    try:
        assert "Permission denied" in error_of(repository)
    finally:
        repository.chmod(0o700)


def test_a_model_in_two_repositories(tmp_path):
    for name in ("one", "two"):
        write_model(tmp_path / name, "double")
    text = error_of(tmp_path / "one", f"--model-repository={tmp_path}/two")
    assert "double" in text
    assert "two" in text


def test_every_model_that_fails_is_named(repository):
    write_files(repository, "one", "max_batch_size: -1\nbackend: 'python'" + TENSORS)
    write_files(repository, "two", "backend: 'python'" + TENSORS, model_py="raise ValueError('of two')")
    write_model(repository, "three")
    text = error_of(repository)
    assert "failed to load model 'one'" in text
    assert "failed to load model 'two'" in text
    assert "of two" in text
    assert "'three'" not in text


# --- configurations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "line", "said"),
    [
        (
            "input [\n  { name: 'A' data_typ: TYPE_FP32 }\n]",
            3,
            "input[0].data_typ: unknown field 'data_typ'; did you mean 'data_type'?",
        ),
        ("max_batch_siz: 8", 2, "max_batch_siz: unknown field 'max_batch_siz'; did you mean 'max_batch_size'?"),
        ("instance_group [ {\n kind: KIND_GPUS } ]", 3, "instance_group[0].kind: expected one of"),
        ("max_batch_size: many", 2, "max_batch_size: "),
        ("input [\n  { name: 'A'\n", 4, "the file ends before the '}' of line 3"),
        (TENSORS + "name: 'other'", 5, "name: 'other' is not the name of the model's folder, 'm'"),
        (TENSORS + "model_operations { op_library_filename: 'a.so' }", 5, "model_operations: not supported"),
        (TENSORS + "model_warmup { name: 'w' }", 5, "model_warmup: not supported"),
    ],
)
def test_a_configuration_that_is_wrong_names_file_line_and_field(repository, config, line, said):
    write_files(repository, "m", "backend: 'python'\n" + config)
    assert error_of(repository).startswith(f"failed to load model 'm': {repository}/m/config.pbtxt:{line}: {said}")


@pytest.mark.skipif(count_gpus() > 0, reason="there is a GPU")
def test_a_gpu_that_is_not_there(repository):
    write_files(repository, "m", "backend: 'python'" + TENSORS + "instance_group { kind: KIND_GPU }")
    text = error_of(repository)
    assert "config.pbtxt:4: instance_group[0].kind: KIND_GPU, but this machine has no GPU" in text
    assert "KIND_CPU" in text


def test_a_backend_that_does_not_exist(repository):
    write_files(repository, "m", "backend: 'pyton'" + TENSORS)
    assert "there is no backend 'pyton'; did you mean 'python'?" in error_of(repository)


# --- models ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"this is no model", b""])
def test_a_damaged_onnx_model(repository, data):
    pytest.importorskip("onnxruntime")
    write_files(repository, "m", None, model_onnx=data)
    text = error_of(repository)
    assert f"ONNX Runtime cannot load '{repository}/m/1/model.onnx'" in text


def test_a_model_without_its_file(repository):
    write_files(repository, "m", "backend: 'python'" + TENSORS, other_py="")
    assert f"there is no file '{repository}/m/1/model.py'" in error_of(repository)


def test_a_model_without_versions(repository):
    (repository / "m").mkdir()
    (repository / "m" / "config.pbtxt").write_text("backend: 'python'" + TENSORS)
    assert "it has no version folder" in error_of(repository)


INITIALIZE = (
    """
class TritonPythonModel:
    def initialize(self, args):
        try:
            {}["weights"]
        except KeyError as error:
            raise RuntimeError("no weights") from error
"""
    + EXECUTE
)
COMPLETE = (
    """
class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        return config.no_such_method()
"""
    + EXECUTE
)


@pytest.mark.parametrize(
    ("code", "said", "places"),
    [
        ("import nothing_of_that_name\n" + CLASS, "failed to import", ["(1): <module>"]),
        ("class TritonPythonModel:\n    def execute(self requests):\n        pass\n", "SyntaxError", ["line 2"]),
        ("import sys\nsys.exit(3)\n" + CLASS, "SystemExit: 3", ["(2): <module>"]),
        ("x = 1", "does not define a class 'TritonPythonModel'", []),
        ("class TritonPythonModel:\n    pass\n", "has no method 'execute'", []),
        (
            INITIALIZE,
            "failed to initialize model instance 'm_0': RuntimeError: no weights",
            ["(7): initialize", "Caused by KeyError: 'weights'", "(5): initialize"],
        ),
        (
            COMPLETE,
            "auto_complete_config of model 'm' failed: AttributeError",
            ["(5): auto_complete_config", "no_such_method"],
        ),
    ],
)
def test_a_python_model_that_fails_names_the_place(repository, code, said, places):
    write_files(repository, "m", "backend: 'python'" + TENSORS, model_py=code)
    text = error_of(repository)
    assert text.startswith("failed to load model 'm': ")
    assert said in text
    assert [place for place in places if place not in text] == []


def test_a_model_that_ends_its_process(repository):
    code = "import os, sys\nsys.stderr.write('last words')\nsys.stderr.flush()\nos._exit(3)"
    write_files(repository, "m", "backend: 'python'" + TENSORS, model_py=code)
    text = start(repository, "--log-info=false")
    assert "of model 'm' exited with code 3" in text
    assert "last words" in text


# --- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--htp-port=1", "there is no option '--htp-port'; did you mean '--http-port'?"),
        ("--allow-client-shm=true", "'--allow-client-shm' is an option of Triton that Shoal does not have: "),
        ("--http-port=99999", "option 'http-port': '99999' from the command line is not valid: it takes an integer"),
        ("--model-control-mode=explicit", "'explicit' from the command line is not valid: this mode is not supported"),
        ("--http-use-ssl", "--http-use-ssl needs --http-server-cert and --http-server-key"),
        ("--config=/absent", "the configuration file '/absent' cannot be read"),
        ("more", "unexpected extra argument (more)"),
    ],
)
def test_an_option_that_is_wrong(repository, option, said):
    assert said in error_of(repository, option)


def test_a_certificate_that_is_none(repository, tmp_path):
    (tmp_path / "pem").write_text("no certificate")
    files = [f"--http-server-{kind}={tmp_path}/pem" for kind in ("cert", "key")]
    assert "is not a valid PEM file" in error_of(repository, "--http-use-ssl", *files)


def test_a_variable_that_is_wrong(repository):
    text = error_of(repository, environment={"SHOAL_EXIT_TIMEOUT_SECS": "soon"})
    assert "'soon' from the variable SHOAL_EXIT_TIMEOUT_SECS is not valid: it takes an integer" in text


def test_a_log_file_that_cannot_be_written(repository, tmp_path):
    assert f"log-file '{tmp_path}' cannot be opened for writing" in error_of(repository, f"--log-file={tmp_path}")
