"""Unequal lengths and batch strategies through ``shoal serve`` with Triton's own clients."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tritonclient import grpc as grpc_client
from tritonclient import http as http_client
from tritonclient.utils import InferenceServerException

from shoal.datatypes import DataType
from tests.execution.models import write_model
from tests.execution.unequal_models import write_encoder, write_ragged
from tests.serving import ShoalProcess

LENGTHS = [2, 9, 4, 7]
RAGGED = "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO"
POLICY = {"X": {"mask": "MASK", "length": "LENGTHS", "outputs": ["TWICE", "SHARE"], "maximum": 16, "multiple_of": 4}}
STRATEGY = """
class BatchStrategy:
    '''At most two requests to a batch, and only of one tenant.'''

    def __init__(self, config):
        self.most = int(config["parameters"]["most"]["string_value"])

    def begin(self):
        self.tenants = []

    def include(self, request):
        self.tenants.append(request.parameters.get("tenant"))
        return len(self.tenants) <= self.most and len(set(self.tenants)) == 1
"""
COUNTS = """
class TritonPythonModel:
    def execute(self, requests):
        return [answer(np.full_like(value(request), len(requests))) for request in requests]
"""
PATIENT = "dynamic_batching { max_queue_delay_microseconds: 1000000 }"
FOUR = "dynamic_batching { preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 60000000 }"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    repository = tmp_path_factory.mktemp("models")
    write_encoder(repository, policy=POLICY, more=FOUR)
    write_ragged(repository, RAGGED, DataType.INT32, more=FOUR)
    most = 'parameters { key: "most" value { string_value: "2" } }'
    path = 'parameters { key: "TRITON_BATCH_STRATEGY_PATH" value { string_value: "rules/pairs.py" } }'
    found = write_model(repository, "ruled", COUNTS, more=f"{most} {PATIENT}")
    (found / "1" / "batchstrategy.py").write_text(STRATEGY)
    named = write_model(repository, "ruled_by_path", COUNTS, more=f"{most} {path} {PATIENT}")
    (named / "rules").mkdir()
    (named / "rules" / "pairs.py").write_text(STRATEGY)
    with ShoalProcess(repository) as server:
        yield server


@pytest.fixture(params=["http", "grpc"])
def client(request, served):
    if request.param == "http":
        made = http_client.InferenceServerClient(served.http, concurrency=8), http_client
    else:
        made = grpc_client.InferenceServerClient(served.grpc), grpc_client
    with made[0]:
        yield made


def infer(client, model, tensors, **more):
    connection, module = client
    inputs = []
    for name, array in tensors.items():
        made = module.InferInput(name, list(array.shape), "FP32")
        made.set_data_from_numpy(array)
        inputs.append(made)
    return connection.infer(model, inputs, **more)


def together(client, model, tensors, **more):
    """Send all at the same time, each from a thread of its own (gevent's pool for HTTP), and wait for all answers."""
    connection, module = client
    if module is http_client:
        pending = []
        for each in tensors:
            inputs = []
            for name, array in each.items():
                made = module.InferInput(name, list(array.shape), "FP32")
                made.set_data_from_numpy(array)
                inputs.append(made)
            pending.append(connection.async_infer(model, inputs, **more))
        return [one.get_result() for one in pending]
    with ThreadPoolExecutor(len(tensors)) as pool:
        return list(pool.map(lambda each: infer(client, model, each, **more), tensors))


def row(length):
    return np.arange(1, length + 1, dtype=np.float32)[None]


def test_padded_requests_share_a_batch_and_are_cut_back(client):
    answers = together(client, "encoder", [{"X": row(length)} for length in LENGTHS])
    for length, answer in zip(LENGTHS, answers, strict=True):
        assert answer.as_numpy("TWICE").tolist() == (row(length) * 2).tolist()
        assert answer.as_numpy("SUM").tolist() == [[length * (length + 1) / 2]]
        assert answer.as_numpy("LENGTH").tolist() == [[length]]
        assert answer.as_numpy("SIZE").tolist() == [[len(LENGTHS) * 12]]


def test_ragged_requests_share_a_batch_and_are_scattered(client):
    tensors = [{"X": row(length), "ROW": np.zeros((1, 1), np.float32)} for length in LENGTHS]
    answers = together(client, f"ragged_{RAGGED.lower()}_INT32", tensors)
    for length, answer in zip(LENGTHS, answers, strict=True):
        assert answer.as_numpy("TWICE").tolist() == (row(length) * 2).tolist()
        assert answer.as_numpy("MADE")[0, [0, -1]].tolist() == [0, sum(LENGTHS)]


def test_too_long_a_request_is_a_400_with_the_limit(client):
    with pytest.raises(InferenceServerException) as caught:
        infer(client, "encoder", {"X": row(17)})
    assert caught.value.status() in {"400", "StatusCode.INVALID_ARGUMENT"}
    assert "input 'X' for model 'encoder' has length 17 in dimension 1, at most 16 is allowed" in str(caught.value)


@pytest.mark.parametrize("model", ["ruled", "ruled_by_path"])
def test_a_batch_strategy_decides_what_joins(client, model):
    answers = together(client, model, [{"IN": row(1)} for _ in range(4)], parameters={"tenant": "a"})
    assert [int(answer.as_numpy("OUT")[0, 0]) for answer in answers] == [2, 2, 2, 2]
