"""The three formats, on their own: what they accept, what they refuse, and where they say that it is."""

import contextlib
import json

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from shoal.config.model_config_pb2 import ModelConfig
from shoal.config.read import parse_config
from shoal.config.render import config_to_dict, config_to_json
from shoal.config.tree import Dialect

from .messages import configs, has_infinity


def read(text, dialect=Dialect.TEXT):
    document = parse_config(text, dialect, "FILE")
    assert document.problems == ()
    return document.config


def problems(text, dialect=Dialect.TEXT):
    return [str(problem) for problem in parse_config(text, dialect, "FILE").problems]


@given(configs())
def test_text_is_read_back(config):
    """config -> config.pbtxt -> config is the same, for any configuration."""
    assert read(text_format.MessageToString(config)) == config
    assert read(text_format.MessageToString(config, as_one_line=True, as_utf8=True)) == config
    assert read(text_format.MessageToString(config, use_short_repeated_primitives=True)) == config


@given(configs())
def test_json_is_read_back(config):
    """What ``GET config`` returns is a configuration that can be loaded again."""
    if not config.ListFields():
        return
    text = config_to_json(config)
    assert read(text, Dialect.JSON) == config
    assert read(json.dumps(json.loads(text), indent="\t"), Dialect.JSON) == config


@given(configs())
def test_yaml_is_read_back(config):
    yaml = pytest.importorskip("yaml")
    if not has_infinity(config):
        assert read(yaml.safe_dump(config_to_dict(config)), Dialect.YAML) == config


WORDS = "name input dims max_batch_size data_type TYPE_FP32 parameters key value dynamic_batching version_policy latest"
MARKS = ": { } [ ] < > , ; - 1 0x1F 017 1.5f -2 'b' true inf null \" ' \\ é 1abc &a *a % @ '''"
SNIPPETS = st.sampled_from(
    [
        *WORDS.split(),
        *MARKS.split(),
        '"a"',
        '"\\n\\x41\\101\\u00e9"',
        "# comment\n",
        "\n",
        " ",
        "\x00",
        "- ",
        "key: ",
        "\t",
    ]
)
GARBAGE = st.one_of(st.text(max_size=60), st.lists(SNIPPETS, max_size=30).map("".join))


@given(GARBAGE, st.sampled_from(Dialect))
def test_garbage_is_a_problem_and_never_a_crash(text, dialect):
    """Whatever a file holds, reading it ends with a message and a list of problems that name the file."""
    document = parse_config(text, dialect, "FILE")
    assert isinstance(document.config, ModelConfig)
    assert all(str(problem).startswith("FILE") and problem.message for problem in document.problems)


@given(st.lists(SNIPPETS, max_size=30).map("".join))
def test_text_that_protobuf_reads_is_read_alike(text):
    """Where protobuf's own parser accepts a text, this one makes the same message of it."""
    expected = ModelConfig()
    with contextlib.suppress(text_format.ParseError, UnicodeError, ValueError):
        text_format.Parse(text, expected)
        assert read(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: 'a' \"b\"", {"name": "ab"}),
        ("name: 'caf\\303\\251 \\u00e9'", {"name": "café é"}),
        ("max_batch_size: 0x10", {"max_batch_size": 16}),
        ("max_batch_size: 010", {"max_batch_size": 8}),
        ("max_batch_size: - 3", {"max_batch_size": -3}),
        ("input <name: 'a'>; input: {name: 'b'},", {"input": [{"name": "a"}, {"name": "b"}]}),
        ("input [{name: 'a'}, <name: 'b'>]", {"input": [{"name": "a"}, {"name": "b"}]}),
        ("input { dims: [] }", {"input": [{}]}),
        ("input { data_type: 11 optional: t }", {"input": [{"data_type": 11, "optional": True}]}),
        ("parameters { key: 'a' value { string_value: '1' } } parameters { key: 'a' }", {"parameters": {"a": {}}}),
    ],
)
def test_text_format(text, expected):
    config = ModelConfig()
    config.MergeFrom(ModelConfig(**{key: value for key, value in expected.items() if key != "parameters"}))
    for key in expected.get("parameters", {}):
        config.parameters[key].SetInParent()
    if "parameters" in expected:
        assert list(read(text).parameters) == ["a"]
    else:
        assert read(text) == config


def test_a_map_takes_the_last_of_equal_keys():
    """As the real server does."""
    text = "".join(f'parameters {{ key: "a" value {{ string_value: "{value}" }} }}' for value in "12")
    assert read(text).parameters["a"].string_value == "2"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('name: "a', 'FILE:1: the string "a has no closing quote on its line'),
        ("\n\nname 'a'", "FILE:3: expected ':' or '{' after 'name', found 'a'"),
        ("input {\n name: 'a'\n", "FILE:3: the file ends before the '}' of line 1"),
        ("input [ { name: 'a' }, ]", "FILE:1: a list must not end with ','"),
        ("input [ { name: 'a' } { name: 'b' } ]", "FILE:1: expected ',' or ']' in the list of line 1, found '{'"),
        ("input { dims [ 4 ] }", "FILE:1: expected ':' after 'dims'"),
        ("}", "FILE:1: expected the name of a field, found '}'"),
        ("name: @", "FILE:1: unexpected character '@'"),
        ("max_batch_size: 12ab", "FILE:1: 12ab is not a number"),
        ("name: '\\q'", "FILE:1: unknown escape '\\q' in the string '\\q'"),
        ("name: '\\377'", "FILE:1: the string '\\377' is not UTF-8"),
        ("name: '\\U7fffffff'", "FILE:1: the escape \\U7fffffff is beyond Unicode"),
        ("max_batch_size: - 'a'", "FILE:1: expected a number after '-', found 'a'"),
        ("input {" * 80, "FILE:1: blocks are nested more than 64 deep"),
    ],
)
def test_text_format_errors(text, expected):
    assert problems(text)[-1] == expected


def test_what_stands_before_a_syntax_error_is_read_and_checked_too():
    text = 'max_batch_size: "8"\nname: "m"\ninput { nmae: "x" }\noutput {'
    document = parse_config(text, Dialect.TEXT, "FILE")
    assert [problem.line for problem in document.problems] == [1, 3, 4]
    assert document.config.name == "m"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "FILE:1: not JSON: Expecting property name enclosed in double quotes (column 2)"),
        ("[]", "FILE:1: expected a JSON object with the fields of ModelConfig, found a list"),
        ("[" * 5000, "FILE:1: not usable as JSON: "),
        ("[" * 80 + "]" * 80, "FILE:1: objects are nested more than 64 deep"),
    ],
)
def test_json_errors(text, expected):
    assert problems(text, Dialect.JSON)[0].startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [", "FILE:1: not YAML: "),
        ("- 1", "FILE:1: expected a YAML mapping with the fields of ModelConfig, found a list"),
        ("name: x\n? [a]\n: b", "FILE:2: the name of a field must be a plain name"),
        ("a: &x [*x]", "FILE:1: "),
        ("\x00", "FILE:1: not usable as YAML: "),
        ("[" * 80 + "]" * 80, "FILE:1: mappings are nested more than 64 deep"),
    ],
)
def test_yaml_errors(text, expected):
    assert problems(text, Dialect.YAML)[0].startswith(expected)


def test_yaml_values_are_what_their_field_needs():
    """A name that looks like a number, a date or a truth value is a string where the field is one."""
    text = "name: 2024\nbackend: no\nplatform: 1.0\nmax_batch_size: 1e1\n"
    text += "input: [{name: x, data_type: type_fp32, optional: Yes}]"
    config = read(text, Dialect.YAML)
    assert (config.name, config.backend, config.platform, config.max_batch_size) == ("2024", "no", "1.0", 10)
    assert (config.input[0].data_type, config.input[0].optional) == (11, True)


def test_an_empty_yaml_file_is_an_empty_configuration():
    assert read("# nothing yet\n", Dialect.YAML) == ModelConfig()


def test_json_names_and_enums():
    """Rule 47: names as in the proto file or in lowerCamelCase, enum names in any case; null is absent."""
    text = """{"maxBatchSize": 2, "input": [{"name": "a", "data_type": "type_fp32", "dims": ["1", 2.0]}],
               "instance_group": [{"kind": "Kind_Cpu", "count": null}], "dynamic_batching": {"priorityQueuePolicy":
               {"1": {"timeoutAction": "delay"}}}, "name": "\\ud83d\\udc1f"}"""
    config = read(text, Dialect.JSON)
    assert (config.max_batch_size, config.name) == (2, "🐟")
    assert list(config.input[0].dims) == [1, 2]
    assert config.instance_group[0].kind == 2
    assert config.dynamic_batching.priority_queue_policy[1].timeout_action == 1


def test_yaml_aliases_work_and_do_not_multiply():
    text = "input: &tensors [{name: a, data_type: TYPE_FP32, dims: &dims [4]}]\noutput: [{name: b, dims: *dims}]\n"
    assert list(read(text, Dialect.YAML).output[0].dims) == [4]
    levels = "".join(f"  - &l{level} [{', '.join([f'*l{level - 1}'] * 9)}]\n" for level in range(1, 30))
    assert problems(f"input:\n  - &l0 [x]\n{levels}", Dialect.YAML)
