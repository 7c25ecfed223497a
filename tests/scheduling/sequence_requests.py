"""Sequence requests for scheduler tests: only what a scheduler looks at."""

from __future__ import annotations

from queued_requests import NOBODY

from shoal.config.spec import DirectSpec, InstanceKind, InstanceSpec, ModelSpec, OldestSpec, SequenceSpec, TensorSpec
from shoal.datatypes import DataType
from shoal.requests import LATEST, InferHead, InferRequest, PlannedInput, RequestPlan, SequencePart
from shoal.requests import NOBODY as FILLED
from shoal.scheduling.contract import Batch
from shoal.scheduling.make import make_scheduler
from shoal.scheduling.sequence import SequenceScheduler

IDLE_US = 1_000


def model(
    strategy: DirectSpec | OldestSpec,
    max_batch_size: int = 4,
    *,
    instances: int = 1,
    passive: int = 0,
    max_idle_us: int = IDLE_US,
    iterative: bool = False,
) -> ModelSpec:
    """A sequence model; the first ``passive`` instances take no batches."""
    places = [
        InstanceSpec(f"m_0_{number}", InstanceKind.CPU, 0, passive=number < passive) for number in range(instances)
    ]
    inputs = (TensorSpec("IN", DataType.FP32, (-1,)), TensorSpec("TEXT", DataType.BYTES, (2,), optional=True))
    sequence = SequenceSpec(strategy, max_idle_us, iterative=iterative)
    return ModelSpec("m", 1, "python", "python", max_batch_size, inputs, (), tuple(places), sequence=sequence)


def scheduler(strategy: DirectSpec | OldestSpec | None = None, max_batch_size: int = 4, **more) -> SequenceScheduler:
    made = make_scheduler(model(strategy or DirectSpec(), max_batch_size, **more))
    assert isinstance(made, SequenceScheduler)
    return made


def request(
    correlation_id: int | str, flags: str = "", *, width: int = 1, timeout_us: int = 0, name: str = ""
) -> InferRequest:
    """A request of a sequence; the flags are ``s`` for START and ``e`` for END."""
    part = SequencePart(correlation_id, start="s" in flags, end="e" in flags)
    inputs = (PlannedInput(0, (1, width), 0), PlannedInput(1, (1, 2), -1, b"\1\0\0\0a\0\0\0\0"))
    head = InferHead("m", LATEST, name, ())
    plan = RequestPlan(head, NOBODY, 1, inputs, (), ((width,),), (4 * width,), timeout_us=timeout_us, sequence=part)
    return InferRequest(plan, (bytes(4 * width),), NOBODY, None, 0)


def ids(batch: Batch | None) -> list[int | str]:
    """The sequences of a batch, row by row; 0 for a row that only fills it, and nothing for no batch."""
    if batch is None:
        return []
    assert batch.turns is not None
    assert len(batch.turns) == len(batch.requests) == batch.rows
    for turn, each in zip(batch.turns, batch.requests, strict=True):
        assert turn.ready is (each.responder is not FILLED)
    return [turn.correlation_id for turn in batch.turns]
