"""Requests to ensembles: what Shoal and the real Triton are both asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ensemble_load_cases import GOOD, chain, through
from ensemble_models import F4, MEMBERS, REPEATER, Ensemble

V = ("FP32", "-1")
ENSEMBLES = (
    *GOOD,
    chain(
        "diamond",
        ("split", {"IN": "X"}, {"HALF": "h", "DOUBLE": "d"}),
        through("negate", "h", "n"),
        ("add", {"A": "n", "B": "d"}, {"SUM": "Y"}),
    ),
    chain("same_twice", ("add", {"A": "X", "B": "X"}, {"SUM": "Y"})),
    chain("both", through("negate", "X", "Y"), through("negate", "Y", "Z"), outputs={"Y": F4, "Z": F4}),
    chain("one_fails", through("negate", "X", "Y"), through("fail", "X", "Z"), outputs={"Y": F4, "Z": F4}),
    chain("fails", through("negate", "X", "m"), through("fail", "m", "Y")),
    chain("refuses", through("refuse")),
    chain("fails_inside", ("fails", {"X": "X"}, {"Y": "Y"})),
    chain("unfit", through("variable", "X", "m"), through("negate", "m", "Y"), inputs={"X": V}),
    chain("unfit_rows", through("rows", "X", "m"), through("negate", "m", "Y"), inputs={"X": ("FP32", "-1")}),
    chain("may_lack", ("maybe", {"A": "X", "B": "X2"}, {"OUT": "Y"}), inputs={"X": F4, "X2": F4}, optional=("X2",)),
    chain("must_not_lack", ("add", {"A": "X", "B": "X2"}, {"SUM": "Y"}), inputs={"X": F4, "X2": F4}, optional=("X2",)),
    chain(
        "silent_inside",
        ("silent", {"IN": "X"}, {"OUT": "o", "OTHER": "m"}),
        ("maybe", {"A": "o", "B": "m"}, {"OUT": "Y"}),
    ),
    chain("silent_outside", ("silent", {"IN": "X"}, {"OUT": "Y", "OTHER": "Z"}), outputs={"Y": F4, "Z": F4}),
    chain("told", ("tell", {"IN": "X"}, {"SAID": "Y"}), outputs={"Y": ("STRING", "1")}),
    chain("told_inside", ("told", {"X": "X"}, {"Y": "Y"}), outputs={"Y": ("STRING", "1")}),
    chain("flat_between", through("flat", "X", "m"), through("negate", "m", "Y")),
    chain("flat_result", through("negate", "X", "m"), through("flat", "m", "Y")),
    chain(
        "flat_ensemble_of_rows",
        through("rows"),
        max_batch_size=0,
        inputs={"X": ("FP32", "-1, 4")},
        outputs={"Y": ("FP32", "-1, 4")},
    ),
    chain(
        "batches_rows",
        through("negate"),
        max_batch_size=0,
        inputs={"X": ("FP32", "-1, 4")},
        outputs={"Y": ("FP32", "-1, 4")},
    ),
)
DECOUPLED = (
    chain("repeats", through("repeat"), max_batch_size=0),
    chain("repeats_and_negates", through("repeat", "X", "m"), through("flat", "m", "Y"), max_batch_size=0),
    chain(
        "negates_and_repeats",
        through("flat", "X", "m"),
        through("flat", "m", "n"),
        through("repeat", "n", "Y"),
        max_batch_size=0,
    ),
    chain("repeats_twice", through("repeat", "X", "m"), through("repeat", "m", "Y"), max_batch_size=0),
    chain("repeats_inside", ("repeats", {"X": "X"}, {"Y": "m"}), through("flat", "m", "Y"), max_batch_size=0),
    chain("repeats_and_fails", through("repeat", "X", "m"), through("fail", "m", "Y"), max_batch_size=0),
    chain(
        "repeats_for_two",
        through("repeat", "X", "Y"),
        through("flat", "Y", "Z"),
        max_batch_size=0,
        outputs={"Y": F4, "Z": F4},
    ),
)
MODELS: tuple[Any, ...] = (*MEMBERS, REPEATER, *ENSEMBLES, *DECOUPLED)


@dataclass(frozen=True)
class Case:
    """One request: values of each input as nested lists, and what else it says."""

    name: str
    model: str
    inputs: dict[str, list[Any]]
    outputs: tuple[str, ...] = ()
    classes: int = 0
    request_id: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)


ROW = [1.0, 2.0, 3.0, 4.0]
ONE, TWO = [ROW], [ROW, [5.0, 6.0, 7.0, 8.0]]
X = {"X": ONE}


CASES = (
    *(Case(each.name, each.name, X) for each in GOOD if each.max_batch_size and each.name != "good_version_zero"),
    *(
        Case(f"{each.name}, two rows", each.name, {"X": TWO})
        for each in GOOD
        if each.max_batch_size == 8 and each.name != "good_version_zero"
    ),
    *(Case(each.name, each.name, {"X": ROW}) for each in GOOD if not each.max_batch_size),
    Case("diamond", "diamond", {"X": TWO}),
    Case("one tensor for two inputs", "same_twice", X),
    Case("every output", "both", X),
    Case("the first output", "both", X, outputs=("Y",)),
    Case("the last output", "both", X, outputs=("Z",)),
    Case("outputs in another order", "both", X, outputs=("Z", "Y")),
    Case("unknown output", "both", X, outputs=("NO",)),
    Case("classes", "both", X, outputs=("Z",), classes=2),
    Case("a failing step is pruned", "one_fails", X, outputs=("Y",)),
    Case("a failing step is not pruned", "one_fails", X),
    Case("the failing step only", "one_fails", X, outputs=("Z",)),
    Case("the second step fails", "fails", X, request_id="seven"),
    Case("a step refuses", "refuses", X),
    Case("a step of an inner ensemble fails", "fails_inside", X),
    Case("a tensor that fits at the start and not between", "unfit", {"X": [[1.0, 2.0]]}, request_id="seven"),
    Case("a tensor that fits between", "unfit", X),
    Case("rows for a model without batching", "unfit_rows", {"X": TWO}),
    Case("an optional input", "may_lack", {"X": ONE, "X2": ONE}),
    Case("an optional input left out", "may_lack", X),
    Case("an optional input left out that a step needs", "must_not_lack", X),
    Case("an output that a model did not give, for an optional input", "silent_inside", X),
    Case("an output that a model did not give, for a required input", "silent_inside", {"X": [[-1.0, 2.0, 3.0, 4.0]]}),
    Case("an output that a model did not give, to answer with", "silent_outside", X),
    Case("what a step is told", "told", X),
    Case("what a step is told, id", "told", X, request_id="seven"),
    Case("what a step is told, parameters", "told", X, parameters={"a": 1, "b": "x", "c": True, "d": 1.5}),
    Case("what a step is told, timeout", "told", X, parameters={"timeout": 12345678, "priority": 3}),
    Case("what a step is told, sequence", "told", X, parameters={"sequence_id": 42, "sequence_start": True}),
    Case("what a step is told, end", "told", X, parameters={"sequence_id": 42, "sequence_end": True}),
    Case(
        "what a step of an inner ensemble is told",
        "told_inside",
        X,
        request_id="seven",
        parameters={"timeout": 5, "a": 1},
    ),
    Case("a model without batching between", "flat_between", X),
    Case("two rows for a model without batching between", "flat_between", {"X": TWO}),
    Case("a model without batching at the end", "flat_result", X),
    Case("two rows for a model without batching at the end", "flat_result", {"X": TWO}),
    Case("rows as a dimension", "flat_ensemble_of_rows", {"X": TWO}),
    Case("rows as a dimension, batched inside", "batches_rows", {"X": TWO}),
    Case("too many rows inside", "batches_rows", {"X": [ROW] * 9}),
    Case("too many rows", "good", {"X": [ROW] * 9}),
    Case("too many rows for a small ensemble", "good_smaller", {"X": [ROW] * 3}),
    Case("wrong shape", "good", {"X": [[1.0]]}),
    Case("unknown input", "good", {"NO": ONE}),
    Case("no input", "good", {}),
    Case("too many inputs", "good", {"X": ONE, "NO": ONE}),
)


STREAMED = tuple(
    Case(f"{each.name}, {count:g}", each.name, {"X": [count, 5.0, 6.0, 7.0]})
    for each in DECOUPLED
    for count in (0.0, 1.0, 3.0)
    if (each.name, count) != ("negates_and_repeats", 0.0)
)
"""Requests to decoupled ensembles, sent on a gRPC stream: the first number says how many responses a step gives."""


def body(case: Case) -> dict[str, Any]:
    """The JSON of the request."""
    inputs = [
        {"name": name, "datatype": "FP32", "shape": _shape(values), "data": values}
        for name, values in case.inputs.items()
    ]
    message: dict[str, Any] = {"inputs": inputs}
    if case.outputs:
        asked = {"classification": case.classes} if case.classes else {}
        message["outputs"] = [{"name": name, "parameters": asked} for name in case.outputs]
    if case.request_id:
        message["id"] = case.request_id
    if case.parameters:
        message["parameters"] = case.parameters
    return message


def _shape(values: list[Any]) -> list[int]:
    return [len(values), *(_shape(values[0]) if isinstance(values[0], list) else [])]


def ensemble_names() -> list[str]:
    """The ensembles that are served."""
    return [each.name for each in ENSEMBLES if isinstance(each, Ensemble)]
