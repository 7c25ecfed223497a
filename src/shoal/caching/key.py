"""A request's key in the response cache: a strong hash of all that the answer depends on.

That is the model, its version and identity (see ``Identity``), every input's name, type, shape and bytes, the outputs
asked for, and the parameters that a model can see. Not the request's id, its priority, timeout or place in a sequence,
and not how the outputs are to be encoded, for what is kept are the outputs before encoding. Triton's key has the model,
its version and the inputs' names and bytes (``cache_manager.cc:286``), so it can answer wrongly.

What the head says is the same for every request with the same plan: that part is hashed once and kept in the plan.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from shoal.config.spec import ModelSpec
from shoal.protocols.parameters import SCHEDULING
from shoal.requests import InferRequest, RequestPlan

KEY_NBYTES = 32

Identity = Callable[[], bytes]
"""Tells loaded models apart that have the same name and version: an answer of one is not to be given for the other."""


class PlanKey:
    """What a plan contributes to the keys of its requests.

    Attributes:
        whole: the key itself, where the head holds every input's bytes.
    """

    __slots__ = ("_begun", "_parts", "whole")

    def __init__(self, begun: hashlib.blake2b, parts: Sequence[int | bytes]) -> None:
        self._begun = begun
        self._parts = parts
        self.whole: bytes | None = None
        if all(isinstance(part, bytes) for part in parts):
            self.whole = self.of(())

    def of(self, payload: Sequence[bytes | bytearray | memoryview]) -> bytes:
        """The key of a request with this payload."""
        hashing = self._begun.copy()
        for part in self._parts:
            hashing.update(payload[part] if isinstance(part, int) else part)
        return hashing.digest()


def plan_key(plan: RequestPlan, spec: ModelSpec, identity: bytes) -> PlanKey:
    """Make a plan's part of its requests' keys.

    Args:
        plan: the plan.
        spec: its model.
        identity: what the model's ``Identity`` says now.
    """
    head = plan.head
    inputs = []
    parts: list[int | bytes] = []
    for planned in plan.inputs:
        tensor = spec.inputs[planned.index]
        data = planned.data
        nbytes = plan.payload_nbytes[planned.position] if data is None else len(data)
        inputs.append((tensor.name, tensor.datatype.wire, planned.shape, nbytes))
        parts.append(planned.position if data is None else data)
    outputs = tuple(spec.outputs[index].name for index in plan.outputs)
    parameters = sorted((name, value) for name, value in head.parameters.items() if name not in SCHEDULING)
    told = (spec.name, spec.version, identity, inputs, outputs, parameters)
    begun = hashlib.blake2b(repr(told).encode(), digest_size=KEY_NBYTES)  # a repr tells 1, 1.0, True and '1' apart
    return PlanKey(begun, parts)


def request_key(request: InferRequest, spec: ModelSpec, identity: Identity) -> bytes:
    """The key of a request for this model."""
    plan = request.plan
    known = plan.cache_key
    if type(known) is not PlanKey:
        known = plan.cache_key = plan_key(plan, spec, identity())
    return known.whole or known.of(request.payload)
