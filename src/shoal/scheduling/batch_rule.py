"""A rule of the user's, in Python, for which requests may share a batch (Triton's custom batching is a C library).

The rule is an object with a method ``include``; ``docs/scheduling.md`` describes it. It is asked in the server's own
process whenever a batch is formed, so what it does must be quick, and whatever it raises costs no more than the batch.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Protocol

from shoal.config.spec import ModelSpec, TensorSpec
from shoal.datatypes import DataType
from shoal.requests import Buffer, InferRequest, Parameter, Shape
from shoal.scheduling.contract import CloseReason

log = logging.getLogger("shoal.model")


class BatchStrategy(Protocol):
    """What the user writes. ``begin`` and ``finalize`` may be left out."""

    def begin(self) -> None:
        """The queue is looked at from its front, for a new batch or for the same one again."""

    def include(self, request: QueuedRequest) -> bool:
        """Whether the request may join those included since ``begin``; the first one always runs."""

    def finalize(self, count: int) -> None:
        """The first ``count`` of the requests asked about since ``begin`` are sent as a batch."""


class QueuedRequest:
    """A waiting request, as a rule sees it."""

    __slots__ = ("_request", "_tensors")

    def __init__(self, request: InferRequest, tensors: tuple[TensorSpec, ...]) -> None:
        self._request = request
        self._tensors = tensors

    @property
    def rows(self) -> int:
        """Its batch size."""
        return self._request.plan.rows

    @property
    def request_id(self) -> str:
        """The client's id, "" when it gave none."""
        return self._request.plan.head.request_id

    @property
    def priority(self) -> int:
        """Its priority level, 0 when there are none."""
        return self._request.plan.priority

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """The client's parameters."""
        return self._request.plan.head.parameters

    @property
    def shapes(self) -> dict[str, Shape]:
        """The shape of each input by its name, the batch dimension included, as the model sees it."""
        return {self._tensors[planned.index].name: planned.shape for planned in self._request.plan.inputs}

    @property
    def datatypes(self) -> dict[str, str]:
        """The data type of each input by its name, such as ``FP32``."""
        tensors = [self._tensors[planned.index] for planned in self._request.plan.inputs]
        return {tensor.name: tensor.datatype.wire for tensor in tensors}

    @property
    def nbytes(self) -> int:
        """The length of all its inputs."""
        inputs = self._request.plan.inputs
        return sum(len(self._data(slot)) for slot in range(len(inputs)))

    def input(self, name: str) -> Any:
        """One of its inputs as a NumPy array, which is read-only where it is not copied; None when it is absent.

        BYTES come as an array of ``bytes``, BF16 as the raw 16 bits.
        """
        from shoal.protocols.bytes_tensors import unpack  # noqa: PLC0415 - few rules look at data

        for slot, planned in enumerate(self._request.plan.inputs):
            tensor = self._tensors[planned.index]
            if tensor.name == name:
                import numpy as np  # noqa: PLC0415 - as above

                data = self._data(slot)
                if tensor.datatype is DataType.BYTES:
                    elements = np.empty(int(np.prod(planned.shape)), object)
                    elements[:] = unpack(data, elements.size)
                    return elements.reshape(planned.shape)
                array = np.frombuffer(data, tensor.datatype.numpy or "<u2").reshape(planned.shape)
                array.flags.writeable = False
                return array
        return None

    def _data(self, slot: int) -> Buffer:
        planned = self._request.plan.inputs[slot]
        return self._request.payload[planned.position] if planned.data is None else planned.data


class BatchRule:
    """Asks the user's rule (a ``dynamic.SameContents``).

    Args:
        strategy: the user's object.
        spec: the model.
    """

    __slots__ = ("_begin", "_broken", "_failures", "_finalize", "_include", "_model", "_tensors")

    reason = CloseReason.RULE

    def __init__(self, strategy: Any, spec: ModelSpec) -> None:
        self._include = strategy.include
        self._begin = getattr(strategy, "begin", None)
        self._finalize = getattr(strategy, "finalize", None)
        self._model = spec.name
        self._tensors = spec.inputs
        self._failures = 0
        self._broken = False

    def __call__(self, first: InferRequest, other: InferRequest) -> bool:
        """Whether the request may join; it may not once the rule has raised anything for this batch."""
        if other is first:
            self._broken = False
            self._ask(self._begin)
        if self._broken:
            return False
        return bool(self._ask(self._include, QueuedRequest(other, self._tensors)))

    def closed(self, count: int) -> None:
        """A batch is sent."""
        self._ask(self._finalize, count)

    def _ask(self, method: Any, *arguments: object) -> object:
        """Call one of the rule's methods; what it raises is logged, less and less often, and means no."""
        if method is None:
            return None
        try:
            return method(*arguments)
        except Exception:  # the user's own code may raise anything
            self._broken = True
            self._failures += 1
            if self._failures.bit_count() == 1:
                text = "the batch strategy of model '%s' failed; the batch is closed there (failure %d)"
                log.exception(text, self._model, self._failures)
            return None
