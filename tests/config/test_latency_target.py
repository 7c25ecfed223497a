"""The parameter ``latency_target_us``: what is refused, where, and what becomes of a good one."""

from __future__ import annotations

import pytest

from shoal.config.check import check_config
from shoal.config.compile import compile_spec
from shoal.config.complete import complete_config
from shoal.config.read import parse_config
from shoal.config.tree import Dialect

HEAD = """
backend: "python"
max_batch_size: 8
input { name: "A" data_type: TYPE_FP32 dims: 1 }
output { name: "B" data_type: TYPE_FP32 dims: 1 }
"""
TARGET = 'parameters { key: "latency_target_us" value { string_value: "%s" } }\n'
PLACE = 'parameters["latency_target_us"]'


def document(tmp_path, text):
    (tmp_path / "m").mkdir(exist_ok=True)
    document = parse_config(text, Dialect.TEXT, "config.pbtxt")
    complete_config(document.config, tmp_path / "m", 0)
    return document


def problems(tmp_path, text):
    read = document(tmp_path, text)
    return [*read.problems, *check_config(read.config, read.source, tmp_path / "m", 0)]


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        (HEAD + TARGET % "fast" + "dynamic_batching { }", PLACE, "a whole number of microseconds from 1 to"),
        (HEAD + TARGET % "0" + "dynamic_batching { }", PLACE, "found '0'"),
        (HEAD + TARGET % "-5" + "dynamic_batching { }", PLACE, "found '-5'"),
        (HEAD + TARGET % "20ms" + "dynamic_batching { }", PLACE, "such as 20000 for 20 ms, found '20ms'"),
        (HEAD + TARGET % "3600000001" + "dynamic_batching { }", PLACE, "from 1 to 3600000000"),
        (HEAD + TARGET % "20000", PLACE, "needs the dynamic batcher: add dynamic_batching { }"),
        (HEAD + TARGET % "20000" + "sequence_batching { }", PLACE, "the sequence batcher has no latency target"),
        (
            HEAD + TARGET % "20000" + "dynamic_batching { preferred_batch_size: [ 4 ] }",
            "dynamic_batching.preferred_batch_size",
            "leave it out: with latency_target_us the batcher chooses it itself",
        ),
        (
            HEAD + TARGET % "20000" + "dynamic_batching { max_queue_delay_microseconds: 100 }",
            "dynamic_batching.max_queue_delay_microseconds",
            "leave it out: with latency_target_us the batcher chooses it itself",
        ),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, text, place, message):
    found = [problem for problem in problems(tmp_path, text) if problem.field == place]
    assert len(found) == 1
    assert message in found[0].message
    assert found[0].line > 0


def test_an_ensemble_is_told_where_to_set_it(tmp_path):
    text = 'platform: "ensemble"\n' + TARGET % "20000" + "ensemble_scheduling { }"
    assert any("set it in the models that it is made of" in problem.message for problem in problems(tmp_path, text))


@pytest.mark.parametrize("batching", ["", "preserve_ordering: true", "priority_levels: 2 default_priority_level: 1"])
def test_a_good_one_is_compiled_beside_the_other_settings(tmp_path, batching):
    text = HEAD + TARGET % "20000" + f"dynamic_batching {{ {batching} }}"
    assert problems(tmp_path, text) == []
    spec = compile_spec(document(tmp_path, text).config, 1, tmp_path / "m", 0)
    assert spec.batching.latency_target_us == 20_000
    assert spec.parameters["latency_target_us"] == "20000"


def test_without_it_there_is_none(tmp_path):
    spec = compile_spec(document(tmp_path, HEAD + "dynamic_batching { }").config, 1, tmp_path / "m", 0)
    assert spec.batching.latency_target_us == 0
