"""Requests of unequal lengths really share batches, in ONNX and Python models, and get what they would get alone."""

from __future__ import annotations

import numpy as np
import pytest

from shoal.datatypes import DataType
from shoal.errors import InvalidArgumentError, ModelError
from shoal.testing.in_process import InProcessServer

from .models import HEAD
from .unequal_models import KINDS, padding_text, write_encoder, write_python, write_ragged

SIZES = [(2, 1), (5, 2), (3, 1), (4, 4)]
POLICY = {"X": {"value": 7, "mask": "MASK", "length": "LENGTHS", "outputs": ["TWICE", "SHARE"]}}
STRICT = {"X": {**POLICY["X"], "multiple_of": 4, "maximum": 8}}
BUCKETS = {"X": {**POLICY["X"], "buckets": [4]}}
INCOMPLETE = 'backend: "onnxruntime" max_batch_size: 8\n%s\ndynamic_batching { max_queue_delay_microseconds: 200000 }'

CHAIN = """
platform: "ensemble"
max_batch_size: 8
input [ { name: "X" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "FOUR" data_type: TYPE_FP32 dims: [ -1 ] } ]
ensemble_scheduling {
  step [
    {
      model_name: "encoder" model_version: -1
      input_map { key: "X" value: "X" } output_map { key: "TWICE" value: "TWO" }
    },
    {
      model_name: "python_padded" model_version: -1
      input_map { key: "X" value: "TWO" } output_map { key: "TWICE" value: "FOUR" }
    }
  ]
}
"""

PYTHON = """
class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            seen = {tensor.name(): list(tensor.as_numpy().shape) for tensor in request.inputs()}
            x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
            told = np.array([[json.dumps([len(requests), seen]).encode()]] * len(x), object)
            responses.append(pb_utils.InferenceResponse([
                pb_utils.Tensor("TWICE", x * 2), pb_utils.Tensor("SEEN", told),
            ]))
        return responses
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    repository = tmp_path_factory.mktemp("models")
    write_encoder(repository, mask=DataType.BOOL)
    write_encoder(repository, "strict", policy=STRICT)
    write_encoder(repository, "bucketed", policy=BUCKETS)
    completed = write_encoder(repository, "completed")
    (completed / "config.pbtxt").write_text(INCOMPLETE % padding_text(POLICY))
    for kind in KINDS:
        for datatype in (DataType.INT32, DataType.FP32):
            write_ragged(repository, kind, datatype)
    code = "import json\n" + HEAD + PYTHON
    write_python(repository, "python_padded", code, padding_text({"X": {"mask": "MASK"}}))
    write_python(repository, "python_ragged", code, ragged=True)
    (repository / "chain" / "1").mkdir(parents=True)
    (repository / "chain" / "config.pbtxt").write_text(CHAIN)
    with InProcessServer(repository) as server:
        yield server


def xs():
    """One tensor of each size: a request's rows count from 1 on."""
    return [np.tile(np.arange(1, length + 1, dtype=np.float32), (rows, 1)) for length, rows in SIZES]


def ask(server, model, tensors, **more):
    """Send all at once; the answers in order."""
    pending = [server.submit(model, {"X": x, **{name: make(x) for name, make in more.items()}}) for x in tensors]
    return [one.outputs() for one in pending]


@pytest.mark.parametrize("model", ["encoder", "completed"])
def test_a_model_that_heeds_its_mask_answers_as_if_each_request_were_alone(server, model):
    together = ask(server, model, xs())
    for x, found in zip(xs(), together, strict=True):
        (alone,) = ask(server, model, [x])
        assert found["TWICE"].tolist() == (x * 2).tolist()
        assert found["SUM"].tolist() == x.sum(1, keepdims=True).tolist()
        assert found["LENGTH"].tolist() == [[x.shape[1]]] * len(x)
        assert found["SIZE"].tolist() == [[8 * 5]] * len(x)
        assert alone["SIZE"].tolist() == [[x.size]] * len(x)
        for name in ("TWICE", "SHARE", "SUM", "LENGTH"):
            assert found[name].tobytes() == alone[name].tobytes()
            assert found[name].shape == alone[name].shape


def test_one_request_alone_is_padded_to_the_multiple(server):
    (found,) = ask(server, "strict", [np.ones((1, 5), np.float32)])
    assert found["SIZE"].tolist() == [[8]]
    assert found["TWICE"].tolist() == [[2.0] * 5]
    assert found["SUM"].tolist() == [[5.0]]


def test_a_request_that_is_too_long_is_refused_and_told_the_limit(server):
    with pytest.raises(
        InvalidArgumentError, match="input 'X' for model 'strict' has length 9 in dimension 1, at most 8"
    ):
        ask(server, "strict", [np.ones((1, 9), np.float32)])


def test_requests_of_different_buckets_do_not_meet(server):
    found = ask(server, "bucketed", xs())
    # lengths 2, 3 and 4 with 6 rows, and length 5 with 2 rows
    assert [int(one["SIZE"][0, 0]) for one in found] == [6 * 4, 2 * 5, 6 * 4, 6 * 4]


def test_the_mask_is_no_input_for_clients(server):
    inputs = server.call(server.server.model_metadata, "encoder")["inputs"]
    assert [tensor["name"] for tensor in inputs] == ["X"]
    with pytest.raises(InvalidArgumentError, match="expected 1 inputs but got 2 inputs"):
        ask(server, "encoder", xs()[:1], MASK=lambda x: x.astype(bool))


def test_an_ensemble_passes_tensors_of_their_own_length_on_and_maps_no_mask(server):
    for x, found in zip(xs(), ask(server, "chain", xs()), strict=True):
        assert found["FOUR"].tolist() == (x * 4).tolist()


def test_large_ragged_tensors_reach_a_python_model_as_they_are(server):
    tensors = [np.arange(length, dtype=np.float32)[None] for length in (40_000, 3, 30_000)]
    for x, found in zip(tensors, ask(server, "python_ragged", tensors), strict=True):
        assert found["TWICE"].tobytes() == (x * 2).tobytes()


def test_padding_is_counted(server):
    def counted():
        found = server.call(server.server.explanation, "strict")["padding"]
        return found["elements"], found["padded_elements"]

    before = counted()
    ask(server, "strict", [np.ones((1, 5), np.float32)])
    assert [after - first for after, first in zip(counted(), before, strict=True)] == [5, 8]


def zero_rows(x):
    return np.zeros((len(x), 1), np.float32)


MADE = {
    "BATCH_ELEMENT_COUNT": ([2, 10, 3, 16], [4]),
    "BATCH_ACCUMULATED_ELEMENT_COUNT": ([2, 12, 15, 31], [4]),
    "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO": ([0, 2, 12, 15, 31], [5]),
    "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE": ([0] * 16, [16]),
    "BATCH_ITEM_SHAPE": ([2, 5, 5, 3, 4, 4, 4, 4], [8, 1]),
    "BATCH_ITEM_SHAPE_FLATTEN": ([2, 5, 5, 3, 4, 4, 4, 4], [8]),
}


@pytest.mark.parametrize("datatype", ["INT32", "FP32"])
@pytest.mark.parametrize("kind", KINDS)
def test_ragged_inputs_batch_inputs_and_batch_outputs_are_tritons(server, kind, datatype):
    """Triton's ``backend_input_collector.cc`` and ``backend_output_responder.cc``, for a batch of four requests."""
    tensors = xs()
    model = f"ragged_{kind.lower()}_{datatype}"
    for x, found in zip(tensors, ask(server, model, tensors, ROW=zero_rows), strict=True):
        assert found["SEEN"].tolist() == [[v for each in tensors for v in each.reshape(-1)]] * len(x)
        assert found["MADE"].tolist() == [MADE[kind][0]] * len(x)
        assert found["SHAPE"].tolist() == [MADE[kind][1]] * len(x)
        assert found["TWICE"].tolist() == (x * 2).tolist()


def seen(found):
    return [__import__("json").loads(row[0]) for row in found["SEEN"]]


def test_a_python_model_gets_the_rows_padded_with_the_mask_beside_them(server):
    for x, found in zip(xs(), ask(server, "python_padded", xs()), strict=True):
        rows = len(x)
        assert seen(found) == [[4, {"X": [rows, 5], "MASK": [rows, 5]}]] * rows
        assert found["TWICE"].tolist() == (x * 2).tolist()


def test_a_ragged_python_model_gets_each_requests_own_tensor_and_no_batch_input(server):
    for x, found in zip(xs(), ask(server, "python_ragged", xs()), strict=True):
        assert seen(found) == [[4, {"X": list(x.shape)}]] * len(x)
        assert found["TWICE"].tolist() == (x * 2).tolist()


def test_a_scattered_output_that_is_too_short_is_an_error_that_names_both_tensors(tmp_path):
    folder = write_ragged(tmp_path, "BATCH_ELEMENT_COUNT", DataType.INT32)
    config = folder / "config.pbtxt"
    cut = '{ name: "TWICE" data_type: TYPE_FP32 dims: [ -1 ] }'
    config.write_text(config.read_text().replace(cut, cut.replace("-1", "-1, 3")))
    config.write_text(config.read_text().replace("dims: [ -1 ] allow", "dims: [ -1, 1 ] allow"))
    with InProcessServer(tmp_path) as server, pytest.raises(Exception) as caught:
        x = np.ones((1, 2, 1), np.float32)
        server.infer(folder.name, {"X": x, "ROW": zero_rows(x)})
    assert "gave 8 bytes of output 'TWICE', which batch_output cuts into 24" in str(caught.value)
    assert "by the shapes of input 'X'" in str(caught.value)


def test_a_ragged_model_that_takes_a_batch_dimension_is_refused_at_load(tmp_path):
    folder = write_encoder(tmp_path)
    config = folder / "config.pbtxt"
    text = config.read_text()
    text = text.replace(
        'name: "X" data_type: TYPE_FP32 dims: [ -1 ]',
        'name: "X" data_type: TYPE_FP32 dims: [ -1 ] allow_ragged_batch: true',
    )
    config.write_text(text[: text.index("parameters")])
    with pytest.raises(Exception, match="with allow_ragged_batch the model must take one variable dimension"):
        InProcessServer(tmp_path).__enter__()


def test_a_failed_batch_is_told_to_every_request_of_it(tmp_path):
    code = (
        "import json\n"
        + HEAD
        + "class TritonPythonModel:\n    def execute(self, requests):\n        raise ValueError('no')\n"
    )
    write_python(tmp_path, "failing", code, padding_text({"X": {"mask": "MASK"}}))
    with InProcessServer(tmp_path) as server:
        pending = [server.submit("failing", {"X": x}) for x in xs()]
        for one in pending:
            with pytest.raises(ModelError, match="no"):
                one.outputs()
