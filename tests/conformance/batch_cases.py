"""Arrivals at a slow model with one instance: which batches come of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from admission_cases import FP32, model, tensor

from shoal.config.spec import BatchingSpec, ModelSpec, QueuePolicySpec

EXECUTION_MS = 400
GAP_MS = 15


@dataclass(frozen=True)
class Arrival:
    """One request.

    Attributes:
        at_ms: when it is sent.
        rows: its batch size.
        width: its variable dimension.
        priority: its priority, 0 for none.
        timeout_us: its queue timeout, 0 for none.
    """

    at_ms: int
    rows: int = 1
    width: int = 2
    priority: int = 0
    timeout_us: int = 0


@dataclass(frozen=True)
class BatchCase:
    """Arrivals at one model."""

    name: str
    batching: BatchingSpec
    arrivals: tuple[Arrival, ...]


def busy_then(*later: Arrival) -> tuple[Arrival, ...]:
    """A request that keeps the instance busy, then the others, one shortly after the other."""
    return (Arrival(0), *(replace(each, at_ms=230 + GAP_MS * place) for place, each in enumerate(later)))


def in_a_row(*arrivals: Arrival) -> tuple[Arrival, ...]:
    """Requests that come while the instance is free."""
    return tuple(replace(each, at_ms=GAP_MS * place) for place, each in enumerate(arrivals))


ONE, TWO, THREE, SIX = (Arrival(0, rows) for rows in (1, 2, 3, 6))
WIDE = Arrival(0, 1, 3)
SETTINGS = {
    "no delay": BatchingSpec(),
    "prefer 4": BatchingSpec(preferred_batch_sizes=(4,)),
    "prefer 4 or 8": BatchingSpec(preferred_batch_sizes=(4, 8)),
    "delay": BatchingSpec(max_queue_delay_us=200_000),
    "prefer 4, delay": BatchingSpec(preferred_batch_sizes=(4,), max_queue_delay_us=200_000),
    "prefer 4 or 8, delay": BatchingSpec(preferred_batch_sizes=(4, 8), max_queue_delay_us=200_000),
}
ARRIVALS = {
    "six behind a busy instance": busy_then(*[ONE] * 6),
    "ten behind a busy instance": busy_then(*[ONE] * 10),
    "two shapes behind a busy instance": busy_then(ONE, ONE, ONE, WIDE, ONE, ONE),
    "three at a free instance": in_a_row(ONE, ONE, ONE),
    "five at a free instance": in_a_row(*[ONE] * 5),
    "three, three, two rows": in_a_row(THREE, THREE, TWO),
    "six rows": in_a_row(SIX),
}
LEVELS = BatchingSpec(priority_levels=2, default_priority_level=2)
HIGH = Arrival(0, priority=1)
SHORT, LONG = Arrival(0, timeout_us=50_000), Arrival(0, timeout_us=20_000_000)
CASES = (
    *(
        BatchCase(f"{settings}: {arrivals}", SETTINGS[settings], ARRIVALS[arrivals])
        for settings in SETTINGS
        for arrivals in ARRIVALS
    ),
    BatchCase("levels: low, low, high, low, high", LEVELS, busy_then(ONE, ONE, HIGH, ONE, HIGH)),
    BatchCase(
        "levels, prefer 2: low, low, low, high",
        replace(LEVELS, preferred_batch_sizes=(2,)),
        busy_then(ONE, ONE, ONE, HIGH),
    ),
    BatchCase("limit 2", BatchingSpec(default_queue_policy=QueuePolicySpec(max_queue_size=2)), busy_then(*[SIX] * 4)),
    BatchCase(
        "timeout", BatchingSpec(default_queue_policy=QueuePolicySpec(default_timeout_us=50_000)), busy_then(ONE, ONE)
    ),
    BatchCase(
        "timeout, overridden",
        BatchingSpec(default_queue_policy=QueuePolicySpec(default_timeout_us=10**7, allow_timeout_override=True)),
        busy_then(ONE, SHORT, LONG, ONE),
    ),
)


def spec_of(case: BatchCase) -> ModelSpec:
    """The slow model of a case, named by its place in the table."""
    spec = model(f"slow_{CASES.index(case)}", 8, [tensor("A", FP32, -1)])
    return replace(spec, batching=case.batching, parameters={"delay_ms": str(EXECUTION_MS)})
