"""``pb_utils.InferenceRequest``: a request as a model sees it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from shoal.backends.triton_python.errors import TritonModelException
from shoal.backends.triton_python.memory import TRITONSERVER_MEMORY_CPU, PreferredMemory
from shoal.backends.triton_python.response_sender import InferenceResponseSender
from shoal.backends.triton_python.tensor import Tensor
from shoal.requests import Parameter

TRITONSERVER_REQUEST_FLAG_SEQUENCE_START = 1
TRITONSERVER_REQUEST_FLAG_SEQUENCE_END = 2
TRITONSERVER_REQUEST_RELEASE_ALL = 1
TRITONSERVER_REQUEST_RELEASE_RESCHEDULE = 2


class InferenceRequest:
    """A request to a model.

    Args:
        request_id: the client's id.
        correlation_id: its sequence's id, a number or a text.
        inputs: its input tensors.
        requested_output_names: the outputs wanted.
        model_name: the model to run.
        model_version: its version; -1 for the latest.
        flags: sequence flags.
        timeout: its timeout in microseconds.
        preferred_memory: where its outputs are wanted.
        trace: the trace it belongs to.
        parameters: its parameters.
    """

    __slots__ = (
        "_correlation_id",
        "_flags",
        "_inputs",
        "_model",
        "_outputs",
        "_parameters",
        "_preferred_memory",
        "_release_flags",
        "_request_id",
        "_timeout",
        "_trace",
    )

    def __init__(
        self,
        request_id: str = "",
        correlation_id: int | str = 0,
        *,
        inputs: Sequence[Tensor],
        requested_output_names: Sequence[str],
        model_name: str,
        model_version: int = -1,
        flags: int = 0,
        timeout: int = 0,
        preferred_memory: PreferredMemory | None = None,
        trace: Any = None,
        parameters: Mapping[str, Parameter] | None = None,
    ) -> None:
        if any(not isinstance(tensor, Tensor) for tensor in inputs):
            raise TypeError("InferenceRequest: every input must be a pb_utils.Tensor")
        self._request_id = request_id
        self._correlation_id = correlation_id
        self._inputs = list(inputs)
        self._outputs = set(requested_output_names)
        self._model = (model_name, model_version)
        self._flags = flags
        self._timeout = timeout
        self._preferred_memory = preferred_memory or PreferredMemory(TRITONSERVER_MEMORY_CPU)
        self._trace = trace
        self._parameters = parameters or {}
        self._release_flags = TRITONSERVER_REQUEST_RELEASE_ALL

    def inputs(self) -> list[Tensor]:
        """The input tensors; optional inputs that the client left out are not among them."""
        return self._inputs

    def find_input(self, name: str) -> Tensor | None:
        """The input of this name, None when the request has none."""
        return next((tensor for tensor in self.inputs() if tensor.name() == name), None)

    def request_id(self) -> str:
        """The client's id, empty when it gave none."""
        return self._request_id

    def correlation_id(self) -> int | str:
        """The id of the sequence, 0 when the request belongs to none."""
        return self._correlation_id

    def requested_output_names(self) -> set[str]:
        """The names of the outputs that the client wants."""
        return self._outputs

    def flags(self) -> int:
        """The sequence flags."""
        return self._flags

    def set_flags(self, flags: int) -> None:
        """Set the sequence flags."""
        self._flags = flags

    def timeout(self) -> int:
        """The timeout in microseconds, 0 when there is none."""
        return self._timeout

    def parameters(self) -> str:
        """The request's parameters as JSON text."""
        return json.dumps(dict(self._parameters))

    def preferred_memory(self) -> PreferredMemory:
        """Where the outputs are wanted."""
        return self._preferred_memory

    def trace(self) -> Any:
        """The trace that the request belongs to, None when it is not traced."""
        return self._trace

    def is_cancelled(self) -> bool:
        """Whether the client has given up on the request.

        Raises:
            TritonModelException: the request did not come from the server.
        """
        raise TritonModelException("Cannot determine request cancellation: the request did not come from the server")

    def set_release_flags(self, flags: int) -> None:
        """Say what becomes of the request after ``execute``: it is answered, or rescheduled for a later batch.

        A rescheduled request gets None in place of its response; the model must have ``iterative_sequence`` set.

        Args:
            flags: ``TRITONSERVER_REQUEST_RELEASE_ALL`` or ``TRITONSERVER_REQUEST_RELEASE_RESCHEDULE``.

        Raises:
            TritonModelException: the flags are neither of the two.
        """
        if flags not in (TRITONSERVER_REQUEST_RELEASE_ALL, TRITONSERVER_REQUEST_RELEASE_RESCHEDULE):
            raise TritonModelException(
                "set_release_flags: the flags must be TRITONSERVER_REQUEST_RELEASE_ALL or "
                f"TRITONSERVER_REQUEST_RELEASE_RESCHEDULE, not {flags!r}"
            )
        self._release_flags = flags

    def get_response_sender(self) -> InferenceResponseSender:
        """What sends the request's responses; always the same object.

        Raises:
            TritonModelException: the request did not come from the server.
        """
        raise TritonModelException("Cannot send responses: the request did not come from the server")

    def exec(self, decoupled: bool = False) -> NoReturn:
        """Not supported yet.

        Raises:
            TritonModelException: always.
        """
        raise _no_calls_of_models("exec", decoupled)

    def async_exec(self, decoupled: bool = False) -> NoReturn:
        """Not supported yet.

        Raises:
            TritonModelException: always.
        """
        raise _no_calls_of_models("async_exec", decoupled)


def _no_calls_of_models(method: str, decoupled: bool) -> TritonModelException:
    call = f"{method}(decoupled=True)" if decoupled else f"{method}()"
    return TritonModelException(
        f"InferenceRequest.{call}: calling another model from a model (BLS) is not supported in this version"
    )
