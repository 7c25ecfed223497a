"""Python models that the real Triton and Shoal both serve, so that their answers can be compared."""

from __future__ import annotations

from pathlib import Path

HEAD = """
import json

import numpy as np
import triton_python_backend_utils as pb_utils
"""

IDENTITY = """
class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        pairs = [(tensor.name() + "_OUT", tensor.as_numpy()) for tensor in request.inputs()]
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in pairs])
"""

ADD_SUB = """
class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            a, b = (pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in "AB")
            outputs = [pb_utils.Tensor("DIFFERENCE", a - b), pb_utils.Tensor("SUM", a + b)]
            responses.append(pb_utils.InferenceResponse(outputs))
        return responses
"""

SEEN = """
class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            seen = {
                "inputs": sorted(tensor.name() for tensor in request.inputs()),
                "shapes": [list(tensor.as_numpy().shape) for tensor in request.inputs()],
                "outputs": sorted(request.requested_output_names()),
                "parameters": json.loads(request.parameters() or "{}"),
                "id": request.request_id(),
            }
            text = np.array([[json.dumps(seen, sort_keys=True)]], dtype=object)
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("SEEN", text)]))
        return responses
"""

ANSWERS = """
class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(int(pb_utils.get_input_tensor_by_name(r, "A").as_numpy().flat[0])) for r in requests]

    def answer(self, code):
        one = np.array([[1.0]], np.float32)
        if code < 0:
            raise RuntimeError("the model raised")
        if code < 7:
            kinds = "UNKNOWN INTERNAL NOT_FOUND INVALID_ARG UNAVAILABLE UNSUPPORTED ALREADY_EXISTS"
            kind = kinds.split()[code]
            error = pb_utils.TritonError(f"refused with {kind}", getattr(pb_utils.TritonError, kind))
            return pb_utils.InferenceResponse(error=error)
        made = {
            20: [pb_utils.Tensor("B", one)],
            21: [],
            22: [pb_utils.Tensor("B", one.astype(np.float64))],
            23: [pb_utils.Tensor("B", np.ones((1, 3), np.float32))],
            24: [pb_utils.Tensor("B", np.ones((2, 1), np.float32))],
            25: [pb_utils.Tensor("B", one), pb_utils.Tensor("UNKNOWN", one)],
            26: [pb_utils.Tensor("B", np.full((1, 1), np.nan, np.float32))],
        }
        return pb_utils.InferenceResponse(made[code])
"""

SHAPES = """
class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            array = pb_utils.get_input_tensor_by_name(request, "A").as_numpy()
            shape = np.array([array.shape], np.int64) if array.ndim else np.zeros((1, 0), np.int64)
            outputs = [pb_utils.Tensor("A_OUT", array), pb_utils.Tensor("SHAPE", shape)]
            responses.append(pb_utils.InferenceResponse(outputs))
        return responses
"""

BROKEN = """
class TritonPythonModel:
    def initialize(self, args):
        raise RuntimeError("the model is broken")
"""

TYPES = (
    "BOOL UINT8 UINT16 UINT32 UINT64 INT8 INT16 INT32 INT64 FP16 FP32 FP64 STRING".split()  # noqa: SIM905 # reads better
)


def tensors(kind: str, *each: str) -> str:
    """Inputs or outputs: each is ``NAME TYPE dims more``, with commas between dims."""
    lines = []
    for text in each:
        name, datatype, dims, *more = text.split(" ", 3)
        lines.append(f'{kind} {{ name: "{name}" data_type: TYPE_{datatype} dims: [ {dims} ] {" ".join(more)} }}')
    return "\n".join(lines)


def config(batch: int, inputs: tuple[str, ...], outputs: tuple[str, ...], more: str = "") -> str:
    """A ``config.pbtxt``."""
    head = f'backend: "python"\nmax_batch_size: {batch}\n'
    return "\n".join([head, tensors("input", *inputs), tensors("output", *outputs), more, ""])


BATCHED = "dynamic_batching { }"
CPU = "instance_group { kind: KIND_CPU count: 1 }"
EVERY_TYPE = tuple(f"{name} {name} -1 optional: true" for name in TYPES)
EVERY_TYPE_OUT = tuple(f"{name}_OUT {name} -1" for name in TYPES)
SETTINGS = """
dynamic_batching {
  preferred_batch_size: [ 4, 2 ]
  max_queue_delay_microseconds: 100
  preserve_ordering: true
  default_queue_policy { timeout_action: REJECT default_timeout_microseconds: 50000000 max_queue_size: 9 }
}
version_policy { latest { num_versions: 2 } }
parameters { key: "colour" value { string_value: "red" } }
metric_tags { key: "team" value: "fish" }
"""

MODELS = {
    "add_sub": (config(8, ("A INT32 16", "B INT32 16"), ("SUM INT32 16", "DIFFERENCE INT32 16"), BATCHED), ADD_SUB),
    "types": (config(4, EVERY_TYPE, EVERY_TYPE_OUT, BATCHED), IDENTITY),
    "whole": (config(0, ("A FP32 -1",), ("A_OUT FP32 -1",)), IDENTITY),
    "matrix": (config(4, ("A FP32 -1,2",), ("A_OUT FP32 -1,2",)), IDENTITY),
    "word": (config(0, ("A STRING 1",), ("A_OUT STRING 1",)), IDENTITY),
    "scores": (config(4, ("A FP32 4",), ('A_OUT FP32 4 label_filename: "labels.txt"',)), IDENTITY),
    "integers": (config(0, ("A INT32 4",), ("A_OUT INT32 4",)), IDENTITY),
    "seen": (config(4, ("A FP32 1", "B FP32 -1 optional: true"), ("SEEN STRING 1",)), SEEN),
    "answers": (config(4, ("A INT32 1",), ("B FP32 1",)), ANSWERS),
    "reshaped": (
        config(4, ("A FP32 1 reshape { shape: [ ] }",), ("A_OUT FP32 1 reshape { shape: [ ] }", "SHAPE INT64 1")),
        SHAPES,
    ),
    "reshaped_whole": (
        config(
            0,
            ("A FP32 2,-1 reshape { shape: [ 1,2,-1 ] }",),
            ("A_OUT FP32 2,-1 reshape { shape: [ 1,2,-1 ] }", "SHAPE INT64 1,3"),
        ),
        SHAPES,
    ),
    "settings": (config(8, ("A FP32 2",), ("A_OUT FP32 2",), SETTINGS), IDENTITY),
    "counted": (config(8, ("A FP32 2",), ("A_OUT FP32 2",), BATCHED), IDENTITY),
    "unused": (config(8, ("A FP32 2",), ("A_OUT FP32 2",), BATCHED), IDENTITY),
    "versions": (
        config(8, ("A FP32 2",), ("A_OUT FP32 2",), "version_policy { specific { versions: [ 1, 3 ] } }"),
        IDENTITY,
    ),
}
"""Configuration and code by model name."""

VERSIONS = {"versions": (1, 2, 3)}
"""The version folders of models that have not just version 1."""


def write_all(repository: Path) -> None:
    """Write the models that all load."""
    for name, (text, code) in MODELS.items():
        write(repository, name, text, code)
    (repository / "scores" / "labels.txt").write_text("zero\none\ntwo\n")


def write_broken(repository: Path) -> None:
    """Write one model that loads, and one that does not."""
    write(repository, "whole", *MODELS["whole"])
    write(repository, "broken", MODELS["whole"][0], BROKEN)


def write(repository: Path, name: str, text: str, code: str) -> None:
    """Write one model's folder."""
    for version in VERSIONS.get(name, (1,)):
        folder = repository / name / str(version)
        folder.mkdir(parents=True)
        (folder / "model.py").write_text(HEAD + code)
    (repository / name / "config.pbtxt").write_text(f'name: "{name}"\n{text}{CPU}\n')
