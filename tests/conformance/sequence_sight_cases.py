"""Sequence models in Python that tell all that they see of a batch, and requests for them, one after the other."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path

MODEL_CODE = '''
import json

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Answers every request with what it saw of its batch, or of all runs of an iterative request."""

    def initialize(self, args):
        self.config = json.loads(args["model_config"])
        self.mode = self.config["parameters"]["mode"]["string_value"]
        self.runs = {}

    def execute(self, requests):
        if self.mode == "tell":
            told = [self.seen(each) for each in requests]
            return [self.answer(told) for _ in requests]
        return [self.run(each) for each in requests]

    def run(self, request):
        key = request.correlation_id()
        runs = self.runs.setdefault(key, [])
        runs.append(self.seen(request))
        if len(runs) >= int(pb_utils.get_input_tensor_by_name(request, "IN").as_numpy().flat[0]):
            return self.answer(self.runs.pop(key))
        request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
        return self.answer([]) if self.mode == "answer too" else None

    def answer(self, told):
        shape = [1, 1] if self.config["max_batch_size"] else [1]
        text = json.dumps(told, sort_keys=True).encode()
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.full(shape, text, dtype=object))])

    def seen(self, request):
        tensors = {each.name(): self.shown(each.as_numpy()) for each in request.inputs()}
        if request.correlation_id() == 0:
            del tensors["IN"]  # in a row that only fills the batch it may hold anything
        return {
            "id": request.request_id(),
            "sequence": request.correlation_id(),
            "flags": request.flags(),
            "outputs": sorted(request.requested_output_names()),
            "parameters": request.parameters(),
            "timeout": request.timeout(),
            "inputs": tensors,
        }

    def shown(self, array):
        values = [each.decode() if isinstance(each, bytes) else each for each in array.ravel().tolist()]
        return [str(array.dtype), list(array.shape), values]
'''

CONFIG = """
backend: "python"
max_batch_size: {max_batch_size}
input {{ name: "IN" data_type: TYPE_INT32 dims: [ 1 ] }}
output {{ name: "OUT" data_type: TYPE_STRING dims: [ 1 ] }}
instance_group {{ kind: KIND_CPU count: 1 }}
parameters {{ key: "mode" value {{ string_value: "{mode}" }} }}
"""
SEQUENCES = "sequence_batching { max_sequence_idle_microseconds: 60000000 %s }\n"


def control(name: str, kind: str, values: str) -> str:
    """One control input."""
    return f'control_input {{ name: "{name}" control {{ kind: CONTROL_SEQUENCE_{kind} {values} }} }} '


CONTROLS = (
    control("BEGINS", "START", "fp32_false_true: [ 0, 1 ]")
    + control("ENDS", "END", "int32_false_true: [ 0, 1 ]")
    + control("IS_READY", "READY", "bool_false_true: [ false, true ]")
)
ODD_CONTROLS = (
    control("BEGINS", "START", "int32_false_true: [ 7, -3 ]")
    + control("ENDS", "END", "fp32_false_true: [ 1.5, 2.5 ]")
    + control("IS_READY", "READY", "bool_false_true: [ true, false ]")
)


def ids(datatype: str) -> str:
    """All controls, and one for the id."""
    return CONTROLS + control("WHO", "CORRID", f"data_type: TYPE_{datatype}")


def state(datatype: str, dims: str, initial: str) -> str:
    """A state that begins as it is told."""
    initial = f'initial_state {{ name: "first" data_type: {datatype} dims: {dims} {initial} }}'
    return f'state {{ input_name: "S" output_name: "T" data_type: {datatype} dims: {dims} {initial} }} '


@dataclass(frozen=True)
class SightModel:
    """A model of a case.

    Attributes:
        batching: what its ``sequence_batching`` says; None for a model without.
        max_batch_size: most rows.
        mode: ``tell``, or for iterative models ``run`` or ``answer too``.
        files: files of initial states.
    """

    batching: str | None
    max_batch_size: int = 4
    mode: str = "tell"
    files: tuple[tuple[str, bytes], ...] = ()

    def write(self, repository: Path, name: str) -> None:
        """Write the model's folder."""
        folder = repository / name
        (folder / "1").mkdir(parents=True)
        (folder / "1" / "model.py").write_text(MODEL_CODE)
        scheduler = "" if self.batching is None else SEQUENCES % self.batching
        (folder / "config.pbtxt").write_text(CONFIG.format(**vars(self)) + scheduler)
        for file, data in self.files:
            (folder / "initial_state").mkdir(exist_ok=True)
            (folder / "initial_state" / file).write_bytes(data)


@dataclass(frozen=True)
class Ask:
    """One request: its number, its parameters, and what else stands in it."""

    number: int
    parameters: dict[str, object] = field(default_factory=dict)
    more: dict[str, object] = field(default_factory=dict)

    def body(self, *, batched: bool) -> bytes:
        """The request in JSON."""
        shape = [1, 1] if batched else [1]
        tensor = {"name": "IN", "datatype": "INT32", "shape": shape, "data": [self.number]}
        return json.dumps({"inputs": [tensor], "parameters": self.parameters, **self.more}).encode()


@dataclass(frozen=True)
class SightCase:
    """Requests to one model."""

    name: str
    model: SightModel
    asks: tuple[Ask, ...]


def part(number: int | str, *flags: str) -> dict[str, object]:
    """The parameters of a request of a sequence."""
    return {"sequence_id": number, **{f"sequence_{flag}": True for flag in flags}}


def life(number: int | str) -> tuple[Ask, ...]:
    """A sequence of three requests, and one of a single request."""
    flags = ("start",), (), ("end",), ("start", "end")
    return tuple(Ask(place, part(number, *each)) for place, each in enumerate(flags))


OLDEST = "oldest { max_candidate_sequences: 4 } "
SPECIAL = Ask(
    1,
    part(5, "start") | {"priority": 1, "timeout": 1000, "own": 3, "text": "é"},
    {"id": "r1", "outputs": [{"name": "OUT"}]},
)
ITERATIVE = "iterative_sequence: true "
TWO = struct.pack("<2f", 5, 6)

CASES = (
    *(
        SightCase(f"ids: {number} as {datatype}", SightModel(OLDEST + ids(datatype)), life(number))
        for datatype, number in (
            ("UINT64", 5),
            ("UINT64", 2**64 - 1),
            ("INT64", 2**63 + 5),
            ("UINT32", 2**32 + 5),
            ("INT32", 2**31 + 5),
        )
    ),
    SightCase("odd values", SightModel(OLDEST + ODD_CONTROLS), life(5)),
    SightCase("no controls", SightModel(OLDEST), life("née")),
    SightCase("string id, no control for it", SightModel("direct { } " + CONTROLS), life("a" * 128)),
    SightCase("a model without sequences, number", SightModel(None), life(7)),
    SightCase("a model without sequences, string", SightModel(None), life("née")),
    SightCase("no batching, direct", SightModel("direct { } " + ids("UINT64"), 0), life(5)),
    SightCase("no batching, oldest", SightModel(OLDEST + ids("UINT32"), 0), life(6)),
    SightCase("id, outputs, priority, timeout, parameters", SightModel(OLDEST + CONTROLS), (SPECIAL,)),
    SightCase(
        "direct: rows that only fill the batch",
        SightModel("direct { } " + ids("UINT64")),
        (
            Ask(1, part(5, "start")),
            Ask(2, part(6, "start")),
            Ask(3, part(7, "start")),
            Ask(4, part(6)),
            Ask(5, part(5, "end")),
            Ask(6, part(7, "end")),
            Ask(7, part(6, "end")),
        ),
    ),
    SightCase(
        "direct: odd values of rows that only fill the batch",
        SightModel("direct { } " + ODD_CONTROLS),
        (Ask(1, part(5, "start")), Ask(2, part(6, "start")), Ask(3, part(6, "end"))),
    ),
    SightCase("iterative", SightModel(ITERATIVE + ids("UINT64"), mode="run"), (Ask(3), Ask(1), Ask(2))),
    SightCase("iterative, oldest", SightModel(OLDEST + ITERATIVE, mode="run"), (Ask(2), Ask(4))),
    SightCase(
        "iterative with an id",
        SightModel(ITERATIVE + ids("UINT64"), mode="run"),
        (Ask(2, part(77, "start")), Ask(2, part(77)), Ask(1, part(78, "end"))),
    ),
    SightCase("iterative, no batching", SightModel(ITERATIVE + CONTROLS, 0, mode="run"), (Ask(3),)),
    SightCase("rescheduled with an answer", SightModel(ITERATIVE, mode="answer too"), (Ask(2),)),
    SightCase(
        "state: zeros", SightModel(OLDEST + state("TYPE_FP32", "[ 2 ]", "zero_data: true")), (Ask(1, part(5, "start")),)
    ),
    SightCase(
        "state: a file, and more than is needed in it",
        SightModel(OLDEST + state("TYPE_FP32", "[ 1, 2 ]", 'data_file: "two"'), files=(("two", TWO * 2),)),
        (Ask(1, part(5, "start")),),
    ),
    SightCase(
        "state: strings",
        SightModel(OLDEST + state("TYPE_STRING", "[ 2 ]", "zero_data: true")),
        (Ask(1, part(5, "start")),),
    ),
    SightCase(
        "state: no batching",
        SightModel(OLDEST + state("TYPE_FP32", "[ 2 ]", 'data_file: "two"'), 0, files=(("two", TWO),)),
        (Ask(1, part(5, "start")),),
    ),
)
