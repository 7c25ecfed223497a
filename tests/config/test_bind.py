"""Fields that do not fit: every message names file, line and field, says what would fit, and there is one for each."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.config.model_config_pb2 import ModelConfig
from shoal.config.read import parse_config, read_config
from shoal.config.tree import Dialect


def problems(text, dialect=Dialect.TEXT):
    return [str(problem) for problem in parse_config(text, dialect, "FILE").problems]


def test_every_problem_is_reported():
    text = """name: 5
max_batchsize: 8
input {
  name: "a"
  data_type: TYPE_FP3
  dims: [1, x, 2.5]
  reshape: 4
}
instance_group [ { count: 99999999999 kind: "KIND_CPU" } ]
dynamic_batching { preserve_ordering: maybe }
sequence_batching { }
parameters { key: "x" value: "y" }
name: "x"
"""
    found = problems(text)
    assert [line.split(": ")[0] + ": " + line.split(": ")[1] for line in found] == [
        "FILE:1: name",
        "FILE:2: max_batchsize",
        "FILE:5: input[0].data_type",
        "FILE:6: input[0].dims[1]",
        "FILE:6: input[0].dims[2]",
        "FILE:7: input[0].reshape",
        "FILE:9: instance_group[0].count",
        "FILE:9: instance_group[0].kind",
        "FILE:10: dynamic_batching.preserve_ordering",
        "FILE:11: sequence_batching",
        'FILE:12: parameters["x"]',
        "FILE:13: name",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "nmae: 'a'",
            "FILE:1: nmae: unknown field 'nmae'; did you mean 'name'? ModelConfig has: name, platform, backend,",
        ),
        ("version_policy { all { x: 1 } }", "FILE:1: version_policy.all.x: unknown field 'x'; All has no fields"),
        ("name: a", 'FILE:1: name: expected a string in quotes, found a; write "a"'),
        ("name: { }", "FILE:1: name: expected a single value, found a block"),
        ("name: ['a']", "FILE:1: name: expected a single value, found a list"),
        ("input: 'a'", "FILE:1: input[0]: expected the fields of a ModelInput, found 'a'"),
        (
            "max_batch_size: 'a'",
            "FILE:1: max_batch_size: expected a whole number from -2147483648 to 2147483647, found 'a'",
        ),
        (
            "max_batch_size: 089",
            "FILE:1: max_batch_size: expected a whole number from -2147483648 to 2147483647, found 089",
        ),
        (
            "dynamic_batching { max_queue_delay_microseconds: -1 }",
            "FILE:1: dynamic_batching.max_queue_delay_microseconds: expected a whole number from 0 to 1844674",
        ),
        ("response_cache { enable: 2 }", "FILE:1: response_cache.enable: expected true or false, found 2"),
        (
            "sequence_batching { direct { minimum_slot_utilization: x } }",
            "FILE:1: sequence_batching.direct.minimum_slot_utilization: expected a number, found x",
        ),
        (
            "sequence_batching { direct { minimum_slot_utilization: 1e39 } }",
            "FILE:1: sequence_batching.direct.minimum_slot_utilization: expected a number no larger than 3.4028235e+38",
        ),
        (
            "instance_group { kind: KIND_GPUS }",
            "FILE:1: instance_group[0].kind: expected one of KIND_AUTO, KIND_GPU, KIND_CPU, KIND_MODEL, found ",
        ),
        (
            "instance_group { kind: 'KIND_GPU' }",
            "FILE:1: instance_group[0].kind: expected a name without quotes; write KIND_GPU",
        ),
        (
            "instance_group { kind: 9 }",
            "FILE:1: instance_group[0].kind: expected one of KIND_AUTO, KIND_GPU, KIND_CPU, ",
        ),
        (
            "version_policy { all { } latest { } }",
            "FILE:1: version_policy.latest: only one of latest, all, specific may be set; ",
        ),
        ("metric_tags: 'a'", "FILE:1: metric_tags: expected { key: ... value: ... }, found 'a'"),
        ("metric_tags { kee: 'a' }", "FILE:1: metric_tags.kee: unknown field 'kee'; an entry of a map has: key, value"),
        ("metric_tags { key: { } }", "FILE:1: metric_tags.key: expected a single value, found a block"),
    ],
)
def test_text(text, expected):
    found = problems(text)
    assert len(found) == 1
    assert found[0].startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"name": 5}', 'FILE:1: name: expected a string in quotes, found 5; write "5"'),
        ('{"input": {}}', "FILE:1: input: expected a list, found a block"),
        ('{"input": [null]}', "FILE:1: input[0]: expected the fields of a ModelInput, found null"),
        (
            '{\n"maxBatchSize": 1,\n"max_batch_size": 2}',
            "FILE:3: max_batch_size: may be set only once; line 2 has it already",
        ),
        ('{"metric_tags": {"a": "1",\n"a": "2"}}', 'FILE:2: metric_tags["a"]: stands here for the second time'),
        ('{"metric_tags": ["a"]}', "FILE:1: metric_tags: expected names with their values, found a list"),
        ('{"metric_tags": {"a": null}}', 'FILE:1: metric_tags["a"]: expected a string in quotes, found null'),
        (
            '{"max_batch_size": 1.5}',
            "FILE:1: max_batch_size: expected a whole number from -2147483648 to 2147483647, found 1.5",
        ),
        (
            '{"max_batch_size": "1_0"}',
            "FILE:1: max_batch_size: expected a whole number from -2147483648 to 2147483647, found '1_0'",
        ),
        (
            '{"response_cache": {"enable": "true"}}',
            "FILE:1: response_cache.enable: expected true or false, found 'true'",
        ),
        ('{"name": "\\ud83d"}', "FILE:1: name: the string holds half a surrogate pair, which is no character"),
    ],
)
def test_json(text, expected):
    found = problems(text, Dialect.JSON)
    assert len(found) == 1
    assert found[0].startswith(expected)


def leaves(descriptor, path=""):
    """Every scalar field that is no part of a list or map, with its path."""
    for field in descriptor.fields:
        place = f"{path}.{field.name}" if path else field.name
        if field.message_type is None and not field.is_repeated:
            yield place, field
        elif field.message_type is not None and not field.is_repeated:
            yield from leaves(field.message_type, place)


LEAVES = list(leaves(ModelConfig.DESCRIPTOR))


@given(st.sampled_from(LEAVES), st.integers(0, 5))
def test_a_bad_value_gives_one_message_that_names_its_field(leaf, lines_before):
    path, _ = leaf
    *outer, name = path.split(".")
    text = "\n" * lines_before + "".join(f"{part} {{ " for part in outer) + f"{name}: <>" + " }" * len(outer)
    found = problems(text)
    assert len(found) == 1
    assert found[0].startswith(f"FILE:{lines_before + 1}: {path}: expected ")


@given(st.sampled_from(LEAVES))
def test_a_misspelt_name_gives_one_message_with_the_right_one(leaf):
    path, field = leaf
    *outer, name = path.split(".")
    wrong = name + "x"
    text = "".join(f"{part} {{ " for part in outer) + f"{wrong}: 1" + " }" * len(outer)
    found = problems(text)
    assert len(found) == 1
    assert found[0].startswith(f"FILE:1: {'.'.join([*outer, wrong])}: unknown field '{wrong}'")
    assert f"'{field.name}'" in found[0] or len(name) < 3


def test_pbtxt_wins_over_the_other_formats(tmp_path):
    (tmp_path / "config.json").write_text('{"name": "json"}')
    (tmp_path / "config.yaml").write_text("name: yaml")
    document = read_config(tmp_path)
    assert document.config.name == "json"
    (tmp_path / "config.pbtxt").write_text('name: "text"')
    document = read_config(tmp_path)
    assert document.config.name == "text"
    assert [str(problem) for problem in document.problems] == [
        f"{tmp_path}/config.{other}: a second configuration beside config.pbtxt, which wins; keep one of them"
        for other in ("json", "yaml")
    ]


def test_no_file_is_an_empty_configuration(tmp_path):
    document = read_config(tmp_path)
    assert (document.config, document.problems, document.source.file) == (ModelConfig(), (), str(tmp_path))


def test_a_file_that_is_no_text_is_a_problem(tmp_path):
    (tmp_path / "config.pbtxt").write_bytes(b"name: '\xff'")
    (found,) = read_config(tmp_path).problems
    assert str(found).startswith(f"{tmp_path}/config.pbtxt: cannot be read: ")


def test_a_byte_order_mark_is_passed_over(tmp_path):
    (tmp_path / "config.pbtxt").write_bytes(b"\xef\xbb\xbfname: 'a'")
    assert read_config(tmp_path).config.name == "a"
