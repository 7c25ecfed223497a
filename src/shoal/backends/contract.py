"""The contract of a backend: what runs a model inside a worker process.

A backend is a module with one ``Backend`` class. In the worker the story is::

    backend.complete(config, files)   -> the configuration, completed from the model itself
    model = backend.load(context)     -> weights, shared by the instances
    instance = model.instance(spec)   -> one executor, with its own thread or process
    instance.execute(batch)           -> outputs, as often as there are batches
    instance.close(); model.close()

Nothing here knows of sockets, queues or shared memory: inputs are NumPy arrays over memory that somebody else owns, and
outputs are arrays that somebody else stores. ``shoal.testing.backend_conformance`` checks an implementation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shoal.config.spec import InstanceSpec, ModelSpec
from shoal.errors import ShoalError
from shoal.requests import Parameter

Array = NDArray[Any]
"""A tensor: dtype as ``DataType.numpy`` says; BYTES is an object array of bytes; BF16 is uint16 with the raw bits.

An output that is BYTES may also hold text, which goes out as UTF-8, or be an array of NumPy bytes.
"""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Where a model version's files are.

    Attributes:
        repository: the model repository's folder.
        model_dir: the model's folder.
        version_dir: the version's folder.
    """

    repository: Path
    model_dir: Path
    version_dir: Path


@dataclass(frozen=True, slots=True)
class LoadContext:
    """What a backend gets to load a model: the spec, the configuration as JSON, the files, the cores it may use."""

    spec: ModelSpec
    config_json: str
    files: ModelFiles
    cores: float


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """What a model may ask about one request of a batch, besides its tensors.

    Attributes:
        request_id: the client's id.
        parameters: the client's parameters.
        outputs: the names of the outputs asked for, in order.
        priority: its priority level, 0 when none.
        timeout_us: its queue timeout in microseconds, 0 when none.
        correlation_id: its sequence's id, 0 or "" when none.
        flags: sequence flags, as in Triton.
    """

    request_id: str = ""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    priority: int = 0
    timeout_us: int = 0
    correlation_id: int | str = 0
    flags: int = 0


class ResponseStream(Protocol):
    """Answers one request of a decoupled model, or one whose response comes after ``execute`` has returned.

    It may be used from any thread, and for as long as it takes.
    """

    def send(self, result: RequestResult | None, *, final: bool) -> None:
        """Send a response, or the mere word that there are no more; returns when the server takes it.

        Args:
            result: the response; None for none, with ``final``.
            final: whether it is the last. Nothing may be sent after it.

        Raises:
            ShoalError: the response is not what the configuration says.
        """

    def is_cancelled(self) -> bool:
        """Whether nobody waits for the answers any more. A final one is to be sent all the same."""

    def abandon(self) -> None:
        """End the request with an error, for nobody is left who could send the final response.

        It is made to be called from a destructor: it neither waits for another thread nor raises.
        """


class BatchControl(Protocol):
    """What a backend may ask and do about single requests of a batch, by their places in it."""

    def is_cancelled(self, place: int) -> bool:
        """Whether nobody waits for the request's answer any more; False once the batch is done."""

    def stream(self, place: int) -> ResponseStream:
        """What answers the request, in place of the batch's result; to be asked for once for each request.

        In a decoupled model every request has one. In any other, a request whose ``RequestResult`` names it as
        ``later`` is answered through it, with exactly one response, which is final.
        """


@dataclass(slots=True)
class ModelBatch:
    """The rows of one or more requests, gathered.

    Attributes:
        inputs: one array per input present, by name; the first dimension holds the rows of all requests, one request
            after the other (for a model without batching: the one request's tensor as it is).
        rows: the rows of each request; ``[1]`` for a model without batching.
        requests: one per request, in the same order.
        batched: whether the first dimension of every tensor is the batch.
        pieces: for a backend that takes requests one by one, and large tensors: each request's own inputs, left where
            they arrived; ``inputs`` is empty then. None otherwise.
        control: what can be asked about single requests; None outside of a server.
    """

    inputs: dict[str, Array]
    rows: list[int]
    requests: Sequence[RequestInfo]
    batched: bool
    pieces: list[dict[str, Array]] | None = None
    control: BatchControl | None = None


@dataclass(slots=True)
class RequestResult:
    """One request's own outcome, from a backend that answers request by request.

    Attributes:
        outputs: arrays by output name.
        error: why the request failed; None when it did not.
        parameters: response parameters.
        rescheduled: the model did not answer and wants to see the request again (iterative sequences).
        later: what the request is going to be answered through; the outputs are empty then.
    """

    outputs: dict[str, Array]
    error: ShoalError | None = None
    parameters: Mapping[str, Parameter] | None = None
    rescheduled: bool = False
    later: ResponseStream | None = None


@dataclass(slots=True)
class BatchResult:
    """What a batch came to.

    Exactly one of the two is set.

    Attributes:
        gathered: arrays by output name, the rows of all requests in the batch's order.
        per_request: one result per request, for a backend that answers request by request.
    """

    gathered: dict[str, Array] | None = None
    per_request: list[RequestResult] | None = None


class OutputRoom(Protocol):
    """Memory that outputs may be written into directly, so that nothing is copied afterwards."""

    def array(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array | None:
        """An array of this shape in the memory that the server will read, or None when it has no room."""


class Instance(Protocol):
    """Runs batches, one at a time, always from the same thread."""

    def execute(self, batch: ModelBatch, room: OutputRoom) -> BatchResult:
        """Run the batch.

        Of a decoupled model, the result only says which requests are ``rescheduled``: all else goes through the streams
        of ``batch.control``, while this runs or afterwards.

        Raises:
            ShoalError: the whole batch failed with this status and message.
            Exception: the whole batch failed; INTERNAL, with the exception's text.
        """

    def close(self) -> None:
        """Release what the instance holds."""


class Model(Protocol):
    """A loaded model version."""

    def instance(self, spec: InstanceSpec) -> Instance:
        """Make one instance."""

    def close(self) -> None:
        """Release what the instances share."""


class Backend(Protocol):
    """A kind of model. The class attributes tell the server how to run it before anything is loaded.

    Attributes:
        name: as in the configuration's ``backend``.
        process_per_instance: each instance has a worker process of its own (Python); otherwise the model's instances
            are threads of one worker and share its weights.
        preload: modules that the fork server imports once so that every worker has them at once.
    """

    name: str
    process_per_instance: bool
    preload: tuple[str, ...]

    def complete(self, config: Any, files: ModelFiles) -> None:
        """Fill in what the configuration (a ``ModelConfig`` message) leaves out, from the model itself; in place.

        Raises:
            ConfigError: the configuration contradicts the model.
        """

    def load(self, context: LoadContext) -> Model:
        """Load the model version.

        Raises:
            ShoalError: the model cannot be loaded; the message says why.
        """
