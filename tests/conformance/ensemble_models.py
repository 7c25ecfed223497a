"""Small Python models, and ensembles of them: what Shoal and the real Triton both get to load."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

CODE = """
import numpy as np
import triton_python_backend_utils as pb_utils


def get(request, name):
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return None if tensor is None else tensor.as_numpy()


def give(**outputs):
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in outputs.items()])


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

"""
NEGATE = "    def answer(self, request):\n        return give(OUT=-get(request, 'IN'))\n"
ADD = "    def answer(self, request):\n        return give(SUM=get(request, 'A') + get(request, 'B'))\n"
SPLIT = (
    "    def answer(self, request):\n"
    "        value = get(request, 'IN')\n"
    "        return give(HALF=value / 2, DOUBLE=value * 2)\n"
)
MAYBE = (
    "    def answer(self, request):\n"
    "        other = get(request, 'B')\n"
    "        return give(OUT=get(request, 'A') * (10 if other is None else 1) + (0 if other is None else other))\n"
)
FAIL = "    def answer(self, request):\n        raise ValueError('no luck')\n"
REFUSE = (
    "    def answer(self, request):\n        return pb_utils.InferenceResponse([], pb_utils.TritonError('not today'))\n"
)
SILENT = (
    "    def answer(self, request):\n"
    "        value = get(request, 'IN')\n"
    "        return give(OUT=value) if value[0, 0] > 0 else give(OTHER=value)\n"
)
TELL = (
    "    def answer(self, request):\n"
    "        said = '|'.join([request.request_id(), str(request.correlation_id()), request.parameters(),\n"
    "                         str(request.timeout()), str(request.flags()),\n"
    "                         ','.join(sorted(request.requested_output_names()))])\n"
    "        return give(SAID=np.array([[said.encode()]], dtype=object))\n"
)
BROKEN = "    def initialize(self, args):\n        raise ValueError('cannot start')\n\n" + NEGATE
REPEAT = """
    def execute(self, requests):
        for request in requests:
            sender, value = request.get_response_sender(), get(request, "IN")
            for turn in range(int(value.flat[0])):
                sender.send(give(OUT=value + turn))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""
DECOUPLED = "model_transaction_policy { decoupled: true }\n"


@dataclass(frozen=True)
class Member:
    """A Python model: name, most rows, tensors as name to type and dims, and the code of its class."""

    name: str
    max_batch_size: int
    inputs: dict[str, tuple[str, str]]
    outputs: dict[str, tuple[str, str]]
    code: str = NEGATE
    optional: tuple[str, ...] = ()
    more: str = ""
    versions: tuple[int, ...] = (1,)


@dataclass(frozen=True)
class Ensemble:
    """An ensemble: name, most rows, tensors as name to type and dims, and its steps.

    Attributes:
        steps: of each the model, its input map and its output map.
        step_versions: the version of each step's model, -1 for the latest.
        optional: inputs that may be left out.
        more: further lines of its configuration.
    """

    name: str
    max_batch_size: int
    inputs: dict[str, tuple[str, str]]
    outputs: dict[str, tuple[str, str]]
    steps: tuple[tuple[str, dict[str, str], dict[str, str]], ...]
    step_versions: tuple[int, ...] = ()
    optional: tuple[str, ...] = ()
    more: str = ""
    platform: str = 'platform: "ensemble"'
    versions: tuple[int, ...] = field(default=(1,))


def tensors_text(kind: str, tensors: dict[str, tuple[str, str]], optional: tuple[str, ...] = ()) -> str:
    """The inputs or outputs of a configuration."""
    return "".join(
        f'{kind} {{ name: "{name}" data_type: TYPE_{datatype} dims: [ {dims} ]'
        f"{' optional: true' if name in optional else ''} }}\n"
        for name, (datatype, dims) in tensors.items()
    )


def head_text(model: Member | Ensemble) -> str:
    """The lines that models and ensembles have alike."""
    return (
        f"max_batch_size: {model.max_batch_size}\n{tensors_text('input', model.inputs, model.optional)}"
        f"{tensors_text('output', model.outputs)}{model.more}"
    )


def map_text(kind: str, pairs: dict[str, str]) -> str:
    """An input or output map of a step."""
    return "".join(f'    {kind} {{ key: "{key}" value: "{value}" }}\n' for key, value in pairs.items())


def ensemble_text(model: Ensemble) -> str:
    """The ``config.pbtxt`` of an ensemble."""
    versions = model.step_versions or (-1,) * len(model.steps)
    steps = "".join(
        f'  step {{\n    model_name: "{name}"\n    model_version: {version}\n'
        f"{map_text('input_map', inputs)}{map_text('output_map', outputs)}  }}\n"
        for (name, inputs, outputs), version in zip(model.steps, versions, strict=True)
    )
    return f"{model.platform}\n{head_text(model)}\nensemble_scheduling {{\n{steps}}}\n"


def member_text(model: Member) -> str:
    """The ``config.pbtxt`` of a Python model."""
    return f'backend: "python"\n{head_text(model)}\ninstance_group {{ kind: KIND_CPU }}\n'


def write(repository: Path, models: tuple[Member | Ensemble, ...]) -> None:
    """Write the models' folders."""
    for model in models:
        (repository / model.name).mkdir()
        for version in model.versions:
            folder = repository / model.name / str(version)
            folder.mkdir()
            if isinstance(model, Member):
                (folder / "model.py").write_text(CODE + model.code)
        text = member_text(model) if isinstance(model, Member) else ensemble_text(model)
        (repository / model.name / "config.pbtxt").write_text(text)


F4, F8, I4 = ("FP32", "4"), ("FP32", "8"), ("INT32", "4")
ROWS = ("FP32", "-1, 4")
MEMBERS = (
    Member("negate", 8, {"IN": F4}, {"OUT": F4}, more="dynamic_batching { }\n"),
    Member("add", 8, {"A": F4, "B": F4}, {"SUM": F4}, ADD),
    Member("split", 8, {"IN": F4}, {"HALF": F4, "DOUBLE": F4}, SPLIT),
    Member("small", 4, {"IN": F4}, {"OUT": F4}),
    Member("flat", 0, {"IN": F4}, {"OUT": F4}),
    Member("rows", 0, {"IN": ROWS}, {"OUT": ROWS}),
    Member("ints", 8, {"IN": I4}, {"OUT": I4}),
    Member("wide", 8, {"IN": F8}, {"OUT": F8}),
    Member("variable", 8, {"IN": ("FP32", "-1")}, {"OUT": ("FP32", "-1")}),
    Member("maybe", 8, {"A": F4, "B": F4}, {"OUT": F4}, MAYBE, optional=("B",)),
    Member("fail", 8, {"IN": F4}, {"OUT": F4}, FAIL),
    Member("refuse", 8, {"IN": F4}, {"OUT": F4}, REFUSE),
    Member("silent", 8, {"IN": F4}, {"OUT": F4, "OTHER": F4}, SILENT),
    Member("tell", 8, {"IN": F4}, {"SAID": ("STRING", "1"), "MORE": F4}, TELL),
    Member(
        "versions",
        8,
        {"IN": F4},
        {"OUT": F4},
        "    def initialize(self, args):\n        self.version = int(args['model_version'])\n\n"
        "    def answer(self, request):\n        return give(OUT=get(request, 'IN') * self.version)\n",
        more="version_policy { all { } }\n",
        versions=(1, 2, 3),
    ),
)
REPEATER = Member("repeat", 0, {"IN": F4}, {"OUT": F4}, REPEAT, more=DECOUPLED)
BROKEN_MEMBER = Member("broken", 8, {"IN": F4}, {"OUT": F4}, BROKEN)
