"""Arrivals at a slow model whose queue has policies: which of them run, in which batch, and who is answered first."""

from __future__ import annotations

from dataclasses import dataclass, replace

from admission_cases import FP32, model, tensor
from batch_cases import HIGH, ONE, SIX, THREE, TWO, WIDE, Arrival, busy_then, in_a_row

from shoal.config.spec import BatchingSpec, InstanceKind, InstanceSpec, ModelSpec, QueuePolicySpec, TimeoutAction

EXECUTION_MS = 400
ROW_MS = 100
"""What each row adds where the order of the answers is looked at."""

MODEL_CODE = """
import json
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        self.delay_s = int(parameters["delay_ms"]["string_value"]) / 1000
        self.row_s = int(parameters["row_ms"]["string_value"]) / 1000
        self.batches = 0

    def execute(self, requests):
        inputs = [pb_utils.get_input_tensor_by_name(request, "A").as_numpy() for request in requests]
        time.sleep(self.delay_s + self.row_s * sum(len(each) for each in inputs))
        found = np.array([[100 * self.batches + len(requests)]], np.float32)
        self.batches += 1
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", found)]) for _ in requests]
"""
"""Answers with the number of the batch in its instance, and with the number of requests in it."""


@dataclass(frozen=True)
class PolicyCase:
    """Arrivals at one model.

    Attributes:
        name: what it is about.
        batching: the batcher.
        arrivals: the requests.
        instances: how many there are. With one, the outcome of a request is its batch's number and size; with more, how
            many were answered clearly before it.
    """

    name: str
    batching: BatchingSpec
    arrivals: tuple[Arrival, ...]
    instances: int = 1


def policy(action: TimeoutAction = TimeoutAction.REJECT, **more: object) -> QueuePolicySpec:
    return QueuePolicySpec(action, **more)  # type: ignore[arg-type]


def levels(count: int, default: int, default_policy: QueuePolicySpec | None = None, **more: object) -> BatchingSpec:
    return BatchingSpec(
        priority_levels=count,
        default_priority_level=default,
        default_queue_policy=default_policy or QueuePolicySpec(),
        **more,  # type: ignore[arg-type]
    )


MIDDLE, LOW, BEYOND = (Arrival(0, priority=priority) for priority in (2, 3, 9))
LATE_MS = 100
"""A queue timeout that has passed for what comes 230 ms after the busy instance began, and not for what comes later."""
LATE = LATE_MS * 1_000
AT_380 = (Arrival(380, 3), Arrival(385, 2))


def behind(*early: Arrival) -> tuple[Arrival, ...]:
    """A busy instance, requests that will be late when it is free, and two that will not."""
    return (*busy_then(*early), *AT_380)


CASES = (
    PolicyCase("three levels, full batches", levels(3, 2), busy_then(LOW, SIX, HIGH, THREE, HIGH, LOW)),
    PolicyCase("no priority and one beyond the levels are the default", levels(3, 2), busy_then(LOW, ONE, BEYOND, SIX)),
    PolicyCase("one level is one queue", levels(1, 1), busy_then(SIX, HIGH, LOW, SIX)),
    PolicyCase(
        "a limit for level 1 only",
        levels(2, 2, priority_queue_policies={1: policy(max_queue_size=1)}),
        busy_then(HIGH, HIGH, ONE, ONE, HIGH),
    ),
    PolicyCase(
        "a default limit and none for level 1",
        levels(2, 2, policy(max_queue_size=1), priority_queue_policies={1: policy()}),
        busy_then(HIGH, HIGH, ONE, ONE, HIGH),
    ),
    PolicyCase(
        "a timeout for level 2 only",
        levels(2, 1, priority_queue_policies={2: policy(default_timeout_us=LATE)}),
        behind(MIDDLE, HIGH, MIDDLE),
    ),
    PolicyCase("REJECT", BatchingSpec(default_queue_policy=policy(default_timeout_us=LATE)), behind(SIX, ONE)),
    PolicyCase(
        "DELAY",
        BatchingSpec(default_queue_policy=policy(TimeoutAction.DELAY, default_timeout_us=LATE)),
        behind(SIX, TWO),
    ),
    PolicyCase(
        "DELAY, none of them full",
        BatchingSpec(default_queue_policy=policy(TimeoutAction.DELAY, default_timeout_us=LATE)),
        behind(SIX),
    ),
    PolicyCase(
        "DELAY in level 1 stays above level 2",
        levels(2, 2, priority_queue_policies={1: policy(TimeoutAction.DELAY, default_timeout_us=LATE)}),
        (*busy_then(replace(HIGH, rows=5), SIX), Arrival(380, 3, priority=1), Arrival(385, 2)),
    ),
    PolicyCase(
        "delayed requests count for the limit",
        BatchingSpec(default_queue_policy=policy(TimeoutAction.DELAY, default_timeout_us=LATE, max_queue_size=2)),
        (*busy_then(SIX, TWO), Arrival(390)),
    ),
    PolicyCase(
        "a longer timeout of its own does not count",
        BatchingSpec(default_queue_policy=policy(default_timeout_us=LATE, allow_timeout_override=True)),
        behind(replace(ONE, timeout_us=10**7)),
    ),
    PolicyCase(
        "a timeout of its own does not count where it is not allowed",
        BatchingSpec(default_queue_policy=policy(default_timeout_us=10**7)),
        busy_then(replace(ONE, timeout_us=LATE // 2), ONE),
    ),
    PolicyCase(
        "a timeout of its own does not count without a default",
        BatchingSpec(default_queue_policy=policy(allow_timeout_override=True)),
        busy_then(replace(ONE, timeout_us=LATE // 2), ONE),
    ),
    PolicyCase(
        "a timeout of its own delays where the action is DELAY",
        BatchingSpec(
            default_queue_policy=policy(TimeoutAction.DELAY, default_timeout_us=10**7, allow_timeout_override=True)
        ),
        busy_then(replace(SIX, timeout_us=LATE // 2), THREE, THREE),
    ),
    PolicyCase(
        "a timeout ends a wait for a preferred size",
        BatchingSpec((4,), 300_000, default_queue_policy=policy(default_timeout_us=LATE)),
        in_a_row(ONE, ONE),
    ),
    PolicyCase(
        "a delay with levels",
        levels(2, 2, preferred_batch_sizes=(4,), max_queue_delay_us=200_000),
        in_a_row(TWO, HIGH, HIGH),
    ),
    PolicyCase("another shape ends a wait", BatchingSpec(max_queue_delay_us=200_000), in_a_row(ONE, ONE, WIDE)),
    PolicyCase("a delay that is over", BatchingSpec((8,), 100_000), in_a_row(TWO, THREE)),
    PolicyCase("two instances, order kept", BatchingSpec(preserve_ordering=True), in_a_row(SIX, ONE), instances=2),
    PolicyCase("two instances, order not kept", BatchingSpec(), in_a_row(SIX, ONE), instances=2),
    PolicyCase(
        "two instances, order kept, more behind them",
        BatchingSpec(preserve_ordering=True),
        (*in_a_row(SIX, ONE), Arrival(100, 2)),
        instances=2,
    ),
    PolicyCase("no delay, two rows at a time", BatchingSpec((2,)), busy_then(ONE, ONE, ONE, TWO)),
)


def spec_of(case: PolicyCase) -> ModelSpec:
    """The slow model of a case, named by its place in the table."""
    spec = model(f"policy_{CASES.index(case)}", 8, [tensor("A", FP32, -1)])
    instances = tuple(InstanceSpec(f"{spec.name}_{number}", InstanceKind.CPU, 0) for number in range(case.instances))
    ranked = case.instances > 1
    parameters = {"delay_ms": str(0 if ranked else EXECUTION_MS), "row_ms": str(ROW_MS if ranked else 0)}
    return replace(spec, batching=case.batching, instances=instances, parameters=parameters)


def execution_ms(case: PolicyCase, rows: int) -> int:
    """How long a batch of so many rows runs."""
    return ROW_MS * rows if case.instances > 1 else EXECUTION_MS
