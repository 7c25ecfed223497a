"""``pb_utils.InferenceResponse``: what ``execute`` returns for each request."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from shoal.backends.triton_python.errors import TritonError, TritonModelException
from shoal.backends.triton_python.tensor import Tensor
from shoal.requests import Parameter


class InferenceResponse:
    """The answer to one request.

    Args:
        output_tensors: the outputs; may be left out when there is an error.
        error: why the request failed.
        parameters: parameters to send along; the values are bool, int, float or str.
    """

    __slots__ = ("_error", "_outputs", "_parameters")

    def __init__(
        self,
        output_tensors: Sequence[Tensor] = (),
        error: TritonError | None = None,
        parameters: Mapping[str, Parameter] | None = None,
    ) -> None:
        for tensor in output_tensors:
            if not isinstance(tensor, Tensor):
                raise _no_tensor(tensor)
        if error is not None and not isinstance(error, TritonError):
            raise TypeError(f"InferenceResponse: the error must be a TritonError, not {type(error).__name__}")
        if parameters:
            _check_parameters(parameters)
        self._outputs = output_tensors
        self._error = error
        self._parameters = parameters

    def output_tensors(self) -> list[Tensor]:
        """The outputs."""
        return list(self._outputs)

    def has_error(self) -> bool:
        """Whether the request failed."""
        return self._error is not None

    def error(self) -> TritonError | None:
        """Why the request failed, None when it did not."""
        return self._error

    def parameters(self) -> str:
        """The response's parameters as JSON text."""
        return json.dumps(dict(self._parameters or {}))


def _no_tensor(found: object) -> Exception:
    if found is None:
        return TritonModelException("Output tensor for inference response should not be empty.")
    return TypeError(f"InferenceResponse: every output must be a pb_utils.Tensor, not {type(found).__name__}")


def _check_parameters(parameters: Mapping[str, Parameter]) -> None:
    for key, value in parameters.items():
        if not isinstance(key, str):
            raise TritonModelException(f"Expect parameters keys to have type str, found type {type(key)}")
        if not isinstance(value, bool | int | float | str):
            raise TritonModelException(
                f"Expect parameters values to have type bool/int/float/str, found type {type(value)} for key '{key}'"
            )
