"""docs/configuration.md tells the truth about every field."""

import re
from pathlib import Path

import pytest

from shoal.config.model_config_pb2 import ModelConfig
from shoal.config.read import FILE_NAMES, parse_config
from shoal.config.unsupported import UNSUPPORTED

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "configuration.md").read_text()
SECTION = PAGE.split("## Every field")[1].split("\n## ")[0]
ROWS = {
    name: state.strip()
    for names, state in re.findall(r"^\| (`[^|]+) \| ([^|]+) \|$", SECTION, re.MULTILINE)
    for name in re.findall(r"`([^`]+)`", names)
}


@pytest.mark.parametrize("name", [field.name for field in ModelConfig.DESCRIPTOR.fields])
def test_every_field_has_a_row(name):
    assert any(row.split(".")[0] == name for row in ROWS)


def test_every_row_is_a_field():
    for row in ROWS:
        descriptor = ModelConfig.DESCRIPTOR
        for part in row.split("."):
            field = descriptor.fields_by_name[part]
            descriptor = field.message_type


def test_what_is_not_supported_is_what_the_table_in_the_code_says():
    said = {row for row, state in ROWS.items() if state == "checked, not yet supported"}
    assert said == {entry.field.replace("[]", "") for entry in UNSUPPORTED}


def test_the_two_examples_are_the_same_configuration():
    examples = dict(re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```', PAGE, re.MULTILINE | re.DOTALL))
    read = {name: parse_config(text, FILE_NAMES[name], name) for name, text in examples.items()}
    assert [document.problems for document in read.values()] == [(), ()]
    assert read["config.pbtxt"].config == read["config.yaml"].config
