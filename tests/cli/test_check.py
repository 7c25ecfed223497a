"""``shoal check``, as a person and a script see it."""

from click.testing import CliRunner

from shoal.cli import check as module
from shoal.cli.check import check, check_repository
from shoal.cli.main import main

CODE = "class TritonPythonModel:\n    def execute(self, requests):\n        return []\n"
CONFIG = """backend: "python"
max_batch_size: 8
input { name: "a" data_type: TYPE_FP32 dims: 4 }
output { name: "b" data_type: TYPE_FP32 dims: 4 }
instance_group [ { count: 2 kind: KIND_CPU }, { kind: KIND_MODEL } ]
"""


def write(repository, name, config=CONFIG):
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(config)
    (repository / name / "1" / "model.py").write_text(CODE)


def run(*arguments):
    return CliRunner().invoke(check, [str(argument) for argument in arguments])


def test_fine_models_are_listed_and_the_status_is_0(tmp_path):
    write(tmp_path, "fish")
    done = run(tmp_path)
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        "Model  Backend  Versions  Max batch  Instances",
        "fish   python   1         8          2 x CPU, 1 x MODEL",
        "1 model, no problems",
    ]


def test_problems_are_lines_and_the_status_is_1(tmp_path):
    write(tmp_path, "bad", CONFIG + "max_batchsize: 8\nmodel_operations { op_library_filename: 'a.so' }\n")
    write(tmp_path, "good")
    (tmp_path / "good" / "v1").mkdir()
    done = run(tmp_path)
    assert done.exit_code == 1
    lines = done.output.splitlines()
    assert lines[0].startswith(
        f"{tmp_path}/bad/config.pbtxt:6: max_batchsize: unknown field 'max_batchsize'; did you mean 'max_batch_size'?"
    )
    assert lines[1].startswith(
        f"{tmp_path}/bad/config.pbtxt:7: model_operations: not supported by this version of Shoal"
    )
    assert lines[2].startswith(f"warning: {tmp_path}/good/v1: ignored")
    assert lines[3].split() == ["Model", "Backend", "Versions", "Max", "batch", "Instances"]
    assert lines[4].startswith("good ")
    assert lines[5] == "2 models, 2 problems in 1 of them"


def test_a_terminal_gets_a_table(tmp_path, monkeypatch):
    """Grouped by model; brackets in a message are no markup."""
    write(tmp_path, "bad", CONFIG + "dynamic_batching { preferred_batch_size: 9 }")
    write(tmp_path, "good")
    monkeypatch.setattr(module, "_is_terminal", lambda: True)
    done = run(tmp_path)
    assert done.exit_code == 1
    output = "".join(done.output.split())
    assert "dynamic_batching.preferred_batch_size[0]:mustbefrom1tomax_batch_size(8),found9" in output
    assert "│good│python│1│8│2xCPU,1xMODEL│" in output


def test_an_empty_repository_is_fine(tmp_path):
    done = run(tmp_path)
    assert (done.exit_code, done.output) == (0, "no models\n")


def test_a_missing_repository_is_an_error_without_a_traceback(tmp_path, capsys):
    assert main(["check", str(tmp_path / "nowhere")]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path}/nowhere: the model repository does not exist\n"


def test_the_command_line_has_the_status(tmp_path, capsys):
    write(tmp_path, "fish")
    assert main(["check", str(tmp_path)]) == 0
    write(tmp_path, "bad", CONFIG + "runtime: 'x'")
    assert main(["check", str(tmp_path)]) == 1
    assert "2 models, 1 problem in 1 of them" in capsys.readouterr().out


def test_a_repository_must_be_named():
    assert run().exit_code == 2


def test_the_function_gives_all_problems_of_all_repositories(tmp_path):
    write(tmp_path / "one", "a", CONFIG + "runtime: 'x'")
    write(tmp_path / "two", "b", CONFIG + "max_batch_size: 1")
    problems = check_repository([tmp_path / "one", tmp_path / "two"])
    assert [problem.field for problem in problems] == ["runtime", "max_batch_size"]
