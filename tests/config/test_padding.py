"""The padding policy: what is refused and where, how it is compiled, and that all three formats can hold it."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.config.check import check_config, check_tensors
from shoal.config.compile import compile_spec
from shoal.config.complete import complete_config
from shoal.config.padding import PaddedInput, PaddedLength, PaddedOutput, PaddingSpec
from shoal.config.padding_check import element
from shoal.config.padding_policy import InputPolicy, PolicyReader
from shoal.config.read import parse_config
from shoal.config.tree import Dialect
from shoal.datatypes import DataType

TENSORS = """
input [
  { name: "IDS" data_type: TYPE_INT64 dims: [ -1 ] },
  { name: "TYPES" data_type: TYPE_INT64 dims: [ -1 ] optional: true },
  { name: "MASK" data_type: TYPE_INT64 dims: [ -1 ] },
  { name: "LENGTH" data_type: TYPE_INT32 dims: [ 1 ] },
  { name: "IMAGE" data_type: TYPE_FP32 dims: [ -1, 3, -1 ] },
  { name: "FIXED" data_type: TYPE_FP32 dims: [ 4 ] },
  { name: "TEXT" data_type: TYPE_STRING dims: [ -1 ] },
  { name: "RAGGED" data_type: TYPE_FP32 dims: [ -1 ] %s }
]
output [
  { name: "LOGITS" data_type: TYPE_FP32 dims: [ -1, 2 ] },
  { name: "PAIRS" data_type: TYPE_FP32 dims: [ -1, -1 ] },
  { name: "SCORE" data_type: TYPE_FP32 dims: [ 1 ] }
]
"""
HEAD = 'backend: "onnxruntime"\nmax_batch_size: 8\n'
BATCH_INPUT = "batch_input { target_name: '%s' data_type: TYPE_FP32 source_input: '%s' }"
BATCH_OUTPUT = "batch_output { target_name: '%s' source_input: '%s' }"
NONE = {"outputs": []}


def read(tmp_path, policy, head=HEAD, ragged="", tail=""):
    text = policy if isinstance(policy, str) else json.dumps(policy)
    written = f"{head}{TENSORS % ragged}{tail}\nparameters {{ key: \"padding\" value {{ string_value: '{text}' }} }}\n"
    document = parse_config(written, Dialect.TEXT, "FILE")
    assert document.problems == ()
    folder = tmp_path / "m"
    folder.mkdir(exist_ok=True)
    complete_config(document.config, folder, 0)
    return document, folder


def problems(tmp_path, policy, **more):
    document, folder = read(tmp_path, policy, **more)
    found = [*check_config(document.config, document.source, folder, 0)]
    found += check_tensors(document.config, document.source, folder)
    return [str(problem) for problem in found if "padding" in problem.field]


def compiled(tmp_path, policy, **more):
    assert problems(tmp_path, policy, **more) == []
    document, folder = read(tmp_path, policy, **more)
    return compile_spec(document.config, 1, folder, 0)


@pytest.mark.parametrize(
    ("policy", "field", "message"),
    [
        ("{", "", "is no JSON: Expecting property name"),
        ("[]", "", "must be an object with each padded input"),
        ("{}", "", "must be an object with each padded input"),
        ('{"IDS": {}, "IDS": {}}', "", "'IDS' stands in one object for the second time"),
        ({"value": 0, "mask": "MASK"}, "", "value, mask must stand under the name of an input, such as"),
        ({"IDS": 3}, ".IDS", "must be an object with any of value, dimension, multiple_of"),
        ({"ID": NONE}, ".ID", "there is no input 'ID'; did you mean 'IDS'?"),
        ({"IDS": {"bucket": [3], **NONE}}, ".IDS.bucket", "unknown; did you mean 'buckets'?"),
        ({"IDS": {"multiple_of": 0, **NONE}}, ".IDS.multiple_of", "must be a whole number of 1 or more, found 0"),
        ({"IDS": {"multiple_of": True, **NONE}}, ".IDS.multiple_of", "must be a whole number of 1 or more, found true"),
        ({"IDS": {"maximum": "9", **NONE}}, ".IDS.maximum", 'must be a whole number of 1 or more, found "9"'),
        ({"IDS": {"maximum": 9, "multiple_of": 8, **NONE}}, ".IDS.maximum", "must be a multiple of multiple_of (8)"),
        ({"IDS": {"buckets": [8, 8], **NONE}}, ".IDS.buckets", "must be a list of lengths from 1, each longer"),
        ({"IDS": {"buckets": [], **NONE}}, ".IDS.buckets", "must be a list of lengths from 1, each longer"),
        ({"IDS": {"buckets": [4], "multiple_of": 8, **NONE}}, ".IDS.buckets", "must be multiples of multiple_of (8)"),
        ({"IDS": {"buckets": [9], "maximum": 8, **NONE}}, ".IDS.buckets", "must not be above maximum (8), found 9"),
        ({"IDS": {"value": 0.5, **NONE}}, ".IDS.value", "0.5 is no value of TYPE_INT64"),
        ({"IDS": {"value": True, **NONE}}, ".IDS.value", "True is no value of TYPE_INT64"),
        ({"IDS": {"value": 2**63, **NONE}}, ".IDS.value", "is no value of TYPE_INT64"),
        ({"IDS": {"value": None, **NONE}}, ".IDS.value", "must be a single value of the input's data type, found null"),
        ({"TEXT": {"value": 0, **NONE}}, ".TEXT.value", "0 is no value of TYPE_STRING"),
        ({"IMAGE": {"dimension": 1, **NONE}}, ".IMAGE.dimension", "must be a variable dimension (-1) of dims [-1, 3, "),
        ({"FIXED": NONE}, ".FIXED", "has no variable dimension to pad: its dims are [4]"),
        ({"TYPES": NONE}, ".TYPES", "must not be optional, for its length decides"),
        ({"MASK": {"mask": "MASK", **NONE}}, ".MASK", "is made by the server, and so cannot be padded itself"),
        ({"IDS": {"mask": "MASKS", **NONE}}, ".IDS.mask", "there is no input 'MASKS'; did you mean 'MASK'?"),
        ({"IDS": {"mask": "TEXT", **NONE}}, ".IDS.mask", "'TEXT' must be one of TYPE_BF16, TYPE_BOOL"),
        ({"IDS": {"mask": "FIXED", **NONE}}, ".IDS.mask", "'FIXED' must have dims [ -1 ], found [4]"),
        ({"IDS": {"length": "MASK", **NONE}}, ".IDS.length", "'MASK' must have dims [ 1 ], or [ 1 ] with reshape"),
        ({"IDS": {"mask": "MASK", **NONE}, "TEXT": {"mask": "MASK", **NONE}}, "", "'MASK' stands in it for the second"),
        ({"IDS": {}}, ".IDS.outputs", "'PAIRS' has dims [-1, -1]; say which of them follows the length"),
        ({"IDS": {"outputs": ["LOGIT"]}}, ".IDS.outputs", "there is no output 'LOGIT'; did you mean 'LOGITS'?"),
        ({"IDS": {"outputs": {"LOGITS": 1}}}, ".IDS.outputs", "dimension 1 of 'LOGITS' is not a variable one (-1)"),
        ({"IDS": {"outputs": {"LOGITS": -1}}}, ".IDS.outputs", "must be a list of outputs, or an object"),
        ({"IDS": {}, "TEXT": NONE}, ".IDS.outputs", "must be given where requests differ in several lengths"),
        ({"IDS": NONE, "TYPES": {"like": "ID"}}, ".TYPES.like", "must be a padded input that is not like another"),
        (
            {"IDS": NONE, "TYPES": {"like": "IDS", "maximum": 4}},
            ".TYPES.maximum",
            "belongs to 'IDS', which this input is like",
        ),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path, policy, field, message):
    found = problems(tmp_path, policy)
    assert any(f'parameters["padding"]{field}: ' in line and message in line for line in found), found


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"head": 'backend: "onnxruntime"\n'}, "needs a model with max_batch_size of 1 or more"),
        ({"tail": "sequence_batching { }"}, "cannot be combined with sequence_batching"),
        (
            {"head": HEAD.replace("onnxruntime", "python"), "ragged": "allow_ragged_batch: true"},
            "cannot be combined with allow_ragged_batch in a Python model",
        ),
    ],
)
def test_models_that_cannot_pad(tmp_path, more, message):
    assert any(message in line for line in problems(tmp_path, {"IDS": NONE}, **more))


def test_a_decoupled_model_cannot_have_its_outputs_cut(tmp_path):
    tail = "model_transaction_policy { decoupled: true }"
    assert problems(tmp_path, {"IDS": NONE}, tail=tail) == []
    found = problems(tmp_path, {"IDS": {"outputs": ["LOGITS"]}}, tail=tail)
    assert "must be [] in a decoupled model" in found[0]


def test_the_line_is_that_of_the_parameter(tmp_path):
    document, folder = read(tmp_path, {"ID": NONE})
    (problem,) = (one for one in check_tensors(document.config, document.source, folder) if "padding" in one.field)
    assert problem.line == document.source.lines['parameters["padding"]']


def test_everything_is_compiled(tmp_path):
    policy = {
        "IDS": {
            "value": 7, "multiple_of": 8, "maximum": 64, "buckets": [16, 32], "mask": "MASK", "length": "LENGTH",
            "outputs": {"PAIRS": 1, "LOGITS": 0},
        },
        "TYPES": {"like": "IDS"},
        "IMAGE": {"dimension": 0, "value": -1.5, "outputs": []},
    }  # fmt: skip
    spec = compiled(tmp_path, policy)
    assert [tensor.name for tensor in spec.inputs] == ["IDS", "TYPES", "IMAGE", "FIXED", "TEXT", "RAGGED"]
    assert [tensor.name for tensor in spec.made_inputs] == ["MASK", "LENGTH"]
    ids = PaddedLength(
        inputs=(PaddedInput(0, 1, struct.pack("<q", 7)), PaddedInput(1, 1, bytes(8))),
        multiple_of=8,
        maximum=64,
        buckets=(16, 32),
        mask=6,
        lengths=7,
        outputs=(PaddedOutput(1, 2), PaddedOutput(0, 1)),
    )
    image = PaddedLength((PaddedInput(2, 1, struct.pack("<f", -1.5)),))
    assert spec.padding == PaddingSpec((ids, image))


def test_defaults_pad_the_last_variable_dimension_with_zeros_and_cut_the_only_outputs_that_can_follow(tmp_path):
    spec = compiled(tmp_path, {"IMAGE": {"outputs": ["LOGITS"]}})
    assert spec.padding.lengths[0] == PaddedLength((PaddedInput(4, 3, bytes(4)),), outputs=(PaddedOutput(0, 1),))


POLICY = '{"X": {"multiple_of": 4}}'
YAML = """
backend: python
max_batch_size: 8
input: [{name: X, data_type: TYPE_FP32, dims: [-1]}]
output: [{name: Y, data_type: TYPE_FP32, dims: [-1]}]
parameters:
  padding:
    string_value: |
      {"X": {
        "multiple_of": 4}}
"""
JSON = {
    "backend": "python",
    "max_batch_size": 8,
    "input": [{"name": "X", "data_type": "TYPE_FP32", "dims": [-1]}],
    "output": [{"name": "Y", "data_type": "TYPE_FP32", "dims": [-1]}],
    "parameters": {"padding": {"string_value": POLICY}},
}


@pytest.mark.parametrize(("text", "dialect"), [(YAML, Dialect.YAML), (json.dumps(JSON), Dialect.JSON)])
def test_it_stands_in_yaml_and_json_as_well(tmp_path, text, dialect):
    document = parse_config(text, dialect, "FILE")
    assert document.problems == ()
    complete_config(document.config, tmp_path, 0)
    assert check_tensors(document.config, document.source, tmp_path) == []
    spec = compile_spec(document.config, 1, tmp_path, 0)
    assert spec.padding.lengths[0].multiple_of == 4
    assert spec.padding.lengths[0].outputs == (PaddedOutput(0, 1),)


NAMES = st.sampled_from(["IDS", "value", "outputs", "buckets", "like", "mask"]) | st.text()
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@given(st.recursive(SCALARS, lambda each: st.lists(each) | st.dictionaries(NAMES, each)))
def test_no_json_at_all_breaks_the_reader(written):
    reader = PolicyReader(json.dumps(written))
    assert reader.problems or isinstance(written, dict)


@pytest.mark.parametrize(
    ("datatype", "value", "data"),
    [
        (DataType.BOOL, True, b"\1"),
        (DataType.UINT8, 255, b"\xff"),
        (DataType.INT16, -1, b"\xff\xff"),
        (DataType.FP16, 1, b"\x00\x3c"),
        (DataType.BF16, 1.0, b"\x80\x3f"),
        (DataType.FP32, float("-inf"), b"\x00\x00\x80\xff"),
        (DataType.BYTES, "é", b"\2\0\0\0\xc3\xa9"),
        (DataType.BYTES, None, bytes(4)),
        (DataType.INT64, None, bytes(8)),
    ],
)
def test_the_value_is_one_element_on_the_wire(datatype, value, data):
    assert element(datatype, value) == data


PAGE = (Path(__file__).parents[2] / "docs/unequal-lengths.md").read_text()


@pytest.mark.parametrize("place", [0, 1])
def test_the_configurations_of_the_docs_are_fine(tmp_path, place):
    text = re.findall(r'```text title="config.pbtxt"\n(.*?)```', PAGE, re.DOTALL)[place]
    document = parse_config(text, Dialect.TEXT, "FILE")
    assert document.problems == ()
    complete_config(document.config, tmp_path, 0)
    assert check_tensors(document.config, document.source, tmp_path) == []
    spec = compile_spec(document.config, 1, tmp_path, 0)
    assert [tensor.name for tensor in spec.all_inputs] in (["INPUT_IDS", "ATTENTION_MASK"], ["EVENTS", "OFFSETS"])


def test_every_field_stands_in_the_docs_and_its_examples_are_read():
    for example in re.findall(r"`({.*?})`:?", PAGE) + re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL):
        if "INPUT_IDS" in example:
            assert PolicyReader(example).problems == []
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) >= set(InputPolicy.__dataclass_fields__)


IO = """
backend: "%s"
max_batch_size: 8
input { name: "a" data_type: TYPE_FP32 dims: [ -1 ] allow_ragged_batch: true }
input { name: "c" data_type: TYPE_FP32 dims: [ 1 ] optional: true }
output { name: "b" data_type: TYPE_FP32 dims: [ -1, -1 ] }
output { name: "s" data_type: TYPE_STRING dims: [ -1 ] }
%s
"""


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (BATCH_INPUT % ("a", "a"), "batch_input[0].target_name[0]: 'a' is another input's name"),
        (BATCH_INPUT % ("m", "c"), "batch_input[0].source_input: input 'c' must not be optional"),
        (BATCH_INPUT % ("m", "a") * 2, "batch_input[1].target_name[0]: 'm' is another input's name"),
        ("batch_input { data_type: TYPE_FP32 source_input: 'a' }", "batch_input[0].target_name: must name the model's"),
        (BATCH_OUTPUT % ("b", "a"), "batch_output[0].target_name[0]: 'b' has the dims [-1, -1], of which dimension 1"),
        (BATCH_OUTPUT % ("s", "a"), "batch_output[0].target_name[0]: 's' has data type TYPE_STRING, which cannot be"),
    ],
)
def test_batch_inputs_and_outputs_that_nothing_could_be_made_of(tmp_path, text, problem):
    document = parse_config(IO % ("onnxruntime", text), Dialect.TEXT, "FILE")
    found = [str(each) for each in check_tensors(document.config, document.source, tmp_path)]
    assert any(problem in line for line in found), found
    document = parse_config(IO % ("python", text), Dialect.TEXT, "FILE")
    assert check_tensors(document.config, document.source, tmp_path) == []


@pytest.mark.parametrize(("backend", "more"), [("python", "sequence_batching { }"), ("onnxruntime", "")])
def test_ragged_inputs_stay_ragged(tmp_path, backend, more):
    document = parse_config(IO % (backend, more), Dialect.TEXT, "FILE")
    complete_config(document.config, tmp_path, 0)
    assert compile_spec(document.config, 1, tmp_path, 0).inputs[0].allow_ragged_batch
