"""Python models with ragged inputs, and requests of unequal lengths that arrive while the instance is busy."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

from triton_peer import post

EXECUTION_S = 0.6
BUSY_S = 0.2
GAP_S = 0.02
BUSY = [1, 2]
SHAPES = [[1, 3], [2, 4], [1, 3], [1, 0]]

CODE = f"""
import json, time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        time.sleep({EXECUTION_S})
        return [self.answer(request, len(requests)) for request in requests]

    def answer(self, request, joined):
        a = pb_utils.get_input_tensor_by_name(request, "A").as_numpy()
        made = pb_utils.get_input_tensor_by_name(request, "MADE")
        told = [joined, sorted([tensor.name(), list(tensor.as_numpy().shape)] for tensor in request.inputs())]
        told.append(None if made is None else made.as_numpy().tolist())
        text = np.array([[json.dumps(told).encode()]] * len(a), dtype=object)
        return pb_utils.InferenceResponse([pb_utils.Tensor("TOLD", text), pb_utils.Tensor("B", a * 2)])
"""

CONFIG = """
backend: "python"
max_batch_size: 8
input [ {{ name: "A" data_type: TYPE_FP32 dims: [ -1 ] {flag} }} ]
output [ {{ name: "TOLD" data_type: TYPE_STRING dims: [ 1 ] }}, {{ name: "B" data_type: TYPE_FP32 dims: [ -1 ] }} ]
instance_group [ {{ kind: KIND_CPU }} ]
dynamic_batching {{ }}
{more}
"""

RAGGED = "allow_ragged_batch: true"
MADE = 'batch_input {{ kind: {kind} target_name: "MADE" data_type: TYPE_{type} source_input: "A" }}'
SCATTER = 'batch_output { kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: "B" source_input: "A" }'
CASES = {
    "not_ragged": ("", ""),
    "ragged": (RAGGED, ""),
    "ragged_with_counts": (RAGGED, MADE.format(kind="BATCH_ELEMENT_COUNT", type="FP32")),
    "ragged_with_shapes": (RAGGED, MADE.format(kind="BATCH_ITEM_SHAPE", type="INT32")),
    "ragged_and_scattered": (RAGGED, SCATTER),
}
"""What stands at the input, and besides, by the model's name."""


def write_models(repository: Path) -> None:
    """Write the model of every case."""
    for name, (flag, more) in CASES.items():
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "1" / "model.py").write_text(CODE)
        (repository / name / "config.pbtxt").write_text(CONFIG.format(flag=flag, more=more))


def play(address: str, model: str) -> list[object]:
    """What each request is answered, the one that keeps the instance busy first."""
    found: list[object] = [None] * (1 + len(SHAPES))
    senders = []
    for place, shape in enumerate([BUSY, *SHAPES]):
        sender = threading.Thread(target=send, args=(f"{address}/v2/models/{model}/infer", shape, found, place))
        sender.start()
        senders.append(sender)
        time.sleep(GAP_S if place else BUSY_S)
    for sender in senders:
        sender.join()
    return found


def send(url: str, shape: list[int], found: list[object], place: int) -> None:
    """Send one request, and keep the shapes and data of its outputs, or the error."""
    data = list(range(shape[0] * shape[1]))
    body = json.dumps({"inputs": [{"name": "A", "datatype": "FP32", "shape": shape, "data": data}]}).encode()
    _, answer = post(url, {"Content-Type": "application/json"}, body)
    message = json.loads(answer)
    found[place] = message.get("error") or {one["name"]: [one["shape"], one["data"]] for one in message["outputs"]}
