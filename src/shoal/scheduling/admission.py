"""Admission: a decoded request against its model, once per head, and what must be looked at for every payload.

``plan_request`` does all that the head decides; its plan is kept by the head's bytes, so that a client which repeats
its head pays for the checks once. ``check_payload`` does what depends on the data and runs for every request.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

from shoal.config.spec import ModelSpec, TensorSpec
from shoal.datatypes import DataType, element_count
from shoal.errors import InvalidArgumentError
from shoal.requests import (
    Buffer,
    InferHead,
    InferRequest,
    InputHead,
    PlannedInput,
    RequestPlan,
    SequencePart,
    Shape,
    Sink,
)
from shoal.scheduling.batch_key import batch_key
from shoal.scheduling.bytes_check import LENGTH_NBYTES, elements_error, elements_fit
from shoal.scheduling.input_checks import (
    backend_shape,
    batch_size,
    check_has_rows,
    check_input_count,
    check_nbytes,
    check_unique,
    has_batch_dimension,
    input_index,
    reshaped,
)
from shoal.scheduling.length_checks import check_lengths
from shoal.scheduling.output_checks import check_classification, requested_outputs
from shoal.scheduling.schedule_policy import deadline_us, priority_level, queue_timeout_us
from shoal.scheduling.sequence_admission import check_id_length, passed_on, sequence_part
from shoal.scheduling.texts import request_prefix

_RAW_NAME = "raw_input"
_write_length = Struct("<I").pack


def plan_request(head: InferHead, spec: ModelSpec, sink: Sink) -> RequestPlan:
    """Check a request against its model and plan its run.

    Args:
        head: the decoded head; ``raw`` is False.
        spec: the model.
        sink: the model version that will run it.

    Raises:
        InvalidArgumentError: the request does not fit the model, in Triton's words (rules 15 and 27-35).
    """
    check_id_length(head)
    check_unique(head)
    outputs = requested_outputs(head, spec)
    check_input_count(head, spec)
    rows = batch_size(head, spec)
    shapes = {tensor.name: backend_shape(head, spec, tensor, rows) for tensor in reversed(head.inputs)}
    for tensor in reversed(head.inputs):
        check_nbytes(head, spec, tensor, shapes[tensor.name])
    check_has_rows(head, spec, rows)
    check_classification(head, spec)
    positions = {tensor.name: position for position, tensor in enumerate(_payload_inputs(head))}
    inputs = [
        PlannedInput(input_index(tensor, spec), shapes[tensor.name], positions.get(tensor.name, -1), tensor.data)
        for tensor in head.inputs
    ]
    _check_bytes_in_head(head, inputs)
    inputs.sort(key=_index)
    if spec.padding is not None:
        check_lengths(head, inputs, spec, spec.padding)
    return RequestPlan(
        head=head,
        sink=sink,
        rows=max(1, rows),
        inputs=tuple(inputs),
        outputs=outputs,
        batch_key=batch_key(inputs, spec),
        payload_nbytes=tuple(tensor.nbytes for tensor in _payload_inputs(head)),
        bytes_inputs=tuple(place for place, planned in enumerate(inputs) if _is_walked(planned, spec)),
        priority=priority_level(head, spec),
        timeout_us=queue_timeout_us(head),
        deadline_us=deadline_us(head),
        sequence=_sequence(head, spec, rows),
    )


def plan_raw_request(head: InferHead, payload_nbytes: int, spec: ModelSpec, sink: Sink) -> RequestPlan:
    """Check a raw binary request (rule 2) against its model and plan its run; the body's length decides its shape.

    A plan is good for every body of the same length; ``raw_payload`` makes the payload of a body.

    Args:
        head: the decoded head, with ``raw`` set and no inputs.
        payload_nbytes: length of the request's body.
        spec: the model.
        sink: the model version that will run it.

    Raises:
        InvalidArgumentError: the request does not fit the model, in Triton's words.
    """
    if len(spec.inputs) != 1:
        raise InvalidArgumentError(
            f"{request_prefix(head)}Raw request must only have 1 input (found 1) to be deduced "
            f"but got {len(spec.inputs)} inputs in '{spec.name}' model configuration"
        )
    known = spec.inputs[0]
    dims = reshaped(known, _raw_dims(head, known, payload_nbytes))
    shape = (1, *dims) if has_batch_dimension(known, spec) else dims
    nbytes = payload_nbytes + (LENGTH_NBYTES if known.datatype is DataType.BYTES else 0)
    check_nbytes(head, spec, InputHead(_RAW_NAME, known.datatype, shape, nbytes), shape)
    outputs = requested_outputs(head, spec)
    check_classification(head, spec)
    inputs = (PlannedInput(0, shape, 0),)
    if spec.padding is not None:
        check_lengths(head, inputs, spec, spec.padding)
    return RequestPlan(
        head=head,
        sink=sink,
        rows=1,
        inputs=inputs,
        outputs=outputs,
        batch_key=batch_key(inputs, spec),
        payload_nbytes=(nbytes,),
        priority=priority_level(head, spec),
        timeout_us=queue_timeout_us(head),
        deadline_us=deadline_us(head),
        sequence=_sequence(head, spec, 1),
    )


def raw_payload(plan: RequestPlan, body: Buffer) -> list[Buffer]:
    """The payload of a raw binary request: its body, which gets its 4-byte length in front for a BYTES input."""
    nbytes = len(body)
    return [body] if plan.payload_nbytes[0] == nbytes else [b"".join((_write_length(nbytes), body))]


def check_payload(request: InferRequest) -> None:
    """Check what depends on the data; to be called for each request whose ``plan.bytes_inputs`` is not empty.

    Raises:
        InvalidArgumentError: the elements of a BYTES input are not those of its shape, in Triton's words (rule 30).
    """
    plan = request.plan
    for place in plan.bytes_inputs:
        planned = plan.inputs[place]
        data = request.payload[planned.position]
        count = element_count(planned.shape)
        if not elements_fit(data, count):
            raise elements_error(plan.head, _payload_inputs(plan.head)[planned.position].name, data, count)


def _sequence(head: InferHead, spec: ModelSpec, rows: int) -> SequencePart | None:
    """The request's place in a sequence, where the model keeps sequences or may pass it on."""
    if spec.sequence is not None:
        return sequence_part(head, spec, spec.sequence, rows)
    return None if spec.ensemble is None else passed_on(head)


def _payload_inputs(head: InferHead) -> list[InputHead]:
    """The inputs that have their data in the payload, in its order."""
    return [tensor for tensor in head.inputs if tensor.data is None]


def _index(planned: PlannedInput) -> int:
    return planned.index


def _is_walked(planned: PlannedInput, spec: ModelSpec) -> bool:
    """Whether the elements must be walked for every request: BYTES that are not part of the head."""
    return planned.data is None and spec.inputs[planned.index].datatype is DataType.BYTES


def _check_bytes_in_head(head: InferHead, inputs: Sequence[PlannedInput]) -> None:
    """Walk the elements of BYTES inputs whose data stood in the head, once for all requests with this head."""
    for tensor, planned in zip(head.inputs, inputs, strict=True):
        if tensor.data is not None and tensor.datatype is DataType.BYTES:
            count = element_count(planned.shape)
            if not elements_fit(tensor.data, count):
                raise elements_error(head, tensor.name, tensor.data, count)


def _raw_dims(head: InferHead, known: TensorSpec, payload_nbytes: int) -> Shape:
    """The input's shape without the batch dimension, its one variable dimension solved from the byte count."""
    variable = known.dims.count(-1)
    if variable > 1:
        raise InvalidArgumentError(
            f"{request_prefix(head)}The shape of the raw input '{known.name}' can not be deduced "
            "because there are more than one variable-sized dimension"
        )
    fixed_count = element_count(tuple(dimension for dimension in known.dims if dimension != -1))
    if known.datatype is DataType.BYTES:
        if variable or fixed_count != 1:
            raise InvalidArgumentError(
                f"{request_prefix(head)}For BYTE datatype raw input '{known.name}', the model must have input shape [1]"
            )
        return known.dims
    solved = payload_nbytes // fixed_count // known.datatype.itemsize
    return tuple(solved if dimension == -1 else dimension for dimension in known.dims)
