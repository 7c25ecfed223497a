"""Whether a request's lengths fit its model's padding policy; asked once for each head."""

from __future__ import annotations

from collections.abc import Sequence

from shoal.config.padding import PaddingSpec
from shoal.config.spec import ModelSpec
from shoal.errors import InvalidArgumentError
from shoal.requests import InferHead, PlannedInput
from shoal.scheduling.texts import request_prefix


def check_lengths(head: InferHead, inputs: Sequence[PlannedInput], spec: ModelSpec, padding: PaddingSpec) -> None:
    """Refuse a request that is longer than the policy allows, or whose inputs should be as long as one another.

    Raises:
        InvalidArgumentError: it is refused; the message names the input, its length and what is allowed.
    """
    found = {planned.index: planned.shape for planned in inputs}
    for length in padding.lengths:
        leader = length.inputs[0]
        if leader.input not in found:  # optional inputs in its place; the model is told to expect them (rule 31)
            raise InvalidArgumentError(
                f"{request_prefix(head)}input '{spec.inputs[leader.input].name}' is missing, "
                f"and model '{spec.name}' pads its requests to its length"
            )
        size = found[leader.input][leader.axis]
        if length.maximum and size > length.maximum:
            raise InvalidArgumentError(
                f"{request_prefix(head)}input '{spec.inputs[leader.input].name}' for model '{spec.name}' has length "
                f"{size} in dimension {leader.axis}, at most {length.maximum} is allowed"
            )
        for member in length.inputs[1:]:
            shape = found.get(member.input)
            if shape is not None and shape[member.axis] != size:
                raise InvalidArgumentError(
                    f"{request_prefix(head)}input '{spec.inputs[member.input].name}' for model '{spec.name}' has "
                    f"length {shape[member.axis]} in dimension {member.axis}, but must be as long as input "
                    f"'{spec.inputs[leader.input].name}', which has {size}"
                )
