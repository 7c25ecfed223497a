"""Between the rows of a gathered batch and the requests and responses of a Python model. The hot path.

On the way in a request is a window on the batch's arrays, and a tensor is cut out when the model asks for it. On the
way out, responses that look alike (nearly always) are joined output by output with one NumPy call each; anything else
is passed on request by request.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from shoal.backends.contract import Array, BatchResult, ModelBatch, OutputRoom, RequestInfo, RequestResult
from shoal.backends.python_answers import DecoupledAnswers
from shoal.backends.python_served import ServedBatch
from shoal.backends.triton_python.errors import status_of
from shoal.backends.triton_python.memory import TRITONSERVER_MEMORY_CPU, PreferredMemory
from shoal.backends.triton_python.request import TRITONSERVER_REQUEST_RELEASE_ALL, InferenceRequest
from shoal.backends.triton_python.response import InferenceResponse
from shoal.backends.triton_python.response_sender import InferenceResponseSender
from shoal.backends.triton_python.tensor import BF16Tensor, InputTensor, Tensor
from shoal.datatypes import BY_NUMBER, DataType
from shoal.errors import ModelError


class ServedRequest(InferenceRequest):
    """One request of a batch: a window on the batch's arrays.

    Args:
        arrays: the batch's inputs by name.
        window: the request's rows; None for all of them.
        info: what the request says of itself.
        served: the batch.
        place: the request's place in it.
    """

    __slots__ = ("_arrays", "_info", "_place", "_sender", "_served", "_window")

    def __init__(
        self, arrays: Mapping[str, Array], window: slice | None, info: RequestInfo, served: ServedBatch, place: int
    ) -> None:
        self._arrays = arrays
        self._window = window
        self._info = info
        self._served = served
        self._place = place
        self._release_flags = TRITONSERVER_REQUEST_RELEASE_ALL

    def inputs(self) -> list[Tensor]:
        """The input tensors, in the order of the configuration."""
        return [tensor for name in self._arrays if (tensor := self.find_input(name)) is not None]

    def find_input(self, name: str) -> Tensor | None:
        """The input of this name, None when the request has none."""
        array = self._arrays.get(name)
        if array is None:
            return None
        if self._window is not None:
            array = array[self._window]
        if name in self._served.bf16:
            return BF16Tensor(name, array)
        return InputTensor(name, array)

    def request_id(self) -> str:
        """The client's id, empty when it gave none."""
        return self._info.request_id

    def correlation_id(self) -> int | str:
        """The id of the sequence, 0 when the request belongs to none."""
        return self._info.correlation_id

    def requested_output_names(self) -> set[str]:
        """The names of the outputs that the client wants: all of the model's when it named none."""
        return set(self._info.outputs)

    def flags(self) -> int:
        """The sequence flags."""
        return self._info.flags

    def set_flags(self, flags: int) -> None:
        """Set the sequence flags, as the model sees them."""
        self._info = replace(self._info, flags=flags)

    def timeout(self) -> int:
        """The timeout in microseconds, 0 when there is none."""
        return self._info.timeout_us

    def parameters(self) -> str:
        """The request's parameters as JSON text, as compact as Triton writes it."""
        return json.dumps(dict(self._info.parameters), ensure_ascii=False, separators=(",", ":"))

    def preferred_memory(self) -> PreferredMemory:
        """Where the outputs are wanted: the server always takes them from the CPU."""
        return PreferredMemory(TRITONSERVER_MEMORY_CPU)

    def trace(self) -> Any:
        """None: traces are not passed on to models."""
        return None

    def is_cancelled(self) -> bool:
        """Whether the client has given up on the request; False once it is answered."""
        sender = getattr(self, "_sender", None)
        return self._served.is_cancelled(self._place) if sender is None else sender.is_cancelled()

    def get_response_sender(self) -> InferenceResponseSender:
        """What sends the request's responses; always the same object."""
        sender = getattr(self, "_sender", None)
        if sender is None:
            sender = self._sender = self._served.open_sender(self._place)
        return sender

    def answer_through(self, answers: DecoupledAnswers) -> None:
        """Send responses here; for a decoupled model, whose requests have a sender from the start."""
        self._sender = InferenceResponseSender(answers)


def split(batch: ModelBatch, served: ServedBatch) -> list[ServedRequest]:
    """The requests of a batch, gathered or in pieces."""
    arrays, rows = batch.inputs, batch.rows
    if batch.pieces is not None:
        pairs = zip(batch.pieces, batch.requests, strict=True)
        return [ServedRequest(piece, None, info, served, place) for place, (piece, info) in enumerate(pairs)]
    if len(rows) == 1:
        return [ServedRequest(arrays, None, batch.requests[0], served, 0)]
    requests: list[ServedRequest] = []
    start = 0
    for place, count in enumerate(rows):
        end = start + count
        requests.append(ServedRequest(arrays, slice(start, end), batch.requests[place], served, place))
        start = end
    return requests


class Collector:
    """Turns the responses of a batch into its result.

    Args:
        model: the model's name, for messages.
        outputs: the data types of the model's outputs by name; other outputs of a response are left out, as in Triton.
    """

    def __init__(self, model: str, outputs: Mapping[str, DataType]) -> None:
        self._model = model
        self._outputs = outputs
        self._dtypes = {
            name: np.dtype(datatype.numpy) for name, datatype in outputs.items() if datatype is not DataType.BF16
        }

    def collect(self, responses: Sequence[InferenceResponse], batch: ModelBatch, room: OutputRoom) -> BatchResult:
        """The result of a batch.

        Args:
            responses: one per request.
            batch: the batch that they answer.
            room: where joined outputs are written.
        """
        gathered = self._gather(responses, batch, room)
        if gathered is not None:
            return BatchResult(gathered)
        return BatchResult(per_request=[self.result(response) for response in responses])

    def collect_some(self, responses: Sequence[InferenceResponse | None]) -> BatchResult:
        """The result of a batch of which some requests, those with None, are to run again."""
        return BatchResult(
            per_request=[
                RequestResult({}, rescheduled=True) if response is None else self.result(response)
                for response in responses
            ]
        )

    def _gather(
        self, responses: Sequence[InferenceResponse], batch: ModelBatch, room: OutputRoom
    ) -> dict[str, Array] | None:
        """The outputs of all responses joined, or None when the responses are not alike."""
        columns: list[Sequence[Tensor]] = []
        width = len(responses[0]._outputs)  # noqa: SLF001 - one house: a call per response would be too dear
        for response in responses:
            outputs = response._outputs  # noqa: SLF001
            if response._error is not None or response._parameters or len(outputs) != width:  # noqa: SLF001
                return None
            columns.append(outputs)
        gathered: dict[str, Array] = {}
        try:
            for position in range(width):
                name = columns[0][position]._name  # noqa: SLF001
                if name in self._outputs:
                    gathered[name] = self._join(name, [column[position] for column in columns], batch, room)
                elif any(column[position]._name != name for column in columns):  # noqa: SLF001
                    return None
        except (TypeError, ValueError, KeyError):  # NumPy: shapes or types differ; not alike, then
            return None
        return gathered

    def _join(self, name: str, tensors: list[Tensor], batch: ModelBatch, room: OutputRoom) -> Array:
        """One output of all responses, its rows in the batch's order.

        Raises:
            TypeError, ValueError, KeyError: the tensors are not alike, or not what the configuration says.
        """
        dtype = self._dtypes[name]
        arrays = [tensor._array for tensor in tensors]  # noqa: SLF001
        first = arrays[0]
        if batch.batched and [len(array) for array in arrays] != batch.rows:
            raise ValueError(name)
        if len(arrays) == 1:
            if first.dtype != dtype:
                raise TypeError(name)
            return first
        if [tensor._name for tensor in tensors].count(name) != len(tensors):  # noqa: SLF001
            raise ValueError(name)
        out = None
        if dtype.char != "O":
            out = room.array(name, (sum(batch.rows), *first.shape[1:]), dtype)
        if out is None:
            return np.concatenate(arrays, dtype=dtype, casting="equiv")
        return np.concatenate(arrays, out=out, casting="equiv")

    def result(self, response: InferenceResponse) -> RequestResult:
        """One response by itself."""
        parameters = response._parameters  # noqa: SLF001
        error = response.error()
        if error is not None:
            return RequestResult({}, ModelError(error.message(), status_of(error)), parameters)
        arrays: dict[str, Array] = {}
        for tensor in response.output_tensors():
            expected = self._outputs.get(tensor.name())
            if expected is None:
                continue
            found = _datatype(tensor)
            if found is not expected:
                return RequestResult({}, self._wrong_datatype(tensor.name(), expected, found), parameters)
            arrays[tensor.name()] = tensor._array  # noqa: SLF001
        return RequestResult(arrays, None, parameters)

    def _wrong_datatype(self, name: str, expected: DataType, found: DataType) -> ModelError:
        return ModelError(
            f"model '{self._model}' returned output '{name}' with data type {found.wire}, "
            f"but its configuration says {expected.wire}"
        )


def _datatype(tensor: Tensor) -> DataType:
    return BY_NUMBER[tensor.triton_dtype() or DataType.BYTES.number]
