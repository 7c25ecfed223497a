"""The rules for dynamic batching and the response cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from shoal.config.problem import Problem, Source


def dynamic_batching_problems(config: Any, source: Source) -> list[Problem]:
    """What is wrong with ``dynamic_batching``."""
    if not config.HasField("dynamic_batching"):
        return []
    batching = config.dynamic_batching
    sizes = batching.preferred_batch_size
    problems = list(_size_problems(sizes, "dynamic_batching.preferred_batch_size", config.max_batch_size, source))
    if batching.priority_levels:
        problems += _priority_problems(batching, source)
    if batching.preserve_ordering:
        problems += _ordering_problems(batching, source)
    return problems


def _size_problems(sizes: Sequence[int], path: str, max_batch_size: int, source: Source) -> Iterator[Problem]:
    for index, size in enumerate(sizes):
        if not 0 < size <= max_batch_size:
            text = f"must be from 1 to max_batch_size ({max_batch_size}), found {size}"
            yield source.problem(f"{path}[{index}]", text)


def _priority_problems(batching: Any, source: Source) -> Iterator[Problem]:
    levels = batching.priority_levels
    if not 1 <= batching.default_priority_level <= levels:
        text = f"must be from 1 to priority_levels ({levels}), found {batching.default_priority_level}"
        yield source.problem("dynamic_batching.default_priority_level", text)
    for level in sorted(batching.priority_queue_policy):
        if not 1 <= level <= levels:
            text = f"a priority level is from 1 to priority_levels ({levels}), found {level}"
            yield source.problem(f'dynamic_batching.priority_queue_policy["{level}"]', text)


def _ordering_problems(batching: Any, source: Source) -> Iterator[Problem]:
    if batching.priority_levels > 1:
        text = f"must be false or priority_levels be 1, found {batching.priority_levels} levels"
        yield source.problem("dynamic_batching.preserve_ordering", text)
    policies = {"default_queue_policy": batching.default_queue_policy}
    for level in sorted(batching.priority_queue_policy):
        policies[f'priority_queue_policy["{level}"]'] = batching.priority_queue_policy[level]
    for name, policy in policies.items():
        if policy.default_timeout_microseconds and policy.timeout_action == policy.DELAY:
            text = "must be REJECT with preserve_ordering, for a delayed request is overtaken"
            yield source.problem(f"dynamic_batching.{name}.timeout_action", text)


def cache_problems(config: Any, source: Source) -> Iterator[Problem]:
    """The schedulers that the response cache does not go with."""
    for other, uses in (
        ("sequence batching scheduler", config.HasField("sequence_batching")),
        ("'decoupled' transaction policy", config.model_transaction_policy.decoupled),
    ):
        if uses and config.response_cache.enable:
            text = f"Response Cache does not currently support model {config.name} with {other}"
            yield source.problem("response_cache.enable", f"{text}. Please disable the response cache.")
