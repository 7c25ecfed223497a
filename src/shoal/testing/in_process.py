"""A whole server in the calling process, without sockets, for tests and notebooks.

The models run in their workers as always; what is left out is HTTP and gRPC::

    with InProcessServer("models") as server:
        outputs = server.infer("digits", {"pixels": images})
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Self

import numpy as np

from shoal.backends.contract import Array
from shoal.datatypes import BY_NUMPY, DataType
from shoal.errors import InvalidArgumentError, ShoalError
from shoal.execution.bytes_arrays import decode_bytes, encode_bytes
from shoal.requests import (
    LATEST,
    InferHead,
    InferRequest,
    InferResponse,
    InputHead,
    OutputHead,
    Parameter,
)
from shoal.server import Server, ServerSettings

START_TIMEOUT_S = 120.0


class PendingAnswer:
    """The answer of a request that was submitted (a ``requests.Responder``).

    Attributes:
        request: the request, once it was planned.
        answers: the responses and errors of a decoupled model, in their order.
    """

    def __init__(self) -> None:
        self.request: InferRequest | None = None
        self.answers: list[InferResponse | ShoalError] = []
        self._future: Future[InferResponse | None] = Future()
        self._came: SimpleQueue[None] = SimpleQueue()

    def completed(self, request: InferRequest, response: InferResponse) -> None:
        """Keep the answer."""
        del request
        self._future.set_result(response)

    def failed(self, request: InferRequest | None, error: ShoalError) -> None:
        """Keep the error."""
        del request
        self._future.set_exception(error)
        self._came.put(None)

    def responded(self, request: InferRequest, answer: InferResponse | ShoalError | None, *, final: bool) -> None:
        """Keep one of the answers of a decoupled model."""
        del request
        if answer is not None:
            self.answers.append(answer)
        if final:
            self._future.set_result(None)
        self._came.put(None)

    def __iter__(self) -> Iterator[dict[str, Array] | ShoalError]:
        """The answers of a decoupled model as they come: arrays by output name, or an error in place of them.

        Raises:
            ShoalError: the request failed.
            TimeoutError: nothing came for two minutes.
        """
        told = 0
        while True:
            ended = self._future.done()
            while told < len(self.answers):
                answer = self.answers[told]
                told += 1
                yield outputs_of(answer) if isinstance(answer, InferResponse) else answer
            if ended:
                self._future.result()
                return
            try:
                self._came.get(timeout=START_TIMEOUT_S)
            except Empty:
                raise TimeoutError("no answer came") from None

    @property
    def done(self) -> bool:
        """Whether the answer has come."""
        return self._future.done()

    def outputs(self, timeout_s: float = START_TIMEOUT_S) -> dict[str, Array]:
        """Wait for the answer: arrays by output name.

        Raises:
            ShoalError: the request failed.
            TimeoutError: it was not answered in time.
        """
        response = self._future.result(timeout_s)
        if response is None:
            raise ValueError("a decoupled model was asked: iterate over its answers")
        return outputs_of(response)


class InProcessServer:
    """A server on a thread of its own; a context manager.

    Args:
        repositories: one model repository or several.
        settings: further fields of ``ServerSettings``.

    Attributes:
        server: the server; to be touched on its own thread only, through ``call``.
    """

    def __init__(self, *repositories: str | Path, **settings: Any) -> None:
        self.server: Server
        self._settings = ServerSettings(repositories=[Path(path) for path in repositories], **settings)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="shoal", daemon=True)

    def __enter__(self) -> Self:
        """Start the server.

        Raises:
            ShoalError: a model could not be loaded.
        """
        self._thread.start()
        try:
            self.run(self._start())
        except BaseException:
            self._end_loop()
            raise
        return self

    async def _start(self) -> None:
        self.server = Server(self._settings)
        await self.server.start()

    def __exit__(self, *_: object) -> None:
        """Stop the server and its workers."""
        try:
            self.run(self.server.stop(timeout_s=10.0))
        finally:
            self._end_loop()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the server's thread and give its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(START_TIMEOUT_S)

    def call(self, function: Callable[..., Any], *arguments: object) -> Any:
        """Call a function on the server's thread and give its result."""

        async def work() -> Any:
            return function(*arguments)

        return self.run(work())

    def submit(
        self,
        model: str,
        inputs: Mapping[str, Array],
        *,
        version: int = LATEST,
        outputs: Sequence[str] = (),
        parameters: Mapping[str, Parameter] | None = None,
        request_id: str = "",
    ) -> PendingAnswer:
        """Submit a request without waiting for its answer."""
        heads, payload = [], []
        for name, array in inputs.items():
            datatype, data = wire_bytes(name, array)
            heads.append(InputHead(name, datatype, array.shape, len(data)))
            payload.append(data)
        wanted = tuple(OutputHead(name) for name in outputs)
        head = InferHead(model, version, request_id, tuple(heads), wanted, dict(parameters or {}))
        pending = PendingAnswer()
        self._loop.call_soon_threadsafe(self._submit, head, payload, pending)
        return pending

    def _submit(self, head: InferHead, payload: list[bytes], pending: PendingAnswer) -> None:
        try:
            plan = self.server.plan(head)
        except ShoalError as error:
            pending.failed(None, error)
            return
        pending.request = InferRequest(plan, payload, pending, None, time.monotonic_ns())
        plan.sink.submit(pending.request)

    def cancel(self, pending: PendingAnswer) -> None:
        """Cancel a request as a client would."""
        self.call(self._cancel, pending)

    @staticmethod
    def _cancel(pending: PendingAnswer) -> None:
        if pending.request is not None:
            pending.request.plan.sink.cancel(pending.request)

    def infer(self, model: str, inputs: Mapping[str, Array], **request: Any) -> dict[str, Array]:
        """Submit a request and wait for its answer; the arguments are those of ``submit``.

        Raises:
            ShoalError: the request failed.
        """
        return self.submit(model, inputs, **request).outputs()


def outputs_of(response: InferResponse) -> dict[str, Array]:
    """The outputs of a response: arrays by name."""
    return {
        tensor.name: array_of(tensor.datatype, tensor.shape, data)
        for tensor, data in zip(response.layout.outputs, response.data, strict=True)
    }


def wire_bytes(name: str, array: Array) -> tuple[DataType, bytes]:
    """An array's datatype and wire bytes; text and bytes become BYTES.

    Raises:
        InvalidArgumentError: no datatype holds such elements.
    """
    if array.dtype.kind in "OSU":
        return DataType.BYTES, encode_bytes(array)
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    datatype = BY_NUMPY.get(little.dtype.str.lstrip("<|"))
    if little.dtype == np.bool_:
        datatype = DataType.BOOL
    if datatype is None:
        raise InvalidArgumentError(f"input '{name}' has elements of type {array.dtype}, which no datatype holds")
    return datatype, little.tobytes()


def array_of(datatype: DataType, shape: tuple[int, ...], data: Any) -> Array:
    """An array over a tensor's wire bytes; BF16 as its raw 16 bits."""
    if datatype is DataType.BYTES:
        return decode_bytes(data, shape)
    return np.frombuffer(data, datatype.numpy or "<u2").reshape(shape)
