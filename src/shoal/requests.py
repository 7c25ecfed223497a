"""An inference request and its response, as they pass through the floors.

A request has two parts. Its *head* is what it says of itself: model, names, types, shapes, requested outputs,
parameters. Its *payload* is the tensors' bytes. Clients repeat a head byte for byte, so a head is decoded once
(``protocols``), checked against its model once (``scheduling.admission``, which makes a ``RequestPlan``), and from then
on found by its bytes; only the payload is new with each request.

::

    bytes -> InferHead -> RequestPlan -> InferRequest(plan, inputs) -> ... -> InferResponse(layout, data)

Tensors are wire bytes (see ``datatypes``), in any object with the buffer protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, runtime_checkable

from shoal.datatypes import DataType
from shoal.errors import ShoalError

Buffer = bytes | bytearray | memoryview
Parameter = bool | int | float | str
Shape = tuple[int, ...]

LATEST = -1
"""The model version of a request that names none."""


@dataclass(frozen=True, slots=True)
class InputHead:
    """One input tensor as the client describes it.

    Attributes:
        name: the input's name.
        datatype: its element type.
        shape: its shape, the batch dimension included.
        nbytes: length of its wire bytes in the payload; 0 when ``data`` is set.
        data: its wire bytes when they stood in the head itself (JSON data, typed gRPC contents), else None.
        parameters: other parameters of the tensor.
    """

    name: str
    datatype: DataType
    shape: Shape
    nbytes: int
    data: bytes | None = None
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OutputHead:
    """One output that the client asks for.

    Attributes:
        name: the output's name.
        binary: whether its data is to come as bytes (always so over gRPC).
        classification: how many top classes to return in place of the tensor; 0 for the tensor itself.
        parameters: other parameters of the output.
    """

    name: str
    binary: bool = True
    classification: int = 0
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InferHead:
    """All that an infer request says besides its tensors' bytes.

    Attributes:
        model_name: the model.
        model_version: its version, or ``LATEST``.
        request_id: the client's id, ``""`` when none.
        inputs: in the order of the request, which is the order of the payload.
        outputs: the outputs asked for; empty for all of them.
        parameters: the request's own parameters, those with a meaning (``priority``, ``timeout``, ...) included.
        binary_outputs: whether an output not listed in ``outputs`` comes as bytes.
        raw: a raw binary request (HTTP rule 2): the payload is the one input's data, and ``inputs`` is empty.
    """

    model_name: str
    model_version: int
    request_id: str
    inputs: tuple[InputHead, ...]
    outputs: tuple[OutputHead, ...] = ()
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    binary_outputs: bool = True
    raw: bool = False


@dataclass(frozen=True, slots=True)
class PlannedInput:
    """One input of a plan, checked.

    Attributes:
        index: which of the model's inputs it is.
        shape: its shape as the backend sees it (``reshape`` applied), the batch dimension included.
        position: which of the request's payload buffers holds it; -1 when ``data`` does.
        data: its wire bytes when they came with the head.
    """

    index: int
    shape: Shape
    position: int
    data: bytes | None = None


class Sink(Protocol):
    """What takes an admitted request: a model version that is being served."""

    def submit(self, request: InferRequest) -> None:
        """Queue the request; it is answered through its responder, also when it cannot be queued."""

    def cancel(self, request: InferRequest) -> None:
        """The client is gone or cancelled: a queued request is answered with CANCELLED, a running one is marked."""

    def abandon(self, correlation_id: int | str, begun_ns: int) -> None:
        """The client of a sequence is gone: it ends, unless it was begun anew since.

        Args:
            correlation_id: its id.
            begun_ns: when the request with which that client began it had arrived.
        """


@runtime_checkable
class HoldingSink(Sink, Protocol):
    """A sink whose models can be made to wait for a client that does not keep up with their responses."""

    def hold(self, request: InferRequest, *, held: bool) -> None:
        """Have the model of a decoupled request wait with its next response, or go on."""


def _no_labels(name: str) -> tuple[str, ...]:
    del name
    return ()


@dataclass(frozen=True, slots=True)
class SequencePart:
    """A request's place in a sequence.

    Attributes:
        correlation_id: the sequence's id, as the client gave it.
        start: whether it is the first request of the sequence.
        end: whether it is the last.
    """

    correlation_id: int | str
    start: bool = False
    end: bool = False


@dataclass(slots=True, eq=False)
class RequestPlan:
    """What is the same for every request with this head, after it was checked against its model.

    Attributes:
        head: the decoded head, for the encoder.
        sink: the model version that runs it.
        rows: its batch size; 1 for a model without batching.
        inputs: in the order of the model's inputs; absent optional inputs are left out.
        outputs: indices of the model's outputs to return, in the order to return them.
        batch_key: requests may share a batch only if their keys are equal (shape rule, same set of optional inputs).
        payload_nbytes: length of each payload buffer, in the order of the request.
        bytes_inputs: the inputs whose elements must be walked for every request (BYTES): positions in ``inputs``.
        priority: the priority level asked for; 0 when none.
        timeout_us: the queue timeout asked for, in microseconds; 0 when none.
        batched: whether the first dimension of the model's tensors is the batch.
        decoupled: whether there may be any number of answers.
        labels: the class labels of an output, by its name.
        prepared: for execution: what it worked out of this plan.
        sequence: the sequence that it belongs to, None for a model without sequences.
        deadline_us: how long after its arrival it must be answered, whatever its stage; 0 for no deadline.
        nbytes: the bytes of its tensors, which take memory as long as it waits.
        cache_key: for the response cache: this plan's part of its requests' keys.
    """

    head: InferHead
    sink: Sink
    rows: int
    inputs: tuple[PlannedInput, ...]
    outputs: tuple[int, ...]
    batch_key: tuple[object, ...]
    payload_nbytes: tuple[int, ...]
    bytes_inputs: tuple[int, ...] = ()
    priority: int = 0
    timeout_us: int = 0
    batched: bool = True
    decoupled: bool = False
    labels: Callable[[str], tuple[str, ...]] = _no_labels
    prepared: object = None
    sequence: SequencePart | None = None
    deadline_us: int = 0
    cache_key: object = None
    nbytes: int = field(init=False)

    def __post_init__(self) -> None:
        inline = [planned.data for planned in self.inputs if planned.data is not None]
        self.nbytes = sum(self.payload_nbytes) + sum(map(len, inline))


class RequestState(Enum):
    """Where a request is in its life."""

    NEW = "new"
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"


class Responder(Protocol):
    """Who asked: is told of the end of every submitted request exactly once.

    The end is ``completed``, ``failed`` or, from a decoupled model, ``responded`` with ``final``.
    """

    def completed(self, request: InferRequest, response: InferResponse) -> None:
        """The answer."""

    def failed(self, request: InferRequest, error: ShoalError) -> None:
        """The error in place of an answer."""

    def responded(self, request: InferRequest, answer: InferResponse | ShoalError | None, *, final: bool) -> None:
        """One of the answers of a decoupled model.

        Args:
            request: what it answers.
            answer: a response, an error in place of one, or None with ``final``: nothing more came.
            final: whether it is the last call for this request.
        """


class Nobody:
    """A responder that nobody listens to: for rows that only fill a batch."""

    def completed(self, request: InferRequest, response: InferResponse) -> None:
        """Forget the answer."""

    def failed(self, request: InferRequest, error: ShoalError) -> None:
        """Forget the error."""

    def responded(self, request: InferRequest, answer: InferResponse | ShoalError | None, *, final: bool) -> None:
        """Forget one of the answers."""


NOBODY = Nobody()


class InferRequest:
    """One request on its way.

    Attributes:
        plan: what its head says.
        payload: the tensors' bytes, one buffer per input that has its data in the payload, in the head's order.
        responder: gets the answer.
        context: the responder's own: the HTTP exchange or gRPC call.
        arrival_ns: when its last byte had arrived (monotonic).
        queued_ns: when it entered the queue.
        state: queued, running or done.
        cancelled: the client is gone; set while it runs.
    """

    __slots__ = ("arrival_ns", "cancelled", "context", "payload", "plan", "queued_ns", "responder", "state")

    def __init__(
        self, plan: RequestPlan, payload: Sequence[Buffer], responder: Responder, context: object, arrival_ns: int
    ) -> None:
        self.plan = plan
        self.payload = payload
        self.responder = responder
        self.context = context
        self.arrival_ns = arrival_ns
        self.queued_ns = 0
        self.state = RequestState.NEW
        self.cancelled = False


class InnerRequest(InferRequest):
    """A request that is part of another one, such as a step of an ensemble.

    It is taken also by a model that takes no more requests from clients, for the one it is part of was taken before.

    Attributes:
        compute_ns: how long the input, the inference and the output of its batch took; told before it is answered.
        client_ns: when the client's request arrived of which it is a part.
    """

    __slots__ = ("client_ns", "compute_ns")

    def __init__(
        self, plan: RequestPlan, payload: Sequence[Buffer], responder: Responder, context: object, arrival_ns: int
    ) -> None:
        InferRequest.__init__(self, plan, payload, responder, context, arrival_ns)
        self.compute_ns = NOTHING_COMPUTED
        self.client_ns = arrival_ns


def client_ns(request: InferRequest) -> int:
    """When the client's request arrived that this one is, or is a part of."""
    return request.client_ns if isinstance(request, InnerRequest) else request.arrival_ns


NOTHING_COMPUTED = (0, 0, 0)
"""``InnerRequest.compute_ns`` of a request that was not run, such as one that the response cache answered."""


@dataclass(frozen=True, slots=True)
class TensorHead:
    """Name, type and shape of a tensor in a response; the shape has the batch dimension."""

    name: str
    datatype: DataType
    shape: Shape


@dataclass(frozen=True, slots=True, eq=False)
class ResponseLayout:
    """What a response says besides its bytes; shared by all responses of the same model, outputs and shapes.

    Attributes:
        model_name: the model that answered.
        model_version: the version that answered.
        outputs: the tensors, in the order of the data.
        encoded: for the encoders: what they made of this layout before, by a key of their own.
    """

    model_name: str
    model_version: int
    outputs: tuple[TensorHead, ...]
    encoded: dict[object, object] = field(default_factory=dict)


class InferResponse:
    """One answer: a layout, the outputs' wire bytes in the layout's order, and parameters that the model set."""

    __slots__ = ("data", "layout", "parameters")

    def __init__(
        self, layout: ResponseLayout, data: Sequence[Buffer], parameters: Mapping[str, Parameter] | None = None
    ) -> None:
        self.layout = layout
        self.data = data
        self.parameters = parameters
