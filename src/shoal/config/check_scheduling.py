"""The rules for dynamic batching and sequence batching."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from shoal.config.problem import Problem, Source

_CORRELATION_ID_TYPES = {4: "TYPE_UINT32", 5: "TYPE_UINT64", 8: "TYPE_INT32", 9: "TYPE_INT64", 13: "TYPE_STRING"}
_VALUE_LISTS = ("int32_false_true", "fp32_false_true", "bool_false_true")


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


def sequence_batching_problems(config: Any, source: Source) -> list[Problem]:
    """What is wrong with ``sequence_batching``."""
    problems = list(_cache_problems(config, source))
    if not config.HasField("sequence_batching"):
        return problems
    batching = config.sequence_batching
    sizes = batching.oldest.preferred_batch_size
    problems += _size_problems(sizes, "sequence_batching.oldest.preferred_batch_size", config.max_batch_size, source)
    if not 0 <= batching.direct.minimum_slot_utilization <= 1:
        text = f"must be from 0 to 1, found {batching.direct.minimum_slot_utilization:g}"
        problems.append(source.problem("sequence_batching.direct.minimum_slot_utilization", text))
    return problems + list(_control_problems(batching, source))


def _cache_problems(config: Any, source: Source) -> Iterator[Problem]:
    for other, uses in (
        ("sequence_batching", config.HasField("sequence_batching")),
        ("a decoupled transaction policy", config.model_transaction_policy.decoupled),
    ):
        if uses and config.response_cache.enable:
            yield source.problem("response_cache.enable", f"must be false in a model with {other}")


def _control_problems(batching: Any, source: Source) -> Iterator[Problem]:
    names: set[str] = set()
    kinds: set[int] = set()
    for index, tensor in enumerate(batching.control_input):
        path = f"sequence_batching.control_input[{index}]"
        if not tensor.name:
            yield source.problem(f"{path}.name", "must be given")
        elif tensor.name in names:
            yield source.problem(f"{path}.name", f"'{tensor.name}' is the name of another control input as well")
        names.add(tensor.name)
        for number, control in enumerate(tensor.control):
            place = f"{path}.control[{number}]"
            if control.kind in kinds:
                kind = control.Kind.Name(control.kind)
                yield source.problem(f"{place}.kind", f"{kind} stands in this configuration for the second time")
            kinds.add(control.kind)
            yield from _values_problems(control, place, source)


def _values_problems(control: Any, path: str, source: Source) -> Iterator[Problem]:
    kind = control.Kind.Name(control.kind)
    given = [name for name in _VALUE_LISTS if getattr(control, name)]
    if control.kind == control.CONTROL_SEQUENCE_CORRID:
        if given:
            yield source.problem(f"{path}.{given[0]}", f"{kind} has a data_type and no false and true values")
        if control.data_type not in _CORRELATION_ID_TYPES:
            allowed = ", ".join(_CORRELATION_ID_TYPES.values())
            yield source.problem(f"{path}.data_type", f"must be one of {allowed} for {kind}")
    elif len(given) != 1:
        found = f"found {' and '.join(given)}" if given else "found none"
        yield source.problem(path, f"{kind} needs exactly one of {', '.join(_VALUE_LISTS)}; {found}")
    elif len(getattr(control, given[0])) != 2:
        count = len(getattr(control, given[0]))
        yield source.problem(f"{path}.{given[0]}", f"needs two values, for false and for true, found {count}")
