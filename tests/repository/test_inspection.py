"""Everything that would keep a model from being served, found without starting it."""

import importlib

import pytest

from shoal.repository.inspection import inspect_repositories
from shoal.repository.python_source import inspect_python

GOOD = """
import triton_python_backend_utils as utils


class TritonPythonModel:
    def execute(self, requests):
        return []
"""
CONFIG = """
backend: "python"
input { name: "a" data_type: TYPE_FP32 dims: 4 }
output { name: "b" data_type: TYPE_FP32 dims: 4 }
"""


def write(repository, name, config=CONFIG, code=GOOD, version="1"):
    folder = repository / name
    (folder / version).mkdir(parents=True)
    if config is not None:
        (folder / "config.pbtxt").write_text(config)
    if code is not None:
        (folder / version / "model.py").write_text(code)
    return folder


def found(repository, gpu_count=0):
    reports = inspect_repositories([repository], gpu_count)
    return [str(problem).removeprefix(f"{repository}/") for report in reports for problem in report.problems]


def test_a_good_model_has_a_report_without_problems(tmp_path):
    write(tmp_path, "m")
    (report,) = inspect_repositories([tmp_path], 0)
    assert (report.name, report.problems, report.warnings, report.versions) == ("m", (), (), (1,))
    assert (report.config.backend, len(report.config.instance_group)) == ("python", 1)


def test_every_model_is_reported(tmp_path):
    write(tmp_path, "broken", code="def f(:\n    pass\n")
    write(tmp_path, "empty", code=None)
    write(tmp_path, "labels", CONFIG.replace('name: "b"', 'name: "b" label_filename: "l.txt"'))
    write(tmp_path, "misspelt", code="class TritonPythonModl:\n    pass\n")
    write(tmp_path, "mute", code="\n\nclass TritonPythonModel:\n    def exekute(self, requests):\n        pass\n")
    write(tmp_path, "specific", CONFIG + "version_policy { specific { versions: [ 1, 4 ] } }")
    write(tmp_path, "strange", CONFIG.replace("python", "pythn"))
    (tmp_path / "versionless").mkdir()
    (tmp_path / "versionless" / "config.pbtxt").write_text(CONFIG)
    unknown = "there is no backend 'pythn'; did you mean 'python'?; known: onnxruntime, python"
    assert found(tmp_path) == [
        "broken/1/model.py:1: not Python: invalid syntax",
        "empty/1: there is no file model.py; add it, or name it in default_model_filename",
        f"labels/config.pbtxt:4: output[0].label_filename: there is no file {tmp_path}/labels/l.txt",
        "misspelt/1/model.py: has no class TritonPythonModel; it has: TritonPythonModl",
        "mute/1/model.py:3: class TritonPythonModel has no method execute(self, requests); it has: exekute",
        f"specific/config.pbtxt:5: version_policy.specific.versions[1]: there is no folder {tmp_path}/specific/4",
        f"strange/config.pbtxt:2: backend: {unknown}",
        "versionless: has no version; put the model's files into a folder named 1 in it",
    ]


def test_problems_of_one_model_come_together(tmp_path):
    config = CONFIG.replace("TYPE_FP32", "TYPE_FP33", 1)
    config = (
        config.replace('"b" data_type: TYPE_FP32 dims: 4', '"b" data_type: TYPE_FP32 dims: 0') + "max_batch_size: -1\n"
    )
    write(tmp_path, "m", config, code="class TritonPythonModel:\n    pass\n")
    lines = [line.split(": ")[:2] for line in found(tmp_path)]
    assert lines == [
        ["m/config.pbtxt:3", "input[0].data_type"],
        ["m/config.pbtxt:5", "max_batch_size"],
        ["m/1/model.py:1", "class TritonPythonModel has no method execute(self, requests)"],
        ["m/config.pbtxt:4", "output[0].dims[0]"],
    ]


def test_each_version_is_looked_at(tmp_path):
    folder = write(tmp_path, "m", CONFIG + "version_policy { all { } }")
    (folder / "2").mkdir()
    assert found(tmp_path) == ["m/2: there is no file model.py; add it, or name it in default_model_filename"]


def test_versions_that_are_not_served_are_not_looked_at(tmp_path):
    folder = write(tmp_path, "m", version="2")
    (folder / "1").mkdir()
    assert found(tmp_path) == []


def test_a_policy_that_leaves_nothing_is_a_problem(tmp_path):
    write(tmp_path, "m", CONFIG + "version_policy { specific { versions: [ ] } }")
    assert [line.split(": ")[1] for line in found(tmp_path)] == ["version_policy.specific.versions"]


def test_a_python_model_may_tell_its_tensors_itself(tmp_path):
    """``auto_complete_config`` is the model's own code, and is not run here."""
    completing = GOOD + "\n    @staticmethod\n    def auto_complete_config(config):\n        return config\n"
    write(tmp_path, "a", None, completing)
    write(tmp_path, "b", None, GOOD)
    assert found(tmp_path) == [
        "b: input: the model has neither inputs nor outputs; list them, for the model itself does not tell"
    ]


@pytest.mark.parametrize(
    "code",
    [
        "from fish import TritonPythonModel",
        "from fish import Model as TritonPythonModel",
        "from fish import *",
        "import fish\nTritonPythonModel = fish.Model",
        "try:\n    from fish import TritonPythonModel\nexcept ImportError:\n    pass",
        "from fish import Base\nclass TritonPythonModel(Base):\n    pass",
        "if True:\n    class TritonPythonModel:\n        execute = None",
        "@decorated\nclass TritonPythonModel:\n    pass",
    ],
)
def test_what_cannot_be_seen_without_running_is_no_problem(tmp_path, code):
    (tmp_path / "model.py").write_text(code)
    source = inspect_python(tmp_path / "model.py")
    assert source.problems == ()


def test_a_file_that_is_no_text_is_a_problem(tmp_path):
    (tmp_path / "model.py").write_bytes(b"\x00\xff")
    assert len(inspect_python(tmp_path / "model.py").problems) == 1


def test_a_model_in_two_repositories_is_a_problem(tmp_path):
    for name in ("one", "two"):
        write(tmp_path / name, "m")
    (report,) = inspect_repositories([tmp_path / "one", tmp_path / "two"], 0)
    assert report.problems[0].message.startswith("model appears in two or more repositories: ")


def write_onnx(path, output="y"):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kinds = onnx.helper, onnx.TensorProto
    shape = ["N", 4]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], [output])],
        "g",
        [helper.make_tensor_value_info("x", kinds.FLOAT, shape)],
        [helper.make_tensor_value_info(output, kinds.FLOAT, shape)],
    )
    path.parent.mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def test_an_onnx_model_needs_no_configuration(tmp_path):
    write_onnx(tmp_path / "relu" / "1" / "model.onnx")
    (report,) = inspect_repositories([tmp_path], 0)
    assert report.problems == ()
    assert [tensor.name for tensor in (*report.config.input, *report.config.output)] == ["x", "y"]
    assert report.config.instance_group[0].count == 2


def test_a_configuration_that_does_not_fit_its_onnx_model_is_a_problem(tmp_path):
    write_onnx(tmp_path / "relu" / "1" / "model.onnx")
    (tmp_path / "relu" / "config.pbtxt").write_text('input { name: "z" data_type: TYPE_FP32 dims: [ -1, 4 ] }')
    lines = found(tmp_path)
    assert lines
    assert all(line.startswith("relu/config.pbtxt") for line in lines)
    assert "'z'" in lines[0]


def test_an_onnx_file_that_is_none_is_a_problem(tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "model.onnx").write_bytes(b"not a model")
    assert len(found(tmp_path)) == 1


def test_a_backend_whose_package_is_missing_says_how_to_install_it(tmp_path, monkeypatch):
    registry = importlib.import_module("shoal.backends.registry")
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "model.onnx").touch()
    (line,) = found(tmp_path)
    assert "pip install 'shoal[onnx]'" in line
