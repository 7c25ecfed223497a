"""Sequence models that tell what they see, and requests for them: one after the other, and at given times."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from shoal.config.compile import compile_spec
from shoal.config.complete import complete_config
from shoal.config.prepare import prepare_config
from shoal.config.spec import ModelSpec

EXECUTION_MS = 400
GAP_MS = 15
LONG_IDLE_US = 20_000_000

MODEL_CODE = '''
import json
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Answers every request with what it saw of its whole batch."""

    def initialize(self, args):
        self.config = json.loads(args["model_config"])
        self.delay_s = int(self.config["parameters"]["delay_ms"]["string_value"]) / 1000
        self.instance = args["model_instance_name"]

    def execute(self, requests):
        time.sleep(self.delay_s)
        text = json.dumps({"instance": self.instance, "rows": [self.seen(each) for each in requests]})
        shape = [1, 1] if self.config["max_batch_size"] else [1]
        tensor = pb_utils.Tensor("OUT", np.full(shape, text.encode(), dtype=object))
        return [pb_utils.InferenceResponse([tensor]) for _ in requests]

    def seen(self, request):
        start, end, ready = (self.control(request, name) for name in ("START", "END", "READY"))
        if not ready:
            return "-"
        correlation_id = self.control(request, "CORRID")
        return f"{correlation_id}{'s' * start}{'e' * end} {request.correlation_id()} {request.flags()}"

    def control(self, request, name):
        tensor = pb_utils.get_input_tensor_by_name(request, name)
        if tensor is None:
            return ""
        array = tensor.as_numpy()
        assert list(array.shape) == ([1, 1] if self.config["max_batch_size"] else [1])
        return int(array.ravel()[0])
'''

CONFIG = """
backend: "python"
max_batch_size: {max_batch_size}
input {{ name: "IN" data_type: TYPE_INT32 dims: [ -1 ] }}
output {{ name: "OUT" data_type: TYPE_STRING dims: [ 1 ] }}
instance_group {{ kind: KIND_CPU count: {instances} }}
parameters {{ key: "delay_ms" value {{ string_value: "{delay_ms}" }} }}
sequence_batching {{
  max_sequence_idle_microseconds: {max_idle_us}
  {strategy}
  iterative_sequence: {iterative}
  control_input {{ name: "START" control {{ kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] }} }}
  control_input {{ name: "END" control {{ kind: CONTROL_SEQUENCE_END bool_false_true: [ false, true ] }} }}
  control_input {{ name: "READY" control {{ kind: CONTROL_SEQUENCE_READY fp32_false_true: [ 0, 1 ] }} }}
  {correlation_id}
}}
"""


@dataclass(frozen=True)
class SequenceModel:
    """A sequence model of a case.

    Attributes:
        strategy: the strategy's part of the configuration.
        max_batch_size: most rows.
        instances: how many.
        delay_ms: how long it runs.
        max_idle_us: how long a sequence may be idle.
        id_type: the type of the control input for the correlation id; "" for no such input.
        iterative: whether each request is a sequence of its own.
    """

    strategy: str = "direct { }"
    max_batch_size: int = 4
    instances: int = 1
    delay_ms: int = 0
    max_idle_us: int = LONG_IDLE_US
    id_type: str = "TYPE_UINT64"
    iterative: bool = False

    def write(self, repository: Path, name: str) -> Path:
        """Write the model's folder."""
        folder = repository / name
        (folder / "1").mkdir(parents=True)
        (folder / "1" / "model.py").write_text(MODEL_CODE)
        control = f"control {{ kind: CONTROL_SEQUENCE_CORRID data_type: {self.id_type} }}"
        values = {
            **vars(self),
            "iterative": str(self.iterative).lower(),
            "correlation_id": f'control_input {{ name: "CORRID" {control} }}' if self.id_type else "",
        }
        (folder / "config.pbtxt").write_text(CONFIG.format(**values))
        return folder

    def spec(self, repository: Path, name: str) -> ModelSpec:
        """The model as the schedulers see it."""
        folder = self.write(repository, name)
        document = prepare_config(folder, 0)
        assert not document.problems
        complete_config(document.config, folder, 0)
        return compile_spec(document.config, 1, folder, 0)


@dataclass(frozen=True)
class Send:
    """One request.

    Attributes:
        correlation_id: the sequence; None for a request without one.
        flags: ``s`` for START, ``e`` for END.
        rows: its batch size.
        width: its variable dimension.
        at_ms: when it is sent, in a case of given times.
        timeout_us: its timeout, 0 for none.
        request_id: the client's id.
    """

    correlation_id: int | str | None
    flags: str = ""
    rows: int = 1
    width: int = 1
    at_ms: int = 0
    timeout_us: int = 0
    request_id: str = ""

    def body(self, *, batched: bool) -> bytes:
        """The request as JSON."""
        shape = [self.rows, self.width] if batched else [self.width]
        tensor = {"name": "IN", "datatype": "INT32", "shape": shape, "data": [7] * (self.rows * self.width)}
        message = {"inputs": [tensor], "parameters": self.parameters()}
        if self.request_id:
            message["id"] = self.request_id
        return json.dumps(message).encode()

    def parameters(self) -> dict[str, int | str | bool]:
        """The request's parameters."""
        given: dict[str, int | str | bool] = {}
        if self.correlation_id is not None:
            given["sequence_id"] = self.correlation_id
        given |= {name: True for flag, name in (("s", "sequence_start"), ("e", "sequence_end")) if flag in self.flags}
        if self.timeout_us:
            given["timeout"] = self.timeout_us
        return given


@dataclass(frozen=True)
class SequenceCase:
    """Requests for a model of their own."""

    name: str
    model: SequenceModel
    sends: tuple[Send, ...]


DIRECT = SequenceModel()
ITERATIVE = SequenceModel("oldest { max_candidate_sequences: 4 }", iterative=True)
IN_TURN = (
    SequenceCase("no id", DIRECT, (Send(None), Send(None, "s", request_id="x"), Send(0, "s"), Send("", "s"))),
    SequenceCase("no START", DIRECT, (Send(5), Send(5, "e"), Send(2**64 - 1, request_id="x"), Send("abc"))),
    SequenceCase("a sequence", DIRECT, (Send(5, "s"), Send(5), Send(5), Send(5, "e"), Send(5))),
    SequenceCase("a sequence of one", DIRECT, (Send(5, "se"), Send(5), Send(5, "se"), Send(6, "se"))),
    SequenceCase("a sequence that begins again", DIRECT, (Send(5, "s"), Send(5), Send(5, "s"), Send(5, "e"), Send(5))),
    SequenceCase(
        "two sequences by turns", DIRECT, (Send(5, "s"), Send(6, "s"), Send(5), Send(6), Send(5, "e"), Send(6, "e"))
    ),
    SequenceCase(
        "a slot in between is free",
        DIRECT,
        (Send(1, "s"), Send(2, "s"), Send(3, "s"), Send(2, "e"), Send(3), Send(4, "s")),
    ),
    SequenceCase("more than one row", DIRECT, (Send(5, "s", 2), Send(None, "", 2), Send(0, "", 9))),
    SequenceCase("large ids", DIRECT, (Send(2**64 - 1, "se"), Send(2**63, "se"))),
    SequenceCase(
        "ids that their control cuts",
        replace(DIRECT, id_type="TYPE_INT32"),
        (Send(2**40 + 3, "se"), Send(-1 % 2**32, "se")),
    ),
    SequenceCase(
        "numbers and strings without a control",
        replace(DIRECT, id_type=""),
        (Send(5, "s"), Send("5", "s"), Send("5"), Send(5), Send("five"), Send("z" * 128, "se"), Send("z" * 129, "se")),
    ),
    SequenceCase(
        "a long string on a request that is wrong besides", DIRECT, (Send("z" * 129, "", 9), Send("é" * 65, "s"))
    ),
    SequenceCase(
        "without batching", replace(DIRECT, max_batch_size=0), (Send(5, "s"), Send(5), Send(5, "e"), Send(6, "se"))
    ),
    SequenceCase(
        "oldest, without batching",
        SequenceModel("oldest { max_candidate_sequences: 2 }", 0),
        (Send(5, "s"), Send(6, "s"), Send(5), Send(6, "e"), Send(5, "e")),
    ),
    SequenceCase(
        "oldest", SequenceModel("oldest { }"), (Send(5, "s"), Send(6, "s"), Send(5), Send(6, "e"), Send(5, "e"))
    ),
    SequenceCase(
        "iterative",
        ITERATIVE,
        (Send(None), Send(None, "e"), Send(50), Send(50, "s"), Send(50), Send(50, "se"), Send(0), Send("", "s")),
    ),
    SequenceCase("iterative, more than one row", ITERATIVE, (Send(None, "", 2),)),
)
"""Requests that are sent one after the other."""

SLOW = SequenceModel(delay_ms=EXECUTION_MS)
WAITS = replace(SLOW, strategy="direct { max_queue_delay_microseconds: 250000 minimum_slot_utilization: 0.5 }")
OLDEST = replace(SLOW, strategy="oldest { max_candidate_sequences: 4 }")
PREFERS = replace(
    SLOW, strategy="oldest { max_candidate_sequences: 4 preferred_batch_size: 2 max_queue_delay_microseconds: 250000 }"
)


def in_a_row(*sends: Send, first_ms: int = 0) -> tuple[Send, ...]:
    """Requests that are sent shortly one after the other."""
    return tuple(replace(each, at_ms=first_ms + GAP_MS * place) for place, each in enumerate(sends))


def live_then(*sends: Send) -> tuple[Send, ...]:
    """A sequence that keeps the instance busy, and its place; then the others."""
    return (Send(99, "s"), *in_a_row(*sends, first_ms=120))


def busy_then(*sends: Send) -> tuple[Send, ...]:
    """A sequence of one that keeps the instance busy, then the others."""
    return (Send(99, "se"), *in_a_row(*sends, first_ms=120))


STARTS = (Send(1, "s"), Send(2, "s"), Send(3, "s"))
TIMED = (
    SequenceCase("direct: three begin", SLOW, busy_then(*STARTS)),
    SequenceCase(
        "direct: whole sequences", SLOW, busy_then(*STARTS, Send(1), Send(2, "e"), Send(3), Send(1, "e"), Send(3, "e"))
    ),
    SequenceCase(
        "direct: one sequence ahead of the others",
        SLOW,
        busy_then(*STARTS, Send(3), Send(3), Send(3, "e"), Send(1, "e"), Send(2, "e")),
    ),
    SequenceCase(
        "direct: five for four slots",
        SLOW,
        busy_then(*STARTS, Send(4, "s"), Send(5, "s"), Send(5, "e"), Send(2, "e"), Send(6, "se")),
    ),
    SequenceCase("direct: sequences of one", SLOW, busy_then(*(Send(number, "se") for number in range(1, 7)))),
    SequenceCase("direct: begins again", SLOW, busy_then(Send(1, "s"), Send(1, "s"), Send(2, "s"), Send(1, "e"))),
    SequenceCase(
        "direct: two shapes", SLOW, busy_then(Send(1, "s"), Send(2, "s", width=2), Send(3, "s"), Send(4, "s", width=2))
    ),
    SequenceCase(
        "direct: timeout in the backlog",
        replace(SLOW, max_batch_size=1),
        in_a_row(
            Send(1, "s"), Send(2, "s"), Send(2, timeout_us=100_000), Send(3, "s", timeout_us=5_000_000), Send(1, "e")
        ),
    ),
    SequenceCase(
        "direct: timeout in a slot",
        replace(SLOW, max_batch_size=1),
        in_a_row(Send(1, "s"), Send(1, "e", timeout_us=100)),
    ),
    SequenceCase("direct: enough slots at once", WAITS, in_a_row(Send(1, "s"), Send(2, "s"))),
    SequenceCase("direct: too few slots", WAITS, (Send(1, "s"), Send(2, "s", at_ms=450), Send(1, "e", at_ms=1_100))),
    SequenceCase(
        "direct: utilization without a delay",
        replace(SLOW, strategy="direct { minimum_slot_utilization: 1 }"),
        in_a_row(Send(1, "s"), Send(1, "e")),
    ),
    SequenceCase(
        "direct: idle", replace(SLOW, max_idle_us=900_000), (Send(1, "s"), Send(1, at_ms=600), Send(1, at_ms=2_600))
    ),
    SequenceCase(
        "direct: an idle sequence makes room",
        replace(SLOW, max_batch_size=1, max_idle_us=900_000),
        (Send(1, "s"), Send(2, "s", at_ms=600), Send(1, at_ms=2_600)),
    ),
    SequenceCase("oldest: three begin", OLDEST, live_then(*STARTS)),
    SequenceCase(
        "oldest: never two of one sequence",
        OLDEST,
        live_then(Send(1, "s"), Send(1), Send(1, "e"), Send(2, "s"), Send(2, "e")),
    ),
    SequenceCase(
        "oldest: four for three places",
        OLDEST,
        live_then(*STARTS, Send(4, "s"), Send(4, "e"), Send(1), Send(2, "e"), Send(3, "e"), Send(1, "e")),
    ),
    SequenceCase("oldest: two shapes", OLDEST, live_then(Send(1, "s"), Send(2, "s", width=2), Send(3, "s"))),
    SequenceCase("oldest: a preferred size", PREFERS, in_a_row(Send(1, "s"), Send(2, "s"))),
    SequenceCase("oldest: less than a preferred size", PREFERS, (Send(1, "s"), Send(1, "e", at_ms=750))),
    SequenceCase(
        "oldest: the same id once more", OLDEST, live_then(Send(1, "s"), Send(1, "e"), Send(1, "s"), Send(2, "s"))
    ),
    SequenceCase(
        "direct: the same id once more", SLOW, busy_then(Send(1, "s"), Send(1, "e"), Send(1, "s"), Send(2, "s"))
    ),
)
"""Requests that are sent at given times to a slow model."""
