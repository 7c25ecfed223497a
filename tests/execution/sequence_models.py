"""Writes sequence models: Python models that note what they see, ONNX models with implicit state."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from shoal.datatypes import DataType
from tests.backends.model_folders import onnx_model, tensor
from tests.execution.models import write_model

IDLE = "max_sequence_idle_microseconds: 60000000"
"""A minute: no test is so slow that its sequences end because they are idle."""

CONTROLS = """
control_input [
  { name: "START" control [ { kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ] } ] },
  { name: "END" control [ { kind: CONTROL_SEQUENCE_END int32_false_true: [ 0, 1 ] } ] },
  { name: "READY" control [ { kind: CONTROL_SEQUENCE_READY bool_false_true: [ false, true ] } ] },
  { name: "CORRID" control [ { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_%s } ] }
]
"""

SUM = """
import json
from pathlib import Path

LOG = Path(__file__).with_name("batches")

def told(request):
    tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs() if tensor.name() != "IN"}
    return {
        "id": request.correlation_id(),
        "flags": request.flags(),
        "outputs": sorted(request.requested_output_names()),
        "controls": {
            name: [str(array.dtype), list(array.shape), [v.decode() if isinstance(v, bytes) else v for v in
                                                         array.reshape(-1).tolist()]]
            for name, array in tensors.items()
        },
    }

class TritonPythonModel:
    def initialize(self, args):
        self.sums = {}

    def execute(self, requests):
        with LOG.open("a") as log:
            log.write(json.dumps([told(request) for request in requests]) + "\\n")
        return [self.add(request) for request in requests]

    def add(self, request):
        key = request.correlation_id()
        if request.flags() & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START:
            self.sums[key] = 0
        number = value(request)
        if (number == 9).any():
            os.kill(os.getpid(), signal.SIGKILL)
        self.sums[key] = self.sums.get(key, -1000) + number
        return answer(self.sums[key])
"""

COUNTDOWN = """
import json
from pathlib import Path

LOG = Path(__file__).with_name("batches")

class TritonPythonModel:
    def initialize(self, args):
        self.left = {}

    def execute(self, requests):
        with LOG.open("a") as log:
            log.write(json.dumps([{"id": r.correlation_id(), "flags": r.flags()} for r in requests]) + "\\n")
        return [self.step(request) for request in requests]

    def step(self, request):
        key = request.correlation_id()
        if request.flags() & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START:
            self.left[key] = int(value(request).flat[0])
        self.left[key] = self.left.get(key, 0) - 1
        time.sleep(0.002)
        if self.left[key] > 0:
            request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
            return None
        del self.left[key]
        return answer(value(request) * 10)
"""


def sum_model(
    repository: Path,
    name: str = "sum",
    strategy: str = "oldest { }",
    id_type: str = "UINT64",
    *,
    max_batch_size: int = 4,
    count: int = 1,
) -> Path:
    """A Python model that adds up the numbers of a sequence; 9 kills its worker."""
    batching = f"sequence_batching {{ {IDLE} {strategy} {CONTROLS % id_type} }}"
    return write_model(repository, name, SUM, max_batch_size=max_batch_size, dims="1", count=count, more=batching)


def countdown_model(
    repository: Path, name: str = "countdown", batching: str = "", code: str = COUNTDOWN, *, max_batch_size: int = 4
) -> Path:
    """A Python model that runs each request as often as its number says, then answers ten times the number."""
    more = (
        batching or f"sequence_batching {{ {IDLE} oldest {{ max_candidate_sequences: 4 }} iterative_sequence: true }}"
    )
    return write_model(repository, name, code, max_batch_size=max_batch_size, dims="1", more=more)


def batches_of(model_dir: Path) -> list[list[dict]]:
    """What a ``sum_model`` or ``countdown_model`` was given: for each batch what each request said."""
    try:
        lines = (model_dir / "1" / "batches").read_text().splitlines()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines]


def state_config(
    dims: str = "2", extra: str = "", *, output: str = "", max_batch_size: int = 4, strategy: str = "oldest { }"
) -> str:
    """The configuration of an ONNX model with the state S."""
    outputs = '{ name: "OUT" data_type: TYPE_FP32 dims: [ -1 ] }'
    if output:
        outputs += f', {{ name: "S_OUT" data_type: TYPE_FP32 dims: [ {output} ] }}'
    return f"""
backend: "onnxruntime"
max_batch_size: {max_batch_size}
input [ {{ name: "IN" data_type: TYPE_FP32 dims: [ -1 ] }} ]
output [ {outputs} ]
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
sequence_batching {{
  {IDLE}
  {strategy}
  state [ {{ input_name: "S" output_name: "S_OUT" data_type: TYPE_FP32 dims: [ {dims} ] {extra} }} ]
}}
"""


def accumulator(
    repository: Path, config: str = "", *, name: str = "accumulator", width: int | str = 2, batched: bool = True
) -> Path:
    """An ONNX model: OUT and the new state are the state and IN added up."""
    rows: tuple[int | str, ...] = ("n",) if batched else ()
    nodes = [helper.make_node("Add", ["IN", "S"], ["OUT"]), helper.make_node("Identity", ["OUT"], ["S_OUT"])]
    inputs = [tensor(each, DataType.FP32, (*rows, width)) for each in ("IN", "S")]
    outputs = [tensor(each, DataType.FP32, (*rows, width)) for each in ("OUT", "S_OUT")]
    return onnx_model(repository, nodes, inputs, outputs, config or state_config(str(width)), name=name)


def collector(repository: Path, config: str = "", *, name: str = "collector") -> Path:
    """An ONNX model whose state grows: OUT and the new state are the state with IN behind it."""
    nodes = [helper.make_node("Concat", ["S", "IN"], ["OUT"], axis=1), helper.make_node("Identity", ["OUT"], ["S_OUT"])]
    inputs = [tensor("IN", DataType.FP32, ("n", "k")), tensor("S", DataType.FP32, ("n", "s"))]
    outputs = [tensor(each, DataType.FP32, ("n", "t")) for each in ("OUT", "S_OUT")]
    return onnx_model(repository, nodes, inputs, outputs, config or state_config("-1"), name=name)


def controlled(repository: Path, config: str, *, name: str = "controlled") -> Path:
    """An ONNX model with controls: OUT is IN where the sequence starts, IN and the state added up elsewhere."""
    nodes = [
        helper.make_node("Cast", ["START"], ["begins"], to=TensorProto.BOOL),
        helper.make_node("Add", ["IN", "S"], ["added"]),
        helper.make_node("Where", ["begins", "IN", "added"], ["OUT"]),
        helper.make_node("Identity", ["OUT"], ["S_OUT"]),
        helper.make_node("Identity", ["CORRID"], ["WHO"]),
    ]
    inputs = [
        tensor("IN", DataType.FP32, ("n", 1)),
        tensor("S", DataType.FP32, ("n", 1)),
        tensor("START", DataType.FP32, ("n", 1)),
        tensor("CORRID", DataType.UINT64, ("n", 1)),
    ]
    outputs = [
        tensor("OUT", DataType.FP32, ("n", 1)),
        tensor("S_OUT", DataType.FP32, ("n", 1)),
        tensor("WHO", DataType.UINT64, ("n", 1)),
    ]
    return onnx_model(repository, nodes, inputs, outputs, config, name=name)


CONTROLLED_CONFIG = """
backend: "onnxruntime"
max_batch_size: 4
instance_group [ { count: 1 kind: KIND_CPU } ]
sequence_batching {
  max_sequence_idle_microseconds: 60000000
  direct { }
  control_input [
    { name: "START" control [ { kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ] } ] },
    { name: "CORRID" control [ { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } ] }
  ]
  state [ { input_name: "S" output_name: "S_OUT" data_type: TYPE_FP32 dims: [ 1 ] } ]
}
"""


def row(*numbers: float, batched: bool = True) -> dict[str, np.ndarray]:
    """The input IN."""
    array = np.array(numbers, np.float32)
    return {"IN": array[None] if batched else array}


def part(number: int | str, *flags: str) -> dict[str, int | str | bool]:
    """The parameters of a request of a sequence; flags are ``start`` and ``end``."""
    return {"sequence_id": number, **{f"sequence_{flag}": True for flag in flags}}


def flags_of(index: int, count: int) -> Iterable[str]:
    """The flags of the request at ``index`` of a sequence of ``count``."""
    return [*(["start"] if index == 0 else []), *(["end"] if index == count - 1 else [])]
