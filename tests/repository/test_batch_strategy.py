"""A batch strategy is loaded with the model, and what is wrong with its file is told by name."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from shoal.config.model_config_pb2 import ModelConfig
from shoal.config.spec import BatchingSpec, InstanceKind, InstanceSpec, ModelSpec
from shoal.errors import InvalidArgumentError
from shoal.repository.batch_strategy import load_batch_rule

GOOD = """
class BatchStrategy:
    def __init__(self, config):
        self.config = config
    def include(self, request):
        return self.config["name"] == "m"
"""


def load(tmp_path, text, batching=BatchingSpec()):  # noqa: B008 - frozen
    if text is not None:
        (tmp_path / "batchstrategy.py").write_text(text)
    spec = ModelSpec("m", 1, "python", "python", 8, (), (), (InstanceSpec("m_0", InstanceKind.CPU, 0),), batching)
    return load_batch_rule(spec, ModelConfig(name="m"), tmp_path)


def test_the_example_of_the_docs_works(tmp_path):
    page = (Path(__file__).parents[2] / "docs/scheduling.md").read_text()
    (code,) = re.findall(r"```python title=.models/translate/batchstrategy.py.\n(.*?)```", page, re.DOTALL)
    namespace: dict = {}
    exec(code, namespace)
    strategy = namespace["BatchStrategy"]({"parameters": {"most_tokens": {"string_value": "10"}}})
    queued = [request(adapter, length) for adapter, length in (("a", 4), ("a", 6), ("a", 1), ("b", 1))]
    strategy.begin()
    assert [strategy.include(each) for each in queued] == [True, True, False, False]
    strategy.begin()
    assert [strategy.include(each) for each in (queued[0], queued[3])] == [True, False]
    strategy.finalize(1)


def request(adapter, length):
    return SimpleNamespace(rows=1, shapes={"INPUT_IDS": (1, length)}, parameters={"adapter": adapter})


def test_the_class_is_made_with_the_configuration_and_asked(tmp_path):
    rule = load(tmp_path, GOOD)
    assert rule(object(), object()) is True


def test_models_without_a_strategy_or_without_batching_have_no_rule(tmp_path):
    assert load(tmp_path, None) is None
    assert load(tmp_path, GOOD, None) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = (", "failed while it was loaded: SyntaxError"),
        ("import sys; sys.exit(3)", "failed while it was loaded: SystemExit: 3"),
        ("class BatchStrategi: pass", "has no class BatchStrategy"),
        ("def BatchStrategy(config): pass", "has no class BatchStrategy"),
        ("class BatchStrategy:\n    def __init__(self): pass", "failed while it was loaded: TypeError"),
        ("class BatchStrategy:\n    def __init__(self, config): pass", "has no method 'include'"),
    ],
)
def test_what_is_wrong_with_the_file_is_told(tmp_path, text, message):
    with pytest.raises(InvalidArgumentError, match=message) as caught:
        load(tmp_path, text)
    assert str(tmp_path / "batchstrategy.py") in caught.value.message
    assert "model 'm'" in caught.value.message
