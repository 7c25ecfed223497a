"""GET config, byte for byte as the real Triton prints it, but for the entries of maps, which Triton has in no order.

``triton/*.json`` is what Triton 2.51 answered for the models with the ``*.pbtxt`` beside it (Python models, no GPU).
"""

import json
import math
import shutil
import urllib.request
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.config.complete import complete_config
from shoal.config.model_config_pb2 import ModelConfig
from shoal.config.read import read_config
from shoal.config.render import config_to_dict, config_to_json
from tests.conformance import triton_peer

RECORDED = Path(__file__).parent / "triton"
MODELS = sorted(path.stem for path in RECORDED.glob("*.json"))

CODE = """
import triton_python_backend_utils as utils


class TritonPythonModel:
    def execute(self, requests):
        inputs = [utils.get_input_tensor_by_name(request, "INPUT0").as_numpy() for request in requests]
        return [utils.InferenceResponse([utils.Tensor("OUTPUT0", array)]) for array in inputs]
"""


def sorted_maps(text):
    """Triton's answer with the entries of its maps in order."""
    answer = json.loads(text)
    batching = answer.get("dynamic_batching", {})
    for holder, name in ((answer, "parameters"), (batching, "priority_queue_policy")):
        if name in holder:
            holder[name] = dict(sorted(holder[name].items()))
    return json.dumps(answer, separators=(",", ":"), ensure_ascii=False)


def write_model(repository, name):
    folder = repository / name
    (folder / "1").mkdir(parents=True)
    shutil.copy(RECORDED / f"{name}.pbtxt", folder / "config.pbtxt")
    if name != "chained":
        (folder / "1" / "model.py").write_text(CODE)
    return folder


def completed(folder):
    document = read_config(folder)
    assert document.problems == ()
    complete_config(document.config, folder, 0)
    return document.config


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("chained", "nothing")])
def test_a_completed_configuration_is_printed_as_triton_prints_it(name, tmp_path):
    config = completed(write_model(tmp_path, name))
    assert config_to_json(config) == sorted_maps((RECORDED / f"{name}.json").read_text())


def test_an_ensemble_is_printed_as_triton_prints_it(tmp_path):
    """Up to what a later Triton prints, and what this one takes over from the composing models."""
    expected = json.loads((RECORDED / "chained.json").read_text())
    expected["ensemble_scheduling"]["max_inflight_requests"] = 0
    del expected["model_transaction_policy"]
    assert config_to_dict(completed(write_model(tmp_path, "chained"))) == expected


def test_a_model_without_a_configuration_is_printed_as_triton_prints_it(tmp_path):
    """The model's own part is added by hand, and what it switched on is completed once more."""
    folder = tmp_path / "nothing"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.py").touch()
    config = completed(folder)
    config.max_batch_size = 2
    config.dynamic_batching.SetInParent()
    config.input.add(name="INPUT0", data_type=11, dims=[4])
    config.output.add(name="OUTPUT0", data_type=11, dims=[4])
    complete_config(config, folder, 0)
    assert config_to_json(config) == sorted_maps((RECORDED / "nothing.json").read_text())


@pytest.mark.triton
@pytest.mark.skipif(not triton_peer.installed(), reason="the real Triton is not on this machine")
def test_the_real_server_agrees(tmp_path):
    """The recorded answers are still what the real server says."""
    names = ["minimal", "batched", "priorities", "reshaped", "sequence_oldest"]
    repository = tmp_path / "models"
    for name in names:
        folder = write_model(repository, name)
        (folder / "labels.txt").write_text("a\n")
    shutil.copytree(repository / "reshaped" / "1", repository / "reshaped" / "3")
    with triton_peer.serving(repository, []) as address:
        for name in names:
            with urllib.request.urlopen(f"{address}/v2/models/{name}/config", timeout=10) as answer:
                assert config_to_json(completed(repository / name)) == sorted_maps(answer.read())


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (0.1, "0.1"),
        (1.0, "1"),
        (0.0, "0"),
        (2.5, "2.5"),
        (16777217.0, "16777216"),
        (math.inf, '"Infinity"'),
        (1e-7, "1e-07"),
    ],
)
def test_floats_are_short(value, printed):
    config = ModelConfig()
    config.sequence_batching.direct.minimum_slot_utilization = value
    assert f'"minimum_slot_utilization":{printed}' in config_to_json(config)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_short_floats_are_the_same_number(value):
    config = ModelConfig()
    config.sequence_batching.direct.minimum_slot_utilization = value
    read_back = ModelConfig()
    shown = config_to_dict(config)["sequence_batching"]["direct"]["minimum_slot_utilization"]
    read_back.sequence_batching.direct.minimum_slot_utilization = shown
    assert read_back == config


def test_numbers_that_triton_forgot_stay_strings():
    config = ModelConfig()
    config.instance_group.add().secondary_devices.add(device_id=3)
    config.sequence_batching.state.add(dims=[7]).initial_state.add(dims=[8])
    shown = config_to_dict(config)
    assert shown["instance_group"][0]["secondary_devices"][0]["device_id"] == "3"
    state = shown["sequence_batching"]["state"][0]
    assert (state["dims"], state["initial_state"][0]["dims"]) == ([7], ["8"])
