"""What Triton's configuration can say and this version of Shoal cannot do yet: one table, and every entry an error.

To take something off the list, delete its line here and move its row in ``docs/configuration.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from shoal.config.problem import Problem, Source


class Unsupported(NamedTuple):
    """One feature.

    Attributes:
        field: its field, with ``[]`` where a list stands in between.
        asks: whether a value of the field asks for the feature.
        advice: what to do without it.
    """

    field: str
    asks: Callable[[Any], bool]
    advice: str


def _given(value: Any) -> bool:
    return bool(value)


def _present(_value: Any) -> bool:
    return True


UNSUPPORTED = (
    Unsupported("ensemble_scheduling.step[].model_namespace", _given, "leave it out"),
    Unsupported("model_warmup", _given, "leave it out, and send a request of your own after the start"),
    Unsupported("model_repository_agents", _present, "leave it out"),
    Unsupported("model_operations", _present, "leave it out"),
    Unsupported("model_metrics", _present, "leave it out; the metrics keep their default buckets"),
    Unsupported("cc_model_filenames", _given, "use default_model_filename"),
    Unsupported("runtime", _given, "leave it out"),
    Unsupported("instance_group[].secondary_devices", _given, "leave them out"),
)
"""In the order of ``ModelConfig``'s documentation."""


def unsupported_problems(config: Any, source: Source) -> list[Problem]:
    """A problem for every unsupported feature that the configuration asks for."""
    return [
        source.problem(path, f"not supported by this version of Shoal; {entry.advice}")
        for entry in UNSUPPORTED
        for path, value in _values(config, entry.field.split("."), "")
        if entry.asks(value)
    ]


def _values(message: Any, names: list[str], path: str) -> Iterator[tuple[str, Any]]:
    """Every value of the field below a message, with its path; nothing for a message that is absent."""
    name, rest = names[0], names[1:]
    each = name.endswith("[]")
    name = name.removesuffix("[]")
    place = f"{path}.{name}" if path else name
    if message.DESCRIPTOR.fields_by_name[name].has_presence and not message.HasField(name):
        return
    value = getattr(message, name)
    if not rest:
        yield place, value
    elif each:
        for index, item in enumerate(value):
            yield from _values(item, rest, f"{place}[{index}]")
    else:
        yield from _values(value, rest, place)
