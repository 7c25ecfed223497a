"""The conformance suite finds backends that break the contract: each rule, broken, is named."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shoal.backends.contract import BatchResult, LoadContext, ModelBatch, ModelFiles, OutputRoom, RequestResult
from shoal.config.spec import InstanceSpec
from shoal.datatypes import DataType
from shoal.errors import ModelError
from shoal.testing.backend_conformance import Cases, check_backend, check_datatypes

CONFIG = """
backend: "python" max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ -1 ] } output { name: "y" data_type: TYPE_FP32 dims: [ -1 ] }
"""

Execute = Callable[["Doubling", ModelBatch, OutputRoom], BatchResult]


def doubled(self: "Doubling", batch: ModelBatch, room: OutputRoom) -> BatchResult:
    x = batch.inputs["x"]
    if np.isnan(x).any():
        raise ModelError("not a number")
    given = room.array("y", x.shape, x.dtype)
    return BatchResult({"y": np.multiply(x, 2, out=given)})


class Doubling:
    """A backend, model and instance in one, which doubles its input."""

    name = "doubling"
    process_per_instance = False
    preload = ()

    def __init__(self, execute: Execute = doubled) -> None:
        self._execute = execute
        self.state: Any = None
        self.closed = 0

    def complete(self, config: Any, files: ModelFiles) -> None:
        pass

    def load(self, context: LoadContext) -> "Doubling":
        return Doubling(self._execute)

    def instance(self, spec: InstanceSpec) -> "Doubling":
        return Doubling(self._execute)

    def execute(self, batch: ModelBatch, room: OutputRoom) -> BatchResult:
        return self._execute(self, batch, room)

    def close(self) -> None:
        self.closed += 1


def model_dir(folder: Path, config: str = CONFIG) -> Path:
    (folder / "m" / "1").mkdir(parents=True)
    (folder / "m" / "1" / "model.py").touch()
    (folder / "m" / "config.pbtxt").write_text(config)
    return folder / "m"


REQUESTS = [{"x": np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)} for rows in (1, 3)]
CASES = Cases(
    REQUESTS, [{"y": request["x"] * 2} for request in REQUESTS], failing={"x": np.full((1, 2), np.nan, np.float32)}
)


def test_a_right_backend_passes(tmp_path: Path) -> None:
    check_backend(Doubling(), model_dir(tmp_path), CASES)
    check_backend(Doubling(), model_dir(tmp_path / "without"), replace(CASES, expected=()))


def tripled(self: Doubling, batch: ModelBatch, room: OutputRoom) -> BatchResult:
    return BatchResult({"y": batch.inputs["x"] * np.float32(3)})


def in_place(self: Doubling, batch: ModelBatch, room: OutputRoom) -> BatchResult:
    batch.inputs["x"] *= 2
    return BatchResult({"y": batch.inputs["x"]})


def first_row_everywhere(self: Doubling, batch: ModelBatch, room: OutputRoom) -> BatchResult:
    result = doubled(self, batch, room)
    if len(batch.rows) > 1:
        result.gathered["y"][1:] = result.gathered["y"][0]
    return result


def too_few_rows(self: Doubling, batch: ModelBatch, room: OutputRoom) -> BatchResult:
    result = doubled(self, batch, room)
    return BatchResult({"y": result.gathered["y"][:1]}) if len(batch.rows) > 1 else result


def leaves_room_empty(self: Doubling, batch: ModelBatch, room: OutputRoom) -> BatchResult:
    x = batch.inputs["x"]
    given = room.array("y", x.shape, x.dtype)
    return BatchResult({"y": x * np.float32(2) if given is None else given})


def other_type(self: Doubling, batch: ModelBatch, room: OutputRoom) -> BatchResult:
    return BatchResult({"y": batch.inputs["x"].astype(np.float64) * 2})


def other_name(self: Doubling, batch: ModelBatch, room: OutputRoom) -> BatchResult:
    return BatchResult({"z": batch.inputs["x"] * np.float32(2)})


def stays_broken(self: Doubling, batch: ModelBatch, room: OutputRoom) -> BatchResult:
    if self.state == "broken":
        return tripled(self, batch, room)
    try:
        return doubled(self, batch, room)
    except ModelError:
        self.state = "broken"
        raise


def never_fails(self: Doubling, batch: ModelBatch, room: OutputRoom) -> BatchResult:
    return BatchResult({"y": batch.inputs["x"] * np.float32(2)})


def fails_without_words(self: Doubling, batch: ModelBatch, room: OutputRoom) -> BatchResult:
    try:
        return doubled(self, batch, room)
    except ModelError:
        raise ModelError("") from None


def both(self: Doubling, batch: ModelBatch, room: OutputRoom) -> BatchResult:
    outputs = {"y": batch.inputs["x"] * np.float32(2)}
    return BatchResult(outputs, [RequestResult(outputs)])


def forgets_a_request(self: Doubling, batch: ModelBatch, room: OutputRoom) -> BatchResult:
    outputs = {"y": batch.inputs["x"][: batch.rows[0]] * np.float32(2)}
    if np.isnan(batch.inputs["x"]).any():
        raise ModelError("not a number")
    return BatchResult(per_request=[RequestResult(outputs)])


@pytest.mark.parametrize(
    ("execute", "text"),
    [
        (tripled, "a request alone: 'y' is"),
        (in_place, "the inputs after execute: 'x' is"),
        (first_row_everywhere, "request 0 in a batch of|request 1 in a batch of 2"),
        (too_few_rows, "gathered output 'y' has shape"),
        (leaves_room_empty, "a request alone: 'y' is"),
        (other_type, "output 'y' has dtype float64, not float32"),
        (other_name, "output 'z' is not in the configuration"),
        (stays_broken, "a request after one that failed"),
        (never_fails, "the failing request succeeded"),
        (fails_without_words, "an error needs a message"),
        (both, "exactly one of"),
        (forgets_a_request, "per_request must have one result per request"),
    ],
)
def test_a_broken_rule_is_named(tmp_path: Path, execute: Execute, text: str) -> None:
    cases = Cases([{"x": each["x"].copy()} for each in REQUESTS], CASES.expected, CASES.failing)
    with pytest.raises(AssertionError, match=text):
        check_backend(Doubling(execute), model_dir(tmp_path), cases)


def test_completing_must_not_go_on_changing(tmp_path: Path) -> None:
    class Restless(Doubling):
        def complete(self, config: Any, files: ModelFiles) -> None:
            config.max_batch_size += 1

    with pytest.raises(AssertionError, match="complete changed a configuration that was complete"):
        check_backend(Restless(), model_dir(tmp_path), CASES)


def test_instances_that_share_state(tmp_path: Path) -> None:
    """Each instance works alone; the one state behind them mixes their answers up."""

    class Sharing(Doubling):
        instances = 0

        def load(self, context: LoadContext) -> "Sharing":
            return Sharing()

        def instance(self, spec: InstanceSpec) -> Doubling:
            Sharing.instances += 1
            return Doubling(doubled if Sharing.instances == 1 else tripled)

    with pytest.raises(AssertionError, match="a request in instance"):
        check_backend(Sharing(), model_dir(tmp_path), CASES)


def test_a_type_that_is_not_kept(tmp_path: Path) -> None:
    def forgetful(self: Doubling, batch: ModelBatch, room: OutputRoom) -> BatchResult:
        return BatchResult({"y": np.nan_to_num(batch.inputs["x"])})

    with pytest.raises(AssertionError, match="FP32 of shape"):
        check_datatypes(Doubling(forgetful), lambda _: model_dir(tmp_path), [DataType.FP32])
