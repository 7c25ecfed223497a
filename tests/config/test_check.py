"""What Triton refuses (model_config_utils.cc, Validate...), and what this version of Shoal cannot do yet."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.config.check import check_config, check_tensors
from shoal.config.complete import complete_config
from shoal.config.model_config_pb2 import ModelConfig
from shoal.config.prepare import prepare_config
from shoal.config.problem import Source
from shoal.config.read import parse_config
from shoal.config.tree import Dialect
from shoal.config.unsupported import UNSUPPORTED, unsupported_problems

from .messages import configs

GOOD = """
backend: "python"
max_batch_size: 8
input { name: "a" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "b" data_type: TYPE_FP32 dims: [ 4 ] }
"""


def check(tmp_path, text, gpu_count=0):
    """The problems of a configuration, without the table of what is not supported."""
    document = parse_config(text, Dialect.TEXT, "FILE")
    assert document.problems == ()
    folder = tmp_path / "m"
    folder.mkdir(exist_ok=True)
    complete_config(document.config, folder, gpu_count)
    problems = check_config(document.config, document.source, folder, gpu_count)
    problems += check_tensors(document.config, document.source, folder)
    return [str(problem) for problem in problems if "not supported by this version" not in problem.message]


def test_a_good_configuration_has_no_problems(tmp_path):
    assert check(tmp_path, GOOD) == []


LEVELS = GOOD + "dynamic_batching { priority_levels: 2 default_priority_level: 1 %s }"
ORDERED = GOOD + "dynamic_batching { preserve_ordering: true %s }"
LATE = "{ timeout_action: DELAY default_timeout_microseconds: 1 }"
SEQUENCE = GOOD + "sequence_batching { %s }"
CONTROL = SEQUENCE % "control_input { name: 'c' control { %s } }"
ENSEMBLE = """
platform: "ensemble"
input { name: "a" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "b" data_type: TYPE_FP32 dims: [ 4 ] }
ensemble_scheduling { %s }
"""
STEP = "step { model_name: 'x' input_map { key: 'i' value: '%s' } output_map { key: 'o' value: '%s' } }"
IO = 'backend: "python" input { name: "a" data_type: TYPE_FP32 %s } output { name: "b" data_type: TYPE_FP32 dims: 1 }'


DECOUPLED_ONNX = (
    'backend: "onnxruntime" input { name: "x" data_type: TYPE_FP32 dims: 1 } '
    'output { name: "y" data_type: TYPE_FP32 dims: 1 } model_transaction_policy { decoupled: true }'
)


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        (GOOD + 'name: "other"', "name", "'other' is not the name of the model's folder, 'm'"),
        (GOOD.replace("8", "-1"), "max_batch_size", "must be 0 (no batch dimension) or more, found -1"),
        (GOOD.replace('"python"', '""'), "backend", "neither given nor to be told from the files of the first version"),
        (GOOD.replace("backend", "platform"), "platform", "unknown platform 'python'; set backend instead"),
        (
            GOOD.replace('"python"', '"onnxruntime"') + 'platform: "x"',
            "platform",
            "'x' does not go with backend 'onnxruntime'",
        ),
        (ENSEMBLE % STEP % ("a", "b") + 'backend: "x"', "backend", "an ensemble has no backend"),
        (GOOD + "version_policy { latest { } }", "version_policy.latest.num_versions", "must be 1 or more"),
        (
            GOOD + "version_policy { specific { } }",
            "version_policy.specific.versions",
            "must name at least one version",
        ),
        (
            GOOD + "version_policy { specific { versions: [ 1, -1 ] } }",
            "version_policy.specific.versions[1]",
            "a version is 0 or more",
        ),
        (GOOD + "instance_group { count: -2 }", "instance_group[0].count", "must be 1 or more, found -2"),
        (
            GOOD + "instance_group { profile: '1' }",
            "instance_group[0].profile",
            "optimization profiles are for TensorRT",
        ),
        (
            GOOD + "instance_group { kind: KIND_CPU gpus: 0 }",
            "instance_group[0].gpus",
            "an instance group of KIND_CPU must not list GPUs",
        ),
        (
            GOOD + "instance_group { kind: KIND_MODEL gpus: 0 }",
            "instance_group[0].gpus",
            "an instance group of KIND_MODEL must not",
        ),
        (GOOD + "instance_group { kind: KIND_GPU }", "instance_group[0].kind", "KIND_GPU, but this machine has no GPU"),
        (
            GOOD + "instance_group { passive: true } instance_group { passive: true }",
            "instance_group[0].passive",
            "every instance is passive, so no request would ever be answered",
        ),
        (
            GOOD + "instance_group { kind: KIND_GPU gpus: 0 }",
            "instance_group[0].kind",
            "KIND_GPU, but this machine has no GPU",
        ),
        (
            GOOD + "dynamic_batching { preferred_batch_size: [ 4, 0 ] }",
            "dynamic_batching.preferred_batch_size[1]",
            "must be from 1 to max_batch_size (8), found 0",
        ),
        (
            GOOD + "dynamic_batching { preferred_batch_size: 9 }",
            "dynamic_batching.preferred_batch_size[0]",
            "must be from 1 to max_batch_size (8), found 9",
        ),
        (
            GOOD + "dynamic_batching { priority_levels: 2 }",
            "dynamic_batching.default_priority_level",
            "must be from 1 to priority_levels (2), found 0",
        ),
        (
            GOOD + "dynamic_batching { priority_levels: 2 default_priority_level: 3 }",
            "dynamic_batching.default_priority_level",
            "must be from 1",
        ),
        (
            LEVELS % "priority_queue_policy { key: 3 value { } }",
            'dynamic_batching.priority_queue_policy["3"]',
            "a priority level is from 1 to priority_levels (2), found 3",
        ),
        (
            GOOD + "dynamic_batching { priority_levels: 2 default_priority_level: 1 preserve_ordering: true }",
            "dynamic_batching.preserve_ordering",
            "must be false or priority_levels be 1",
        ),
        (
            ORDERED % f"default_queue_policy {LATE}",
            "dynamic_batching.default_queue_policy.timeout_action",
            "must be REJECT with preserve_ordering",
        ),
        (
            ORDERED % f"priority_levels: 1 default_priority_level: 1 priority_queue_policy {{ key: 1 value {LATE} }}",
            'dynamic_batching.priority_queue_policy["1"].timeout_action',
            "must be REJECT",
        ),
        (
            SEQUENCE % "oldest { preferred_batch_size: 9 }",
            "sequence_batching.oldest.preferred_batch_size[0]",
            "must be from 1 to max_batch_size (8), found 9",
        ),
        (
            SEQUENCE % "direct { minimum_slot_utilization: 1.5 }",
            "sequence_batching.direct.minimum_slot_utilization",
            "must be from 0 to 1, found 1.5",
        ),
        (
            CONTROL % "kind: CONTROL_SEQUENCE_START",
            "sequence_batching.control_input[0].control[0]",
            "CONTROL_SEQUENCE_START needs exactly one of int32_false_true, fp32_false_true, bool_false_true",
        ),
        (
            CONTROL % "int32_false_true: [ 0, 1 ] fp32_false_true: [ 0, 1 ]",
            "sequence_batching.control_input[0].control[0]",
            "CONTROL_SEQUENCE_START needs exactly one",
        ),
        (
            CONTROL % "int32_false_true: [ 0 ]",
            "sequence_batching.control_input[0].control[0].int32_false_true",
            "needs two values, for false and for true, found 1",
        ),
        (
            CONTROL % "kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_FP32",
            "sequence_batching.control_input[0].control[0].data_type",
            "must be one of TYPE_UINT32, TYPE_UINT64, TYPE_INT32, TYPE_INT64, TYPE_STRING",
        ),
        (
            CONTROL % "kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_INT32 int32_false_true: 1",
            "sequence_batching.control_input[0].control[0].int32_false_true",
            "CONTROL_SEQUENCE_CORRID has a data_type",
        ),
        (
            SEQUENCE % "" + "response_cache { enable: true }",
            "response_cache.enable",
            "Response Cache does not currently support model m with sequence batching scheduler.",
        ),
        (
            GOOD + "model_transaction_policy { decoupled: true } response_cache { enable: true }",
            "response_cache.enable",
            "Response Cache does not currently support model m with 'decoupled' transaction policy.",
        ),
        (
            DECOUPLED_ONNX,
            "model_transaction_policy.decoupled",
            "must be false: the backend 'onnxruntime' gives each request exactly one response",
        ),
        (
            GOOD + "model_metrics { metric_control { histogram_options { buckets: 1 } } }",
            "model_metrics.metric_control[0].metric_identifier.family",
            "must name the metric",
        ),
        (
            GOOD + "model_metrics { metric_control { metric_identifier { family: 'x' } } }",
            "model_metrics.metric_control[0].histogram_options.buckets",
            "must have at least one bucket",
        ),
        (ENSEMBLE % "", "ensemble_scheduling.step", "must have at least one step"),
        (ENSEMBLE.replace("ensemble_scheduling { %s }", ""), "platform", "an ensemble needs ensemble_scheduling"),
        (
            f"{GOOD} ensemble_scheduling {{ {STEP} }}" % ("a", "b"),
            "platform",
            "must be 'ensemble' with ensemble_scheduling",
        ),
        (ENSEMBLE % STEP % ("a", "b") + "instance_group { }", "instance_group", "an ensemble has none"),
        (ENSEMBLE % STEP % ("a", "b") + "optimization { }", "optimization", "an ensemble has none"),
        (
            ENSEMBLE % (STEP % ("a", "b") + STEP % ("c", "c")),
            'ensemble_scheduling.step[1].input_map["i"]',
            "tensor 'c' is made of itself",
        ),
        (
            ENSEMBLE % (STEP % ("a", "b") + STEP % ("a", "b")),
            'ensemble_scheduling.step[1].output_map["o"]',
            "tensor 'b' is written by step 0 already",
        ),
        (
            ENSEMBLE % (STEP % ("a", "b") + STEP % ("a", "z")),
            'ensemble_scheduling.step[1].output_map["o"]',
            "tensor 'z' is used by nothing",
        ),
        (
            ENSEMBLE % "step { input_map { key: 'i' value: 'a' } output_map { key: 'o' value: 'b' } }",
            "ensemble_scheduling.step[0].model_name",
            "must be given",
        ),
        (
            ENSEMBLE % "step { model_name: 'x' output_map { key: 'o' value: 'b' } }",
            "ensemble_scheduling.step[0].input_map",
            "must map at least one tensor",
        ),
        ('backend: "python"', "input", "the model has neither inputs nor outputs"),
        (
            GOOD + 'input { name: "a" data_type: TYPE_INT8 dims: 1 }',
            "input[1].name",
            "'a' is the name of input[0] as well",
        ),
        (
            GOOD + 'output { name: "b" data_type: TYPE_INT8 dims: 1 }',
            "output[1].name",
            "'b' is the name of output[0] as well",
        ),
        (GOOD + "input { data_type: TYPE_INT8 dims: 1 }", "input[1].name", "must be given"),
        (GOOD + 'input { name: "c" dims: 1 }', "input[1].data_type", "must be given, one of TYPE_BOOL, "),
        (IO % "", "input[0].dims", "must be given; for a scalar use dims: [ 1 ] with reshape { shape: [ ] }"),
        (IO % "dims: [ 2, 0 ]", "input[0].dims[1]", "a dimension is 1 or more, or -1 when it varies, found 0"),
        (IO % "dims: [ -2 ]", "input[0].dims[0]", "a dimension is 1 or more"),
        (IO % "dims: 4 reshape { shape: [ 2, 0 ] }", "input[0].reshape.shape[1]", "a dimension is 1 or more"),
        (IO % "dims: 4 reshape { shape: [ 3 ] }", "input[0].reshape.shape", "[3] and dims [4] differ in size"),
        (
            IO % "dims: 1 reshape { }",
            "input[0].reshape.shape",
            "must not be empty in a model without a batch dimension",
        ),
        (
            IO % "dims: [ 2, -1, 3 ] reshape { shape: [ 3, -1, 2 ] }",
            "input[0].reshape.shape",
            "[3, -1, 2] does not hold as many elements as dims [2, -1, 3]",
        ),
        (IO % "dims: [ -1, -1 ] reshape { shape: [ -1 ] }", "input[0].reshape.shape", "[-1] does not hold as many"),
        (IO % "dims: 4 format: FORMAT_NHWC", "input[0].format", "FORMAT_NHWC needs 3 dims, found 1"),
        (
            IO % "dims: 4 is_shape_tensor: true",
            "input[0].is_shape_tensor",
            "shape tensors are for platform tensorrt_plan only",
        ),
        (
            IO % "dims: [ 1, 2, 3 ] is_non_linear_format_io: true",
            "input[0].is_non_linear_format_io",
            "non-linear formats are for platform",
        ),
        (
            IO % "dims: 4 allow_ragged_batch: true",
            "input[0].allow_ragged_batch",
            "needs a model with max_batch_size of 1 or more",
        ),
        (
            GOOD + "output { name: 'l' data_type: TYPE_FP32 dims: 1 label_filename: 'l.txt' }",
            "output[1].label_filename",
            "there is no file ",
        ),
        (
            GOOD + "batch_input { source_input: 'a' data_type: TYPE_INT64 }",
            "batch_input[0].data_type",
            "must be TYPE_INT32 or TYPE_FP32",
        ),
        (
            GOOD + "batch_input { data_type: TYPE_INT32 }",
            "batch_input[0].source_input",
            "BATCH_ELEMENT_COUNT needs exactly 1 source input, found 0",
        ),
        (
            GOOD + "batch_input { source_input: 'A' data_type: TYPE_INT32 }",
            "batch_input[0].source_input[0]",
            "there is no input 'A'",
        ),
        (
            GOOD + "batch_output { source_input: 'a' target_name: 'x' }",
            "batch_output[0].target_name[0]",
            "there is no output 'x'",
        ),
        (
            GOOD + "batch_output { source_input: 'a' target_name: [ 'b', 'b' ] }",
            "batch_output[0].target_name[1]",
            "'b' stands here for the second time",
        ),
    ],
)
def test_one_thing_wrong_gives_one_problem(tmp_path, text, field, message):
    found = check(tmp_path, text)
    assert len(found) == 1
    file, path, rest = found[0].split(": ", 2)
    assert (file.split(":")[0], path) == ("FILE", field)
    assert rest.startswith(message)


def test_the_flow_of_an_ensemble_is_followed(tmp_path):
    """Each tensor that is missing is named, and what cannot be computed without it."""
    assert [line.split(": ", 1)[1] for line in check(tmp_path, ENSEMBLE % STEP % ("x", "b"))] == [
        "input[0]: input 'a' is used by no step",
        "output[0]: output 'b' is written by no step that can run",
        "ensemble_scheduling.step[0].input_map[\"i\"]: tensor 'x' is neither an input nor written by a step",
    ]


@pytest.mark.parametrize(
    "text",
    [
        IO % "dims: [ 2, 3, -1, 4 ] reshape { shape: [ 6, -1, 2, 2 ] }",
        IO % "dims: [ 1 ] reshape { shape: [ ] }" + " max_batch_size: 1 ",
        IO % "dims: [ 3, 2, 1 ] format: FORMAT_NCHW",
        LEVELS % "priority_queue_policy { key: 2 value { } }",
        GOOD + "dynamic_batching { preserve_ordering: true default_queue_policy { default_timeout_microseconds: 1 } }",
        GOOD + "instance_group { name: 'g' } instance_group { name: 'g' }",
        CONTROL % "kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_STRING",
        ENSEMBLE % (STEP % ("a", "z") + STEP % ("z", "b")),
        ENSEMBLE % (STEP % ("z", "b") + STEP % ("a", "z")),
    ],
)
def test_what_triton_accepts_is_accepted(tmp_path, text):
    assert check(tmp_path, text) == []


def test_gpus_are_those_of_the_machine(tmp_path):
    text = GOOD + "instance_group { kind: KIND_GPU gpus: [ 0, 2 ] }"
    assert [line.split(": ", 1)[1] for line in check(tmp_path, text, gpu_count=2)] == [
        "instance_group[0].gpus[1]: there is no GPU 2 here, only GPU 0 to 1"
    ]
    assert check(tmp_path, GOOD + "instance_group { kind: KIND_GPU }", gpu_count=1) == []


FEATURES = {
    "ensemble_scheduling.step[].model_namespace": "ensemble_scheduling { step { } step { model_namespace: 'x' } }",
    "batch_input": "batch_input { }",
    "batch_output": "batch_output { }",
    "input[].allow_ragged_batch": "input { } input { allow_ragged_batch: true }",
    "model_warmup": "model_warmup { }",
    "model_repository_agents": "model_repository_agents { }",
    "model_operations": "model_operations { }",
    "model_metrics": "model_metrics { }",
    "cc_model_filenames": "cc_model_filenames { key: '8.0' value: 'x' }",
    "runtime": "runtime: 'x'",
    "instance_group[].secondary_devices": "instance_group { } instance_group { secondary_devices { } }",
}


@pytest.mark.parametrize("entry", UNSUPPORTED, ids=lambda entry: entry.field)
def test_what_is_not_supported_is_an_error_and_never_ignored(entry):
    document = parse_config(f"\n{FEATURES[entry.field]}", Dialect.TEXT, "FILE")
    field = entry.field.replace("[]", "[1]")
    assert [str(problem) for problem in unsupported_problems(document.config, document.source)] == [
        f"FILE:2: {field}: not supported by this version of Shoal; {entry.advice}"
    ]


def test_what_is_switched_off_is_no_error():
    text = (
        "response_cache { enable: false } model_transaction_policy { } instance_group { rate_limiter { priority: 2 } }"
    )
    document = parse_config(text, Dialect.TEXT, "FILE")
    assert unsupported_problems(document.config, document.source) == []


@given(configs(), st.integers(0, 2))
def test_checking_never_fails_and_every_problem_names_a_field(tmp_path_factory, config, gpu_count):
    folder = tmp_path_factory.getbasetemp() / "m"
    complete_config(config, folder, gpu_count)
    problems = check_config(config, Source("FILE"), folder, gpu_count) + check_tensors(config, Source("FILE"), folder)
    top = {field.name for field in ModelConfig.DESCRIPTOR.fields}
    assert all(problem.message and problem.field.split(".")[0].split("[")[0] in top for problem in problems)


def test_everything_is_found_at_once_and_nothing_twice(tmp_path):
    """A field that cannot be read is no reason to say that it is missing, nor to stop."""
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "config.pbtxt").write_text(
        'backend: "python"\nmax_batch_size: x\ninstance_group { kind: KIND_GPU counnt: 2 }\n'
        "instance_group { count: -1 }\nruntime: 'other'\nname: 'other'\n"
    )
    found = [(problem.line, problem.field) for problem in prepare_config(folder, 0).problems]
    assert found == [
        (2, "max_batch_size"),
        (3, "instance_group[0].counnt"),
        (6, "name"),
        (4, "instance_group[1].count"),
        (5, "runtime"),
    ]


def test_a_missing_field_is_placed_at_the_nearest_line():
    document = parse_config("\n\ninput {\n  name: 'a'\n}", Dialect.TEXT, "FILE")
    assert document.source.problem("input[0].dims", "x").line == 3
    assert document.source.problem("output", "x").line == 3
    assert Source("FOLDER").problem("output", "x").line == 0
