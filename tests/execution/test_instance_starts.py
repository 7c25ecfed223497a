"""How the instances of a model start."""

from __future__ import annotations

from shoal.testing.in_process import InProcessServer
from tests.execution.models import write_model


def test_instances_of_a_model_start_at_the_same_time(tmp_path):
    """Each waits in ``initialize`` for the other one, so one after the other would never be done."""
    marks = tmp_path / "marks"
    marks.mkdir()
    write_model(
        tmp_path / "models",
        "pair",
        f"""
        class TritonPythonModel:
            def initialize(self, args):
                open({str(marks)!r} + "/" + args["model_instance_name"], "w").close()
                deadline = time.monotonic() + 20
                while len(os.listdir({str(marks)!r})) < 2:
                    if time.monotonic() > deadline:
                        raise RuntimeError("the other instance did not start beside this one")
                    time.sleep(0.01)

            def execute(self, requests):
                return [answer(value(request)) for request in requests]
        """,
        count=2,
    )
    with InProcessServer(tmp_path / "models") as server:
        assert server.call(lambda: server.server.ready)
    assert sorted(path.name for path in marks.iterdir()) == ["pair_0_0", "pair_0_1"]
