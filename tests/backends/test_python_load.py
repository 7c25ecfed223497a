"""Importing, completing, initializing and finalizing Python models."""

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shoal.backends import registry
from shoal.config.render import config_to_dict
from shoal.errors import ConfigError, InternalError, InvalidArgumentError, NotFoundError
from shoal.testing.backend_harness import NoRoom, load, run
from tests.backends.model_folders import ADD_SUB_CODE, ADD_SUB_CONFIG, python_model

BACKEND = registry.get("python")

NUMBER_CONFIG = """
backend: "python" max_batch_size: 8
input { name: "x" data_type: TYPE_INT32 dims: [ 1 ] } output { name: "y" data_type: TYPE_INT32 dims: [ 1 ] }
"""

NUMBER_CODE = """
import numpy as np
import triton_python_backend_utils as pb_utils
{imports}

class TritonPythonModel:
    def execute(self, requests):
        {body}
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", np.array([[value]], np.int32))]) for _ in requests]
"""


def number_model(folder: Path, name: str, imports: str, body: str, **siblings: str) -> Path:
    return python_model(folder, NUMBER_CODE.format(imports=imports, body=body), NUMBER_CONFIG, name, **siblings)


def number(model_dir: Path) -> int:
    loaded = load(BACKEND, model_dir)
    return ask_number(loaded, loaded.instance())


def ask_number(loaded: Any, instance: Any) -> int:
    (result,) = run(loaded, instance, [{"x": np.zeros((1, 1), np.int32)}], NoRoom())
    return int(result.outputs["y"].item())


@pytest.fixture(autouse=True)
def _clean_imports():
    """What a test's models put into the interpreter is taken out again."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith(("shoal_python_model_", "helper")):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("imports", "body"),
    [
        ("import helper_a", "value = helper_a.VALUE"),
        ("from . import helper_a", "value = helper_a.VALUE"),
        ("from .helper_a import VALUE", "value = VALUE"),
        ("", "import helper_a; value = helper_a.VALUE"),
        ("", "from .helper_a import VALUE; value = VALUE"),
        ("import importlib", "value = importlib.import_module('1.helper_a').VALUE"),
    ],
)
def test_files_beside_the_model_can_be_imported(tmp_path: Path, imports: str, body: str) -> None:
    """As under Triton, which runs ``1.model`` with the version's and the model's directory on the path."""
    assert number(number_model(tmp_path, "m", imports, body, helper_a="VALUE = 7")) == 7


def test_file_and_name_of_the_module(tmp_path: Path) -> None:
    model_dir = number_model(
        tmp_path, "m", "import sys", f"value = 1 if __file__ == {str(tmp_path / 'm/1/model.py')!r} else 0"
    )
    assert number(model_dir) == 1


def test_two_models_in_one_process_keep_their_own_files(tmp_path: Path) -> None:
    """Each has a ``helper_b``; the second does not get the first's, and the first keeps its own."""
    models = []
    for name, value in (("one", 1), ("two", 2)):
        model_dir = number_model(
            tmp_path, name, "import helper_b", "value = helper_b.VALUE", helper_b=f"VALUE = {value}"
        )
        loaded = load(BACKEND, model_dir)
        models.append((loaded, loaded.instance()))
    assert [ask_number(*model) for model in models] == [1, 2]


def test_files_of_the_model_do_not_hide_installed_modules(tmp_path: Path) -> None:
    """The model's directories come last on the path, as under Triton."""
    assert number(number_model(tmp_path, "m", "import json", "value = json.loads('5')", json="")) == 5


def test_a_changed_model_is_imported_anew(tmp_path: Path) -> None:
    model_dir = number_model(tmp_path, "m", "", "value = 1")
    assert number(model_dir) == 1
    (model_dir / "1" / "model.py").write_text(NUMBER_CODE.format(imports="# a longer file\n", body="value = 22"))
    assert number(model_dir) == 22


@pytest.mark.parametrize(
    ("code", "error", "text"),
    [
        (
            "x = = 1",
            InternalError,
            r"failed to import '.*model\.py' of model 'm': SyntaxError: .*\(model\.py, line 1\)",
        ),
        (
            "import not_there",
            InternalError,
            r"ModuleNotFoundError: No module named 'not_there'\n\nAt:\n  .*model\.py\(1\): <module>",
        ),
        ("raise SystemExit(2)", InternalError, "SystemExit: 2"),
        ("class Other: pass", InvalidArgumentError, "does not define a class 'TritonPythonModel'"),
        ("TritonPythonModel = 3", InvalidArgumentError, "does not define a class 'TritonPythonModel'"),
        ("class TritonPythonModel: pass", InvalidArgumentError, "'TritonPythonModel' has no method 'execute'"),
    ],
)
def test_models_that_cannot_be_loaded(tmp_path: Path, code: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        load(BACKEND, python_model(tmp_path, code))


def test_missing_file(tmp_path: Path) -> None:
    config = ADD_SUB_CONFIG + 'default_model_filename: "other.py"'
    with pytest.raises(NotFoundError, match=r"there is no file '.*other\.py'"):
        load(BACKEND, python_model(tmp_path, ADD_SUB_CODE, config))


def test_an_environment_of_its_own_has_no_effect_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    parameter = 'parameters { key: "EXECUTION_ENV_PATH" value { string_value: "env.tar.gz" } }'
    load(BACKEND, python_model(tmp_path, ADD_SUB_CODE, ADD_SUB_CONFIG + parameter))
    assert "model 'm': parameter 'EXECUTION_ENV_PATH' has no effect" in caplog.text


LIFE_CODE = """
import json
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    log = []
    def initialize(self, args):
        self.log.append(args)
        self.log.append(pb_utils.get_model_dir())
    def execute(self, requests):
        raise ValueError("no")
    def finalize(self):
        self.log.append("finalized")
        raise ValueError("too late")
"""


def test_initialize_gets_triton_s_arguments_and_finalize_runs_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """All arguments are text; the repository is the model's directory; finalize's errors go to the log."""
    model_dir = python_model(tmp_path, LIFE_CODE)
    loaded = load(BACKEND, model_dir)
    with closing(loaded.instance()) as instance:
        log = instance._model.log
        instance.close()
    arguments = log[0]
    config = json.loads(arguments.pop("model_config"))
    assert config["input"][0]["data_type"] == "TYPE_INT32"
    assert config["instance_group"][0]["kind"] == "KIND_CPU"
    assert arguments == {
        "model_instance_kind": "CPU",
        "model_instance_name": "m_0",
        "model_instance_device_id": "0",
        "model_repository": str(model_dir),
        "model_version": "1",
        "model_name": "m",
    }
    assert log[1:] == [str(model_dir / "1"), "finalized"]
    assert "ValueError: too late" in capfd.readouterr().err


def test_initialize_fails(tmp_path: Path) -> None:
    code = """
    class TritonPythonModel:
        def initialize(self, args):
            raise RuntimeError("no weights")
        def execute(self, requests):
            return []
    """
    loaded = load(BACKEND, python_model(tmp_path, code))
    with pytest.raises(InternalError) as caught:
        loaded.instance()
    path = tmp_path / "m" / "1" / "model.py"
    assert caught.value.message == (
        f"failed to initialize model instance 'm_0': RuntimeError: no weights\n\nAt:\n  {path}(4): initialize\n"
    )


AUTO_CODE = """
class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        {body}
    def execute(self, requests):
        return []
"""

AUTO_BODY = """config.add_input({"name": "x", "data_type": "TYPE_FP32", "dims": [4], "optional": True})
        config.add_output({"name": "y", "data_type": "TYPE_STRING", "dims": [-1, 2]})
        config.set_max_batch_size(16)
        config.set_dynamic_batching()
        return config"""


def test_the_model_completes_its_configuration(tmp_path: Path) -> None:
    config = config_to_dict(
        load(BACKEND, python_model(tmp_path, AUTO_CODE.format(body=AUTO_BODY), 'backend: "python"')).config
    )
    (source,), (target,) = config["input"], config["output"]
    assert (source["name"], source["data_type"], source["dims"], source["optional"]) == ("x", "TYPE_FP32", [4], True)
    assert (target["name"], target["data_type"], target["dims"]) == ("y", "TYPE_STRING", [-1, 2])
    assert config["max_batch_size"] == 16
    assert config["dynamic_batching"]["preferred_batch_size"] == [16]


def test_what_the_configuration_says_besides_is_kept(tmp_path: Path) -> None:
    """An input of the file stays, whatever else it says; so do the batcher's settings."""
    text = """
    backend: "python" max_batch_size: 4
    input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] optional: true }
    input { name: "z" data_type: TYPE_INT8 dims: [ 1 ] }
    dynamic_batching { max_queue_delay_microseconds: 5 }
    """
    body = AUTO_BODY.replace(', "optional": True', "")
    config = config_to_dict(load(BACKEND, python_model(tmp_path, AUTO_CODE.format(body=body), text)).config)
    assert [(tensor["name"], tensor["optional"]) for tensor in config["input"]] == [("x", True), ("z", False)]
    assert config["dynamic_batching"]["max_queue_delay_microseconds"] == 5
    assert config["max_batch_size"] == 16


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            "return None",
            r"auto_complete_config function in model 'm' must return a valid pb\.ModelConfig object, not NoneType",
        ),
        (
            "raise KeyError('k')",
            r"auto_complete_config of model 'm' failed: KeyError: 'k'\n\nAt:\n  .*\(5\): auto_complete",
        ),
        (
            "config.set_max_batch_size(2); return config",
            (
                "configuration specified max_batch_size 8, but in auto-complete-config function for model 'm' "
                "specified max_batch_size 2"
            ),
        ),
        (
            "config.add_input({'name': 'q', 'data_type': 'TYPE_WRONG', 'dims': [1]}); return config",
            "auto_complete_config of model 'm' made an invalid configuration: .*TYPE_WRONG",
        ),
    ],
)
def test_completing_fails(tmp_path: Path, body: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        load(BACKEND, python_model(tmp_path, AUTO_CODE.format(body=body)))
