"""Splitting a batch into requests and joining the responses is the identity, however rows and responses fall."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shoal.backends.contract import ModelBatch, RequestInfo
from shoal.backends.python_batch import Collector, split
from shoal.backends.python_served import ServedBatch
from shoal.backends.triton_python.errors import TritonError
from shoal.backends.triton_python.lookup import get_input_tensor_by_name
from shoal.backends.triton_python.response import InferenceResponse
from shoal.backends.triton_python.tensor import Tensor
from shoal.datatypes import DataType
from shoal.testing.backend_harness import NoRoom, PlentyOfRoom

TYPES = {"x": DataType.FP32, "s": DataType.BYTES}


def batch_of(rows: list[int], width: int) -> ModelBatch:
    total = sum(rows)
    x = np.arange(total * width, dtype=np.float32).reshape(total, width)
    s = np.array([[b"%d" % row] for row in range(total)], dtype=object).reshape(total, 1)
    return ModelBatch({"x": x, "s": s}, rows, [RequestInfo(outputs=("x", "s"))] * len(rows), True)


@given(
    rows=st.lists(st.integers(0, 3), min_size=1, max_size=6),
    width=st.integers(0, 3),
    kinds=st.lists(
        st.sampled_from(["plain", "plain", "plain", "swapped", "error", "parameters"]), min_size=6, max_size=6
    ),
    room=st.sampled_from([NoRoom, PlentyOfRoom]),
)
def test_each_request_gets_its_own_rows_back(rows: list[int], width: int, kinds: list[str], room: Any) -> None:
    batch = batch_of(rows, width)
    responses = []
    collector = Collector("m", TYPES)
    for request, kind in zip(split(batch, ServedBatch(frozenset(), None, collector.result)), kinds, strict=False):
        tensors = [get_input_tensor_by_name(request, name) for name in ("x", "s")]
        outputs = [Tensor(tensor.name(), tensor.as_numpy()) for tensor in tensors]
        error = TritonError("no") if kind == "error" else None
        parameters = {"p": 1} if kind == "parameters" else None
        responses.append(InferenceResponse(outputs[::-1] if kind == "swapped" else outputs, error, parameters))
    result = collector.collect(responses, batch, room())
    start = 0
    for index, count in enumerate(rows):
        expected = {name: array[start : start + count] for name, array in batch.inputs.items()}
        start += count
        if result.gathered is not None:
            found = {name: array[start - count : start] for name, array in result.gathered.items()}
        else:
            one = result.per_request[index]
            assert (one.error is not None) == (kinds[index] == "error")
            found = one.outputs if one.error is None else expected
        assert all(np.array_equal(found[name], expected[name]) for name in expected)
    plain = all(kind == "plain" for kind in kinds[: len(rows)])
    assert result.gathered is not None or not plain
