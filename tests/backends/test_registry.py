"""The registry: names, platforms, errors, and that asking it imports nothing heavy."""

import subprocess
import sys

import pytest

from shoal.backends import registry
from shoal.errors import ConfigError, NotFoundError, UnsupportedError


@pytest.mark.parametrize("name", registry.names())
def test_backends_are_what_their_traits_say(name: str) -> None:
    traits, backend = registry.traits(name), registry.get(name)
    assert backend.name == name == traits.name
    assert backend.process_per_instance == traits.process_per_instance
    assert backend.preload == traits.preload


def test_platform_name() -> None:
    assert registry.traits("onnxruntime_onnx").name == "onnxruntime"


def test_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(NotFoundError, match="no backend 'pyhton'; did you mean 'python'"):
        registry.get("pyhton")


def test_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "find_spec", lambda _: None)
    with pytest.raises(UnsupportedError, match=r"pip install 'shoal\[onnx\]'"):
        registry.traits("onnxruntime")
    assert registry.traits("python").name == "python"


def test_wrong_setting() -> None:
    with pytest.raises(ConfigError, match="'default-max-batch-size' must be a number of 0 or more, not 'four'"):
        registry.get("onnxruntime", {"default-max-batch-size": "four"})


def test_traits_import_nothing_heavy() -> None:
    """The server asks for traits while it starts: NumPy and ONNX Runtime stay out of its process."""
    code = (
        "import sys; from shoal.backends import registry; registry.traits('onnxruntime'); registry.traits('python');"
        "sys.exit(any(name in sys.modules for name in ('numpy', 'onnxruntime', 'google.protobuf')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


@pytest.mark.parametrize("name", registry.names())
def test_backend_works_in_a_fork_of_a_process_that_preloaded_it(name: str) -> None:
    """Fork after importing what ``preload`` names is safe: a child makes a session and runs it."""
    code = f"""
import importlib, os, warnings
from shoal.backends import registry
for module in registry.traits({name!r}).preload:
    importlib.import_module(module)
warnings.simplefilter("ignore")
for _ in range(3):
    child = os.fork()
    if child == 0:
        import numpy, sys
        if {name!r} == "onnxruntime":
            import onnx, onnxruntime
            x = onnx.helper.make_tensor_value_info("x", 1, ["n", 256])
            y = onnx.helper.make_tensor_value_info("y", 1, ["n", 256])
            w = onnx.numpy_helper.from_array(numpy.ones((256, 256), numpy.float32), "w")
            graph = onnx.helper.make_graph([onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [w])
            model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 2
            session = onnxruntime.InferenceSession(model.SerializeToString(), options)
            result = session.run(None, {{"x": numpy.ones((64, 256), numpy.float32)}})[0]
        else:
            result = numpy.full((64, 256), 256) @ numpy.eye(256)
        os._exit(0 if (result == 256).all() else 1)
    assert os.waitpid(child, 0)[1] == 0
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
