"""Whether a request's inputs fit its model: names, number, batch size, types, shapes and byte counts (rules 27-35).

The texts are the real server's, and so is the order of the checks, which decides what is reported of a request with
several faults. Triton goes through the inputs in the order of a hash table, which for a few inputs is nearly always the
reverse of the request's; so do these checks.
"""

from __future__ import annotations

from shoal.config.spec import ModelSpec, TensorSpec
from shoal.datatypes import DataType, element_count
from shoal.errors import InvalidArgumentError
from shoal.requests import InferHead, InputHead, Shape
from shoal.scheduling.texts import request_prefix, shape_text

_VARIABLE = -1
_BATCH_NOTE = (
    "NOTE: Setting a non-zero max_batch_size in the model config requires a batch dimension to be prepended to each "
    "input shape. If you want to specify the full shape including the batch dim in your input dims config, try setting "
    "max_batch_size to zero. See the model configuration docs for more info on max_batch_size."
)


def check_unique(head: InferHead) -> None:
    """Refuse an input that is given twice (rule 15)."""
    seen: set[str] = set()
    for tensor in head.inputs:
        if tensor.name in seen:
            raise InvalidArgumentError(f"{request_prefix(head)}input '{tensor.name}' already exists in request")
        seen.add(tensor.name)


def check_input_count(head: InferHead, spec: ModelSpec) -> None:
    """Refuse too few or too many inputs (rule 31); like Triton it counts them only, so names are checked elsewhere."""
    given, most = len(head.inputs), len(spec.inputs)
    least = sum(not tensor.optional for tensor in spec.inputs)
    if least <= given <= most:
        return
    names = {tensor.name for tensor in head.inputs}
    got = ",".join(f"'{tensor.name}'" for tensor in reversed(head.inputs))
    missing = ",".join(f"'{tensor.name}'" for tensor in spec.inputs if not tensor.optional and tensor.name not in names)
    wanted = f"{most} inputs" if least == most else f"number of inputs between {least} and {most}"
    raise InvalidArgumentError(
        f"{request_prefix(head)}expected {wanted} but got {given} inputs for model '{spec.name}'. "
        # The missing bracket when nothing is missing is Triton's.
        f"Got input(s) [{got}], but missing required input(s) {f'[{missing}' if missing else ''}]. "
        "Please provide all required input(s)."
    )


def input_index(tensor: InputHead, spec: ModelSpec) -> int:
    """Which of the model's inputs this is (rule 31)."""
    for index, known in enumerate(spec.inputs):
        if known.name == tensor.name:
            return index
    raise InvalidArgumentError(f"unexpected inference input '{tensor.name}' for model '{spec.name}'")


def batch_size(head: InferHead, spec: ModelSpec) -> int:
    """The first dimension that all inputs share (rule 27); 0 when they have none or it is 0."""
    if not spec.max_batch_size:
        return 0
    rows = 0
    for tensor in reversed(head.inputs):
        if not has_batch_dimension(spec.inputs[input_index(tensor, spec)], spec):
            continue
        if not tensor.shape:
            raise _batch_error(head, spec, tensor, "has no shape but model requires batch dimension for")
        if rows == 0:
            rows = tensor.shape[0]
        elif tensor.shape[0] != rows:
            raise _batch_error(head, spec, tensor, "batch size does not match other inputs for")
    if rows > spec.max_batch_size:
        most = spec.max_batch_size
        raise InvalidArgumentError(
            f"{request_prefix(head)}inference request batch-size must be <= {most} for '{spec.name}'"
        )
    return rows


def _batch_error(head: InferHead, spec: ModelSpec, tensor: InputHead, what: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"{request_prefix(head)}input '{tensor.name}' {what} '{spec.name}'")


def backend_shape(head: InferHead, spec: ModelSpec, tensor: InputHead, rows: int) -> Shape:
    """The input's shape as the backend sees it, after a check of its type and shape (rules 29 and 33)."""
    known = spec.inputs[input_index(tensor, spec)]
    if tensor.datatype is not known.datatype:
        raise InvalidArgumentError(
            f"{request_prefix(head)}inference input '{tensor.name}' data-type is '{tensor.datatype.wire}', "
            f"but model '{spec.name}' expects '{known.datatype.wire}'"
        )
    batched = has_batch_dimension(known, spec)
    given = tensor.shape[1:] if batched else tensor.shape
    _check_dims(head, spec, tensor, known, given)
    dims = reshaped(known, given)
    return (rows, *dims) if batched and rows else dims


def has_batch_dimension(known: TensorSpec, spec: ModelSpec) -> bool:
    """Whether the first dimension of this input in a request is the batch; a shape tensor has none."""
    return spec.max_batch_size > 0 and not known.is_shape_tensor


def _check_dims(head: InferHead, spec: ModelSpec, tensor: InputHead, known: TensorSpec, given: Shape) -> None:
    """Refuse a shape (without its batch dimension) that the configuration does not allow."""
    same_rank = len(given) == len(known.dims)
    if same_rank and min(tensor.shape, default=0) < 0:
        raise InvalidArgumentError(
            f"{request_prefix(head)}All input dimensions should be specified for input '{tensor.name}' "
            f"for model '{spec.name}', got {shape_text(tensor.shape)}"
        )
    if same_rank and all(want in (_VARIABLE, got) for want, got in zip(known.dims, given, strict=True)):
        return
    batched = spec.max_batch_size > 0
    expected = (_VARIABLE, *known.dims) if batched else known.dims
    raise InvalidArgumentError(
        f"{request_prefix(head)}unexpected shape for input '{tensor.name}' for model '{spec.name}'. "
        f"Expected {shape_text(expected)}, got {shape_text(tensor.shape)}. {_BATCH_NOTE if batched else ''}"
    )


def reshaped(known: TensorSpec, given: Shape) -> Shape:
    """The dims for the backend: each variable one of ``reshape`` is the next variable one of the request (rule 33)."""
    if known.reshape is None:
        return given
    variable = (got for want, got in zip(known.dims, given, strict=True) if want == _VARIABLE)
    return tuple(next(variable) if dimension == _VARIABLE else dimension for dimension in known.reshape)


def check_nbytes(head: InferHead, spec: ModelSpec, tensor: InputHead, shape: Shape) -> None:
    """Refuse a tensor whose bytes are not those of its shape (rule 30); elements of BYTES are walked elsewhere."""
    if tensor.datatype is DataType.BYTES:
        return
    expected = element_count(shape) * tensor.datatype.itemsize
    given = tensor.nbytes if tensor.data is None else len(tensor.data)
    if given != expected:
        raise InvalidArgumentError(
            f"{request_prefix(head)}input byte size mismatch for input '{tensor.name}' for model '{spec.name}'. "
            f"Expected {expected}, got {given}"
        )


def check_has_rows(head: InferHead, spec: ModelSpec, rows: int) -> None:
    """Refuse a batch dimension of 0, which Triton takes and then hangs on, or fails in the backend."""
    if rows == 0 and any(has_batch_dimension(spec.inputs[input_index(tensor, spec)], spec) for tensor in head.inputs):
        raise InvalidArgumentError(
            f"{request_prefix(head)}inference request batch-size must be >= 1 for '{spec.name}'; "
            "the first dimension of every input is the batch"
        )
