"""Ensembles that must be refused when they are loaded, one rule each, and some that must not be."""

from __future__ import annotations

from ensemble_models import F4, F8, I4, Ensemble

IN, OUT = {"X": F4}, {"Y": F4}


def chain(name: str, *steps: tuple[str, dict[str, str], dict[str, str]], **changes: object) -> Ensemble:
    """An ensemble from X to Y."""
    fields = {"max_batch_size": 8, "inputs": IN, "outputs": OUT, "steps": steps} | changes
    return Ensemble(name, **fields)  # type: ignore[arg-type]


def through(model: str, source: str = "X", target: str = "Y") -> tuple[str, dict[str, str], dict[str, str]]:
    """A step of a model with one input and one output."""
    return (model, {"IN": source}, {"OUT": target})


GOOD = (
    chain("good", through("negate")),
    chain("good_chain", through("negate", "X", "m"), through("negate", "m", "Y")),
    chain("good_order", through("negate", "m", "Y"), through("negate", "X", "m")),
    chain("good_variable", through("variable")),
    chain("good_flat", through("flat"), max_batch_size=0),
    chain("good_flat_in_batched", through("flat")),
    chain("good_rows_in_batched", through("rows")),
    chain("good_batched_in_flat", through("negate"), max_batch_size=0),
    chain("good_optional_unmapped", ("maybe", {"A": "X"}, {"OUT": "Y"})),
    chain("good_version", through("versions"), step_versions=(2,)),
    chain("good_version_zero", through("versions"), step_versions=(0,)),
    chain("good_nested", ("good", {"X": "X"}, {"Y": "m"}), ("good", {"X": "m"}, {"Y": "Y"})),
    chain("good_smaller", through("small"), max_batch_size=2),
    chain("good_partly_mapped", ("split", {"IN": "X"}, {"HALF": "Y"})),
)
BAD = (
    chain("bad_unknown_model", through("nobody")),
    chain("bad_broken_model", through("broken")),
    chain("bad_version", through("negate"), step_versions=(7,)),
    chain("bad_input_name", ("negate", {"NO": "X"}, {"OUT": "Y"})),
    chain("bad_input_name_too", ("negate", {"IN": "X", "NO": "X"}, {"OUT": "Y"})),
    chain("bad_output_name", ("negate", {"IN": "X"}, {"NO": "Y"})),
    chain("bad_output_name_too", ("negate", {"IN": "X"}, {"OUT": "Y", "NO": "Z"})),
    chain("bad_missing_input", ("add", {"A": "X"}, {"SUM": "Y"})),
    chain("bad_type_in", through("ints")),
    chain("bad_type_between", through("negate", "X", "m"), through("ints", "m", "Y"), outputs={"Y": I4}),
    chain("bad_type_out", through("negate"), outputs={"Y": I4}),
    chain("bad_shape_in", through("wide")),
    chain("bad_shape_out", through("negate"), outputs={"Y": F8}),
    chain("bad_shape_between", through("negate", "X", "m"), through("wide", "m", "Y"), outputs={"Y": F8}),
    chain("bad_shape_rows", through("rows"), inputs={"X": F8}),
    chain("bad_batch_size", through("small")),
    chain("bad_no_source", ("add", {"A": "X", "B": "nowhere"}, {"SUM": "Y"})),
    chain("bad_unused_tensor", ("split", {"IN": "X"}, {"HALF": "Y", "DOUBLE": "unused"})),
    chain("bad_unused_input", through("negate"), inputs={"X": F4, "X2": F4}),
    chain("bad_unset_output", through("negate"), outputs={"Y": F4, "Y2": F4}),
    chain("bad_written_twice", through("negate"), through("negate")),
    chain("bad_input_written", through("negate", "X", "Y"), through("negate", "Y", "X")),
    chain("bad_own_input", ("add", {"A": "X", "B": "Y"}, {"SUM": "Y"})),
    chain(
        "bad_circle", ("add", {"A": "X", "B": "m"}, {"SUM": "n"}), ("split", {"IN": "n"}, {"HALF": "m", "DOUBLE": "Y"})
    ),
    chain("bad_itself", ("bad_itself", {"X": "X"}, {"Y": "Y"})),
    chain("bad_circle_one", ("bad_circle_two", {"X": "X"}, {"Y": "Y"})),
    chain("bad_circle_two", ("bad_circle_one", {"X": "X"}, {"Y": "Y"})),
    chain("bad_depends_on_bad", ("bad_type_in", {"X": "X"}, {"Y": "Y"})),
    chain("bad_no_step"),
    chain("bad_no_input_map", ("negate", {}, {"OUT": "Y"})),
    chain("bad_no_output_map", ("negate", {"IN": "X"}, {})),
    chain("bad_no_model", ("", {"IN": "X"}, {"OUT": "Y"})),
    chain("bad_instances", through("negate"), more="instance_group { count: 1 }\n"),
    chain("bad_platform", through("negate"), platform='platform: "nothing"'),
    chain("bad_backend", through("negate"), platform='backend: "python"'),
    chain("bad_backend_too", through("negate"), platform='backend: "ensemble" platform: "ensemble"'),
    chain("bad_no_platform", through("negate"), platform=""),
    chain("bad_no_versions", through("negate"), versions=()),
    chain(
        "bad_decoupled_mix", through("repeat", "X", "m"), ("add", {"A": "X", "B": "m"}, {"SUM": "Y"}), max_batch_size=0
    ),
    chain(
        "bad_decoupled_outputs",
        through("repeat", "X", "Y"),
        through("flat", "X", "Z"),
        max_batch_size=0,
        outputs={"Y": F4, "Z": F4},
    ),
)
