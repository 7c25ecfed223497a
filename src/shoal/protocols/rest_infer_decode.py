"""The body of a REST infer request to an ``InferHead`` and the tensors' bytes (rules 1 to 12 and 15).

A body is a JSON header and, behind it, the binary tensors in the order of the header's ``inputs``. The header alone
decides what the request means, so a caller may keep the head by the header's bytes (see ``is_repeatable``).
"""

from __future__ import annotations

import re

from shoal.datatypes import BY_WIRE, DataType
from shoal.errors import InternalError, InvalidArgumentError
from shoal.protocols import rest_json, rest_json_tensors, rest_parameters
from shoal.protocols.parameters import check_classes
from shoal.protocols.rest_json_access import (
    array_member,
    as_bool,
    as_string,
    as_uint,
    find,
    string_member,
)
from shoal.requests import Buffer, InferHead, InputHead, OutputHead, Parameter, Shape

HEADER_LENGTH = "Inference-Header-Content-Length"

_LENGTH = re.compile(r"[+-]?[0-9]+")
_COPY_NBYTES = 16 * 1024
"""A tensor up to this length is cheaper copied than viewed."""

_MAX_DIM = 2**63
_HANDLED_IN_INPUT = frozenset(
    {"binary_data_size", "shared_memory_region", "shared_memory_offset", "shared_memory_byte_size"}
)
_HANDLED_IN_OUTPUT = frozenset(
    {
        "binary_data",
        "classification",
        "shared_memory_region",
        "shared_memory_offset",
        "shared_memory_byte_size",
    }
)


def header_nbytes(value: str | None, body_nbytes: int) -> int:
    """How long the JSON header of a body is (rule 1); 0 for a raw binary request (rule 2).

    Args:
        value: the request's ``Inference-Header-Content-Length``, None when it has none.
        body_nbytes: the body's length, after decompression.

    Raises:
        InvalidArgumentError: the value is no number, or not in the body.
    """
    if value is None:
        return body_nbytes
    text = value.strip()
    if not _LENGTH.fullmatch(text):
        raise InvalidArgumentError(f"Unable to parse {HEADER_LENGTH}, got: {value}")
    nbytes = int(text) if len(text) <= 20 else -1
    if not 0 <= nbytes <= body_nbytes:
        raise InvalidArgumentError(f"inference header size should be in range (0, {body_nbytes}), got: {value}")
    return nbytes


def decode_head(header: Buffer, model_name: str, model_version: int) -> InferHead:
    """Decode the JSON header of an infer request.

    Args:
        header: the JSON part of the body; empty for a raw binary request (rule 2).
        model_name: from the path.
        model_version: from the path, or ``LATEST``.

    Raises:
        InternalError: the JSON is malformed or a field has the wrong type (rule 12).
        InvalidArgumentError: the request says something that cannot be.
        UnsupportedError: a tensor is in shared memory.
    """
    if not len(header):
        return InferHead(model_name, model_version, "", (), raw=True)
    request = rest_json.parse(header)
    has_id, request_id = find(request, "id")
    request_id = as_string(request_id, "Unable to parse 'id'") if has_id else ""
    has_parameters, value = find(request, "parameters")
    parameters: dict[str, Parameter] = {}
    binary_outputs = False
    if has_parameters:
        parameters, binary_outputs = rest_parameters.request(value)
    inputs = _inputs(array_member(request, "inputs"), request_id)
    outputs = _outputs(array_member(request, "outputs"), request_id) if find(request, "outputs")[0] else ()
    return InferHead(model_name, model_version, request_id, inputs, outputs, parameters, binary_outputs)


def is_repeatable(head: InferHead) -> bool:
    """Whether the head is worth keeping for the next request with the same header: no tensor's data stands in it."""
    return all(tensor.data is None for tensor in head.inputs)


def split_payload(head: InferHead, body: Buffer, start: int) -> list[Buffer]:
    """The binary tensors of a body, in the head's order, one for each input whose data is not in the header (rule 3).

    A large tensor is a view of the body; a small one is copied, because that is faster.

    Args:
        head: the decoded head.
        body: the whole body.
        start: where the header ends.

    Raises:
        InvalidArgumentError: the body has fewer or more bytes than the header says.
    """
    nbytes = len(body)
    if head.raw:
        return [body]
    payload: list[Buffer] = []
    for tensor in head.inputs:
        if tensor.data is not None:
            continue
        end = start + tensor.nbytes
        if end > nbytes:
            raise InvalidArgumentError(
                f"unexpected size for input '{tensor.name}', expecting {end - nbytes} additional bytes "
                f"for model '{head.model_name}'"
            )
        payload.append(bytes(body[start:end]) if tensor.nbytes <= _COPY_NBYTES else memoryview(body)[start:end])
        start = end
    if start != nbytes:
        raise InvalidArgumentError(f"unexpected additional input data for model '{head.model_name}'")
    return payload


def _inputs(items: list[object], request_id: str) -> tuple[InputHead, ...]:
    inputs: dict[str, InputHead] = {}
    for item in items:
        _check_source(item)
        name = string_member(item, "name")
        datatype = BY_WIRE.get(string_member(item, "datatype"))
        shape = _shape(array_member(item, "shape"))
        if name in inputs:
            raise InvalidArgumentError(f"{request_prefix(request_id)}input '{name}' already exists in request")
        if datatype is None:
            raise InvalidArgumentError(f"invalid datatype for input {name}")
        inputs[name] = _input(item, name, datatype, shape)
    return tuple(inputs.values())


def request_prefix(request_id: str) -> str:
    """How Triton begins a message about a request (2.3)."""
    return f"[request id: {request_id or '<id_unknown>'}] "


def _check_source(item: object) -> None:
    """An input has its data in exactly one place (rule 4)."""
    _, parameters = find(item, "parameters")
    sources = (
        ("data", find(item, "data")[0]),
        ("binary_data_size", find(parameters, "binary_data_size")[0]),
        ("shared_memory_region", find(parameters, "shared_memory_region")[0]),
    )
    given = [f" '{name}'" for name, present in sources if present]
    if len(given) != 1:
        raise InvalidArgumentError(
            "Input must set only one of the following fields: 'data', 'binary_data_size' in 'parameters', "
            f"'shared_memory_region' in 'parameters'. But {'set' + ''.join(given) if given else 'no field is set'}"
        )


def _shape(dims: list[object]) -> Shape:
    shape: list[int] = []
    for dim in dims:
        if type(dim) is not int or not 0 <= dim < _MAX_DIM:
            raise InternalError(
                "Unable to parse 'shape': attempt to access JSON non-unsigned-integer as unsigned-integer"
            )
        shape.append(dim)
    return tuple(shape)


def _input(item: object, name: str, datatype: DataType, shape: Shape) -> InputHead:
    _, parameters = find(item, "parameters")
    is_binary, size = find(parameters, "binary_data_size")
    others = _other_parameters(parameters, _HANDLED_IN_INPUT)
    if is_binary:
        nbytes = as_uint(size, "Unable to parse 'binary_data_size'")
        return InputHead(name, datatype, shape, nbytes, None, others)
    rest_parameters.check_shared_memory(parameters)
    data = rest_json_tensors.decode(name, datatype, shape, find(item, "data")[1])
    return InputHead(name, datatype, shape, 0, data, others)


def _outputs(items: list[object], request_id: str) -> tuple[OutputHead, ...]:
    outputs: dict[str, OutputHead] = {}
    for item in items:
        _, parameters = find(item, "parameters")
        _check_combination(parameters)
        name = string_member(item, "name")
        if name in outputs:
            raise InvalidArgumentError(f"{request_prefix(request_id)}output '{name}' already exists in request")
        outputs[name] = _output(name, parameters)
    return tuple(outputs.values())


def _check_combination(parameters: object) -> None:
    if not find(parameters, "shared_memory_region")[0]:
        return
    if find(parameters, "classification")[0]:
        raise InvalidArgumentError("Output can't set both 'shared_memory_region' and 'classification'")
    given, binary = find(parameters, "binary_data")
    if given and as_bool(binary, "Unable to set 'binary_data'"):
        raise InvalidArgumentError("Output can't set both 'shared_memory_region' and 'binary_data'")


def _output(name: str, parameters: object) -> OutputHead:
    classified, classes = find(parameters, "classification")
    count = check_classes(as_uint(classes, "Unable to set 'classification'")) if classified else 0
    rest_parameters.check_shared_memory(parameters)
    listed, binary = find(parameters, "binary_data")
    # A listed output is JSON unless it says otherwise, whatever the request's default is (rule 5).
    is_binary = as_bool(binary, "Unable to parse 'binary_data'") if listed else False
    return OutputHead(name, is_binary, count, _other_parameters(parameters, _HANDLED_IN_OUTPUT))


def _other_parameters(parameters: object, handled: frozenset[str]) -> dict[str, Parameter]:
    if not isinstance(parameters, dict):
        return {}
    plain = {name: rest_parameters.scalar(value) for name, value in parameters.items() if name not in handled}
    return {name: value for name, value in plain.items() if value is not None}
