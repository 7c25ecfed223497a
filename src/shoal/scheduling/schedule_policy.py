"""The parameters that schedule a request: its priority, its queue timeout (rules 36 and 37) and its deadline."""

from __future__ import annotations

from shoal.config.spec import ModelSpec
from shoal.errors import InvalidArgumentError
from shoal.protocols.parameters import DEADLINE
from shoal.requests import InferHead
from shoal.scheduling.texts import request_prefix


def priority_level(head: InferHead, spec: ModelSpec) -> int:
    """The level that the request queues at, 1 being the first; 0 for a model without priority levels.

    No priority, or one above the model's levels, becomes the default level (rule 36).
    """
    asked = _whole_number(head, "priority")
    batching = spec.batching
    if batching is None or not batching.priority_levels:
        return 0
    return asked if 0 < asked <= batching.priority_levels else batching.default_priority_level


def queue_timeout_us(head: InferHead) -> int:
    """The queue timeout that the request asks for, in microseconds (rule 37); 0 when none."""
    return _whole_number(head, "timeout")


def deadline_us(head: InferHead) -> int:
    """How long after its arrival the request must be answered, in microseconds; 0 when it has no deadline."""
    return _whole_number(head, DEADLINE, "; over HTTP the header Shoal-Deadline-Us sets it too")


def _whole_number(head: InferHead, name: str, also: str = "") -> int:
    """A parameter's value; 0 when it is absent."""
    value = head.parameters.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidArgumentError(
            f"{request_prefix(head)}the request's parameter '{name}' must be a whole number of 0 or more, "
            f"not {value!r}{also}"
        )
    return value
