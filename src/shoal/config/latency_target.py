"""The parameter ``latency_target_us``: read and checked.

It is a parameter and not a field, so that a configuration that has it is still one that Triton reads.
"""

from __future__ import annotations

from typing import Any

from shoal.config.problem import Problem, Source

PARAMETER = "latency_target_us"
_LONGEST_US = 3_600_000_000


def latency_target_us(config: Any) -> int:
    """The model's latency target in microseconds; 0 when it has none.

    Args:
        config: the ``ModelConfig`` message, without problems.
    """
    return int(config.parameters[PARAMETER].string_value) if PARAMETER in config.parameters else 0


def latency_target_problems(config: Any, source: Source) -> list[Problem]:
    """What is wrong with the latency target, and with other settings beside it."""
    if PARAMETER not in config.parameters:
        return []
    path = f'parameters["{PARAMETER}"]'
    text = config.parameters[PARAMETER].string_value
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= _LONGEST_US):
        message = (
            f"must be a whole number of microseconds from 1 to {_LONGEST_US}, such as 20000 for 20 ms, found {text!r}"
        )
        return [source.problem(path, message)]
    if not config.HasField("dynamic_batching"):
        return [source.problem(path, _without_batcher(config))]
    batching = config.dynamic_batching
    given = ["max_queue_delay_microseconds"] if batching.max_queue_delay_microseconds else []
    if list(batching.preferred_batch_size) not in ([], [config.max_batch_size]):  # the latter is what is filled in
        given.append("preferred_batch_size")
    return [
        source.problem(f"dynamic_batching.{name}", f"leave it out: with {PARAMETER} the batcher chooses it itself")
        for name in given
    ]


def _without_batcher(config: Any) -> str:
    """Why a model without the dynamic batcher cannot have a target."""
    if config.HasField("sequence_batching"):
        return "the sequence batcher has no latency target, for a sequence keeps its slot; set its delay instead"
    if config.HasField("ensemble_scheduling"):
        return "an ensemble forms no batches; set it in the models that it is made of"
    return "needs the dynamic batcher: add dynamic_batching { }"
