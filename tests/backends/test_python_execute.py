"""What becomes of the ways in which ``execute`` may answer; texts as the real Triton 2.51 gives them."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shoal.backends import registry
from shoal.backends.contract import ModelBatch, RequestInfo, RequestResult
from shoal.errors import ModelError, Status
from shoal.testing.backend_harness import Loaded, NoRoom, PlentyOfRoom, load, run
from tests.backends.model_folders import python_model

BACKEND = registry.get("python")

CONFIG = """
backend: "python" max_batch_size: 8
input { name: "IN" data_type: TYPE_INT32 dims: [ 4 ] }
output [ { name: "OUT" data_type: TYPE_FP32 dims: [ 1 ] }, { name: "OUT2" data_type: TYPE_INT32 dims: [ 4 ] } ]
"""

PRELUDE = """
import sys
import numpy as np
import triton_python_backend_utils as pb_utils
from triton_python_backend_utils import InferenceResponse as R, Tensor as T, TritonError as E

def helper():
    raise KeyError("nokey")

def out(array=None):
    return T("OUT", np.zeros((1, 1), np.float32) if array is None else array)

class TritonPythonModel:
    def execute(self, requests):
"""


def model(folder: Path, body: str, config: str = CONFIG) -> tuple[Loaded, Any]:
    lines = "\n".join(f"        {line}" for line in body.splitlines())
    loaded = load(BACKEND, python_model(folder, PRELUDE + lines + "\n", config))
    return loaded, loaded.instance()


def ask(folder: Path, body: str, requests: int = 1) -> list[RequestResult]:
    loaded, instance = model(folder, body)
    return run(loaded, instance, [{"IN": np.zeros((1, 4), np.int32)}] * requests, NoRoom())


PREFIX = "Failed to process the request(s) for model 'm_0', message: "
FILE = "{file}"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("helper()", "KeyError: 'nokey'\n\nAt:\n  {file}(8): helper\n  {file}(15): execute\n"),
        ("raise pb_utils.TritonModelException('tme')", "TritonModelException: tme\n\nAt:\n  {file}(15): execute\n"),
        ("raise ValueError('multi\\nline')", "ValueError: multi\nline\n\nAt:\n  {file}(15): execute\n"),
        ("sys.exit(3)", "SystemExit: 3\n\nAt:\n  {file}(15): execute\n"),
        (
            "return (R([out()]) for r in requests)",
            "Expected a list in the execute return, found type '<class 'generator'>'.",
        ),
        ("return None", "Expected a list in the execute return, found type '<class 'NoneType'>'."),
        ("return (R([out()]),)", "Expected a list in the execute return, found type '<class 'tuple'>'."),
        (
            "return [5]",
            "Expected an 'InferenceResponse' object in the execute function return list, found type '<class 'int'>'.",
        ),
        (
            "return [None]",
            (
                "Expected an 'InferenceResponse' object in the execute function return list, "
                "found type '<class 'NoneType'>'."
            ),
        ),
        (
            "return []",
            (
                "Number of InferenceResponse objects do not match the number of InferenceRequest objects. "
                "InferenceRequest(s) size is:1, and InferenceResponse(s) size is:0\n"
            ),
        ),
        (
            "return [R([out()])] * 2",
            (
                "Number of InferenceResponse objects do not match the number of InferenceRequest objects. "
                "InferenceRequest(s) size is:1, and InferenceResponse(s) size is:2\n"
            ),
        ),
    ],
)
def test_failures_of_the_batch(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        ask(tmp_path, body)
    path = str(tmp_path / "m" / "1" / "model.py")
    assert caught.value.message == PREFIX + message.replace("{file}", path)
    assert caught.value.status is Status.INTERNAL


def test_a_coroutine_that_fails(tmp_path: Path) -> None:
    """The event loop's own frames are not the user's business."""
    loaded = load(
        BACKEND,
        python_model(tmp_path, PRELUDE.replace("def execute", "async def execute") + "        helper()\n", CONFIG),
    )
    with closing(loaded.instance()) as instance, pytest.raises(ModelError) as caught:
        run(loaded, instance, [{"IN": np.zeros((1, 4), np.int32)}], NoRoom())
    path = tmp_path / "m" / "1" / "model.py"
    assert caught.value.message == f"{PREFIX}KeyError: 'nokey'\n\nAt:\n  {path}(8): helper\n  {path}(15): execute\n"


def test_coroutines_share_one_loop(tmp_path: Path) -> None:
    """What a model starts on its event loop in one batch is still there in the next."""
    code = """
import asyncio
import numpy as np
from triton_python_backend_utils import InferenceResponse, Tensor

class TritonPythonModel:
    seen = []

    async def execute(self, requests):
        await asyncio.sleep(0)
        self.seen.append(asyncio.get_running_loop())
        same = all(loop is self.seen[0] for loop in self.seen)
        return [InferenceResponse([Tensor("OUT", np.full((1, 1), same, np.float32))]) for _ in requests]
"""
    loaded = load(BACKEND, python_model(tmp_path, code, CONFIG))
    instance = loaded.instance()
    for _ in range(3):
        (result,) = run(loaded, instance, [{"IN": np.zeros((1, 4), np.int32)}], NoRoom())
        assert result.outputs["OUT"] == 1
    instance.close()


TRITON_STATUSES = [status for status in Status if status is not Status.DEADLINE_EXCEEDED]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ("E('boo')", Status.INTERNAL),
        *((f"E('boo', E.{status.name})", status) for status in TRITON_STATUSES if status is not Status.INTERNAL),
    ],
)
def test_an_error_fails_its_own_request(tmp_path: Path, error: str, status: Status) -> None:
    first, second, third = ask(tmp_path, f"return [R([out()]), R([out()], error={error}), R([out()])]", requests=3)
    assert isinstance(second.error, ModelError)
    assert (second.error.message, second.error.status) == ("boo", status)
    assert first.error is third.error is None
    assert first.outputs["OUT"].tolist() == [[0]]


def test_output_of_another_type_fails_its_own_request(tmp_path: Path) -> None:
    good, bad = ask(tmp_path, "return [R([out()]), R([out(np.zeros((1, 1), np.int64))])]", requests=2)
    assert good.error is None
    assert bad.error is not None
    assert bad.error.message == "model 'm' returned output 'OUT' with data type INT64, but its configuration says FP32"


@pytest.mark.parametrize("requests", [1, 2])
def test_unknown_outputs_are_left_out(tmp_path: Path, requests: int) -> None:
    results = ask(tmp_path, "return [R([out(), T('NOPE', np.zeros(1, np.int32))]) for _ in requests]", requests)
    assert [list(result.outputs) for result in results] == [["OUT"]] * requests


@pytest.mark.parametrize("requests", [1, 2])
@pytest.mark.parametrize("shape", [(5, 1), (0, 1), (1, 7), (1,), ()])
def test_any_shape_is_passed_on(tmp_path: Path, shape: tuple[int, ...], requests: int) -> None:
    """Triton does not hold a model's outputs against its configuration's dims, nor against the request's batch size."""
    results = ask(tmp_path, f"return [R([out(np.zeros({shape}, np.float32))]) for _ in requests]", requests)
    assert [result.outputs["OUT"].shape for result in results] == [shape] * requests


def test_equal_totals_do_not_mix_requests_up(tmp_path: Path) -> None:
    """Two requests of one row, answered with none and two rows: joined they would look right and be wrong."""
    body = "return [R([out(np.zeros((n, 1), np.float32))]) for n in (0, 2)]"
    first, second = ask(tmp_path, body, requests=2)
    assert (first.outputs["OUT"].shape, second.outputs["OUT"].shape) == ((0, 1), (2, 1))


def test_different_outputs_in_one_batch(tmp_path: Path) -> None:
    body = "i = T('OUT2', np.ones((1, 4), np.int32))\nreturn [R([out(), i]), R([i, out()]), R([i]), R([])]"
    results = ask(tmp_path, body, requests=4)
    assert [sorted(result.outputs) for result in results] == [["OUT", "OUT2"], ["OUT", "OUT2"], ["OUT2"], []]


def test_response_parameters(tmp_path: Path) -> None:
    first, second = ask(tmp_path, "return [R([out()], parameters={'a': 1, 'b': 'x'}), R([out()])]", requests=2)
    assert first.parameters == {"a": 1, "b": "x"}
    assert not second.parameters


def test_uniform_responses_are_joined_in_the_room(tmp_path: Path) -> None:
    loaded, instance = model(tmp_path, "return [R([T('OUT2', r.inputs()[0].as_numpy() + 1)]) for r in requests]")
    room = PlentyOfRoom()
    requests = [{"IN": np.full((rows, 4), rows, np.int32)} for rows in (1, 3)]
    result = instance.execute(loaded.batch(requests), room)
    assert result.gathered["OUT2"] is room.given["OUT2"]
    assert result.gathered["OUT2"][:, 0].tolist() == [2, 4, 4, 4]


def test_a_single_response_is_not_copied(tmp_path: Path) -> None:
    loaded, instance = model(tmp_path, "return [R([T('OUT2', requests[0].inputs()[0].as_numpy())])]")
    x = np.zeros((2, 4), np.int32)
    result = instance.execute(loaded.batch([{"IN": x}]), PlentyOfRoom())
    assert result.gathered["OUT2"] is x


def test_text_outputs_of_every_kind(tmp_path: Path) -> None:
    config = CONFIG.replace("TYPE_FP32", "TYPE_STRING")
    body = "O = object\nreturn [R([out(a)]) for a in (np.array([['é']], O), np.array([[b'x']]), np.array([[5]], O))]"
    loaded, instance = model(tmp_path, body, config)
    results = run(loaded, instance, [{"IN": np.zeros((1, 4), np.int32)}] * 3, NoRoom())
    assert [result.outputs["OUT"].tolist() for result in results] == [[["é"]], [[b"x"]], [[5]]]


def test_what_a_request_tells(tmp_path: Path) -> None:
    body = """
r = requests[0]
told = [r.request_id(), r.correlation_id(), sorted(r.requested_output_names()), r.flags(), r.timeout(), r.parameters(),
        r.is_cancelled(), int(r.preferred_memory().preferred_memory_type), r.trace(), [t.name() for t in r.inputs()],
        r.inputs()[0].shape(), pb_utils.get_input_tensor_by_name(r, "OTHER")]
r.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_ALL)
r.set_flags(2)
told.append(r.flags())
import json
return [R(error=E(json.dumps(told)))]
"""
    _, instance = model(tmp_path, body)
    info = RequestInfo("7", {"foo": 3, "bar": "x", "t": True, "f": 1.5}, ("OUT2",), 0, 900, "seq", 1)
    batch = ModelBatch({"IN": np.zeros((2, 4), np.int32)}, [2], [info], True)
    (result,) = instance.execute(batch, NoRoom()).per_request
    parameters = '{"foo":3,"bar":"x","t":true,"f":1.5}'
    assert json.loads(result.error.message) == [
        "7", "seq", ["OUT2"], 1, 900, parameters, False, 1, None, ["IN"], [2, 4], None, 2,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            "exec()",
            "InferenceRequest.exec(): calling another model from a model (BLS) is not supported in this version",
        ),
        ("async_exec(decoupled=True)", "InferenceRequest.async_exec(decoupled=True): calling another model"),
        ("get_response_sender()", "Cannot send responses: the request did not come from the server"),
        ("set_release_flags(7)", "set_release_flags: the flags must be TRITONSERVER_REQUEST_RELEASE_ALL or "),
    ],
)
def test_what_is_not_supported_says_so(tmp_path: Path, call: str, text: str) -> None:
    with pytest.raises(ModelError) as caught:
        ask(tmp_path, f"requests[0].{call}")
    assert f"TritonModelException: {text}" in caught.value.message
