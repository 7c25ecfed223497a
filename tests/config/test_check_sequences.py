"""The rules for sequence batching: each thing wrong is one problem, at its place (rule 46, section 1.6 of Triton)."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from shoal.config.check import check_config, check_tensors
from shoal.config.compile import compile_spec
from shoal.config.complete import complete_config
from shoal.config.read import Dialect, parse_config
from shoal.config.spec import ControlKind, DirectSpec, OldestSpec
from shoal.datatypes import DataType

GOOD = """
backend: "python"
max_batch_size: 8
input { name: "a" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "b" data_type: TYPE_FP32 dims: [ 4 ] }
sequence_batching { %s }
"""
NUMBERS = "int32_false_true: [ 0, 1 ]"
CONTROL = "control_input { name: 'c' control { %s } }"
STATE = "state { input_name: 's' output_name: 't' data_type: TYPE_FP32 dims: [ 2 ] %s }"
INITIAL = STATE % "initial_state { %s }"
ZERO = "name: 'z' data_type: TYPE_FP32 dims: [ 2 ] zero_data: true"


def read(folder: Path, text: str):
    document = parse_config(GOOD % text, Dialect.TEXT, "FILE")
    assert document.problems == ()
    complete_config(document.config, folder, 0)
    return document


def problems_of(folder: Path, text: str) -> list[str]:
    document = read(folder, text)
    problems = check_config(document.config, document.source, folder, 0)
    problems += check_tensors(document.config, document.source, folder)
    return [str(problem).split(": ", 1)[1] for problem in problems]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "m"
    (folder / "initial_state").mkdir(parents=True)
    (folder / "initial_state" / "two").write_bytes(struct.pack("<2f", 5, 6))
    (folder / "initial_state" / "three").write_bytes(struct.pack("<3f", 5, 6, 7))
    (folder / "initial_state" / "strings").write_bytes(b"\x01\0\0\0a\0\0\0\0")
    return folder


@pytest.mark.parametrize(
    "text",
    [
        "",
        "direct { minimum_slot_utilization: 1 max_queue_delay_microseconds: 5 }",
        "oldest { max_candidate_sequences: 2 preferred_batch_size: 8 preserve_ordering: true }",
        "iterative_sequence: true",
        CONTROL % NUMBERS,
        CONTROL % "kind: CONTROL_SEQUENCE_END fp32_false_true: [ 7, -7 ]",
        CONTROL % "kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_STRING",
        STATE % "",
        STATE % "use_same_buffer_for_input_output: true use_growable_memory: true",
        INITIAL % ZERO,
        INITIAL % ZERO.replace("zero_data: true", "data_file: 'two'"),
        INITIAL % ZERO.replace("zero_data: true", "data_file: 'three'"),
        STATE.replace("[ 2 ]", "[ -1 ]") % f"initial_state {{ {ZERO} }}",
        STATE.replace("'t'", "'b'").replace("[ 2 ]", "[ 4 ]") % "",
        (STATE % "initial_state { name: 'z' data_type: TYPE_STRING dims: [ 2 ] data_file: 'strings' }").replace(
            "TYPE_FP32", "TYPE_STRING"
        ),
    ],
)
def test_what_is_right_has_no_problem(folder: Path, text: str):
    assert problems_of(folder, text) == []


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        ("oldest { max_candidate_sequences: -1 }", "oldest.max_candidate_sequences", "must be 0 (as many as max_batch"),
        ("oldest { preferred_batch_size: 9 }", "oldest.preferred_batch_size[0]", "from 1 to max_batch_size (8)"),
        ("direct { minimum_slot_utilization: -1 }", "direct.minimum_slot_utilization", "must be from 0 to 1"),
        (f"control_input {{ control {{ {NUMBERS} }} }}", "control_input[0].name", "must be given"),
        ("control_input { name: 'c' }", "control_input[0].control", "exactly 1 control, found 0"),
        (
            CONTROL % f"{NUMBERS} }} control {{ kind: CONTROL_SEQUENCE_END {NUMBERS}",
            "control_input[0].control",
            "exactly 1 control, found 2; give each control an input of its own",
        ),
        (
            CONTROL % NUMBERS + (CONTROL % f"kind: CONTROL_SEQUENCE_END {NUMBERS}"),
            "control_input[1].name",
            "'c' stands in this configuration for the second time",
        ),
        (
            CONTROL % NUMBERS + (CONTROL % NUMBERS).replace("'c'", "'d'"),
            "control_input[1].control[0].kind",
            "CONTROL_SEQUENCE_START stands in this configuration for the second time",
        ),
        (
            (CONTROL % NUMBERS).replace("'c'", "'a'"),
            "control_input[0].name",
            "'a' is also listed under input, where control inputs must not be",
        ),
        (
            CONTROL % "kind: CONTROL_SEQUENCE_CORRID",
            "control_input[0].control[0].data_type",
            "must be one of TYPE_UINT32",
        ),
        ("state { output_name: 't' data_type: TYPE_FP32 dims: [ 2 ] }", "state[0].input_name", "must be given"),
        ("state { input_name: 's' data_type: TYPE_FP32 dims: [ 2 ] }", "state[0].output_name", "must be given"),
        ("state { input_name: 's' output_name: 't' dims: [ 2 ] }", "state[0].data_type", "must be given, one of"),
        ("state { input_name: 's' output_name: 't' data_type: TYPE_FP32 }", "state[0].dims", "must be given"),
        ((STATE % "").replace("[ 2 ]", "[ 2, 0 ]"), "state[0].dims[1]", "1 or more, or -1 when it varies, found 0"),
        (STATE % "" + (STATE % "").replace("'t'", "'u'"), "state[1].input_name", "'s' stands in this configuration"),
        (STATE % "" + (STATE % "").replace("'s'", "'u'"), "state[1].output_name", "'t' stands in this configuration"),
        (
            CONTROL % NUMBERS + (STATE % "").replace("'s'", "'c'"),
            "state[0].input_name",
            "'c' stands in this configuration for the second time: sequence_batching.control_input[0].name",
        ),
        ((STATE % "").replace("'s'", "'a'"), "state[0].input_name", "'a' is also listed under input"),
        ((STATE % "").replace("'t'", "'b'"), "state[0].dims", "must be those of output 'b', [4], found [2]"),
        (
            (STATE % "").replace("'t'", "'b'").replace("[ 2 ]", "[ 4 ]").replace("FP32", "FP64"),
            "state[0].data_type",
            "must be that of output 'b', TYPE_FP32",
        ),
        (STATE % "use_growable_memory: true", "state[0].use_growable_memory", "needs use_same_buffer_for_input_output"),
        (STATE % f"initial_state {{ {ZERO} }} initial_state {{ {ZERO} }}", "state[0].initial_state", "at most 1"),
        (INITIAL % ZERO.replace("name: 'z'", ""), "state[0].initial_state[0].name", "must be given"),
        (
            INITIAL % ZERO.replace("FP32", "INT32"),
            "state[0].initial_state[0].data_type",
            "must be that of the state, TYPE_FP32, found TYPE_INT32",
        ),
        (
            INITIAL % ZERO.replace("[ 2 ]", "[ 3 ]"),
            "state[0].initial_state[0].dims",
            "agrees with the state's dims [2]",
        ),
        (INITIAL % ZERO.replace("[ 2 ]", "[ 2, 1 ]"), "state[0].initial_state[0].dims", "found [2, 1]"),
        (
            (INITIAL % ZERO).replace("[ 2 ]", "[ -1 ]"),
            "state[0].initial_state[0].dims",
            "a shape without -1 that agrees with the state's dims [-1], found [-1]",
        ),
        (
            INITIAL % ZERO.replace("zero_data: true", ""),
            "state[0].initial_state[0]",
            "needs either zero_data: true or a data_file",
        ),
        (
            INITIAL % ZERO.replace("zero_data: true", "data_file: 'none'"),
            "state[0].initial_state[0].data_file",
            "cannot be read: No such file or directory",
        ),
        (
            (INITIAL % ZERO.replace("zero_data: true", "data_file: 'two'")).replace("[ 2 ]", "[ 3 ]"),
            "state[0].initial_state[0].data_file",
            "has 8 bytes, but the shape [3] needs 12",
        ),
        (
            (INITIAL % ZERO.replace("zero_data: true", "data_file: 'strings'"))
            .replace("TYPE_FP32", "TYPE_STRING")
            .replace("[ 2 ]", "[ 3 ]"),
            "state[0].initial_state[0].data_file",
            "must hold 3 strings, each behind its length in 4 bytes",
        ),
    ],
)
def test_one_thing_wrong_gives_one_problem(folder: Path, text: str, field: str, message: str):
    (problem,) = problems_of(folder, text)
    assert problem.startswith(f"sequence_batching.{field}: ")
    assert message in problem


def test_everything_wrong_is_told_at_once(folder: Path):
    text = "direct { minimum_slot_utilization: 2 } control_input { } state { dims: [ 0 ] use_growable_memory: true }"
    fields = [problem.split(": ")[0].removeprefix("sequence_batching.") for problem in problems_of(folder, text)]
    assert sorted(fields) == [
        "control_input[0].control",
        "control_input[0].name",
        "direct.minimum_slot_utilization",
        "state[0].data_type",
        "state[0].dims[0]",
        "state[0].input_name",
        "state[0].output_name",
        "state[0].use_growable_memory",
    ]


def test_a_sequence_compiles_to_made_inputs_controls_and_states(folder: Path):
    public = STATE.replace("'s'", "'u'").replace("'t'", "'b'").replace("[ 2 ]", "[ 4 ]") % ""
    initial = INITIAL % ZERO.replace("zero_data: true", "data_file: 'three'")
    ids = CONTROL % "kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_INT64"
    document = read(folder, f"oldest {{ max_candidate_sequences: 3 }} {ids} {initial} {public}")
    spec = compile_spec(document.config, 1, folder, 0)
    assert spec.sequence is not None
    assert spec.sequence.strategy == OldestSpec(3, (8,))
    assert spec.sequence.max_idle_us == 1_000_000
    (control,) = spec.sequence.controls
    assert (control.kind, control.input, control.datatype) == (ControlKind.CORRELATION_ID, 0, DataType.INT64)
    assert [tensor.name for tensor in spec.all_inputs] == ["a", "c", "s", "u"]
    assert [tensor.name for tensor in spec.all_outputs] == ["b", "t"]
    kept, shown = spec.sequence.states
    assert (kept.input, kept.output, kept.initial) == (1, 1, struct.pack("<2f", 5, 6))
    assert (shown.input, shown.output, shown.initial) == (2, 0, bytes(16))


def test_without_a_strategy_it_is_direct(folder: Path):
    spec = compile_spec(read(folder, "").config, 1, folder, 0)
    assert spec.sequence is not None
    assert spec.sequence.strategy == DirectSpec()
