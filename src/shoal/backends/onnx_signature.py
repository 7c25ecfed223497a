"""What an ONNX model says of its inputs and outputs, and whether a configuration agrees with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from shoal.backends.onnx_sequences import control_names, control_problems
from shoal.config.spec import ModelSpec, TensorSpec
from shoal.datatypes import DataType
from shoal.errors import ConfigError, nearest
from shoal.requests import Shape

DATATYPES = {
    "tensor(bool)": DataType.BOOL,
    "tensor(uint8)": DataType.UINT8,
    "tensor(uint16)": DataType.UINT16,
    "tensor(uint32)": DataType.UINT32,
    "tensor(uint64)": DataType.UINT64,
    "tensor(int8)": DataType.INT8,
    "tensor(int16)": DataType.INT16,
    "tensor(int32)": DataType.INT32,
    "tensor(int64)": DataType.INT64,
    "tensor(float16)": DataType.FP16,
    "tensor(float)": DataType.FP32,
    "tensor(double)": DataType.FP64,
    "tensor(string)": DataType.BYTES,
    "tensor(bfloat16)": DataType.BF16,
}
"""ONNX Runtime's names of the element types that Triton has."""


@dataclass(frozen=True, slots=True)
class OnnxTensor:
    """One input or output of an ONNX model.

    Attributes:
        name: its name.
        onnx_type: its type as ONNX Runtime writes it, such as ``tensor(float)``.
        datatype: its element type; None for what is no tensor (sequences, maps) or has a type that Triton lacks.
        dims: its shape; a text or None is variable, and equal texts mean equal sizes. Empty for a scalar, and for a
            tensor of which the model does not even tell the rank: ONNX Runtime makes no difference.
    """

    name: str
    onnx_type: str
    datatype: DataType | None
    dims: tuple[int | str | None, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Its shape as configurations write it: -1 for what is variable."""
        return tuple(size if isinstance(size, int) and size >= 0 else -1 for size in self.dims)

    @property
    def batchable(self) -> bool:
        """Whether its first dimension may be a batch."""
        return bool(self.dims) and self.sizes[0] == -1


@dataclass(frozen=True, slots=True)
class Signature:
    """All inputs and outputs of an ONNX model.

    Attributes:
        inputs: the inputs that every run needs.
        optional_inputs: initializers that an input may override.
        outputs: the outputs.
    """

    inputs: tuple[OnnxTensor, ...]
    optional_inputs: tuple[OnnxTensor, ...]
    outputs: tuple[OnnxTensor, ...]


def read_signature(session: Any) -> Signature:
    """The signature of a loaded ``InferenceSession``."""
    return Signature(
        tuple(_tensor(argument) for argument in session.get_inputs()),
        tuple(_tensor(argument) for argument in session.get_overridable_initializers()),
        tuple(_tensor(argument) for argument in session.get_outputs()),
    )


def _tensor(argument: Any) -> OnnxTensor:
    return OnnxTensor(argument.name, argument.type, DATATYPES.get(argument.type), tuple(argument.shape or ()))


def check_signature(spec: ModelSpec, signature: Signature) -> None:
    """Check a configuration against the model.

    Raises:
        ConfigError: they disagree; one line per problem, naming the tensor and what both sides say.
    """
    batched = spec.max_batch_size > 0
    accepted = (*signature.inputs, *signature.optional_inputs)
    scattered, controls = scattered_outputs(spec), control_names(spec)
    inputs = [tensor for tensor in spec.all_inputs if tensor.name not in controls]
    problems = [
        *_missing_inputs(spec, signature),
        *control_problems(spec, accepted),
        *_problems(spec.name, "input", inputs, accepted, batched),
        *_problems(spec.name, "output", spec.all_outputs, signature.outputs, batched, shapeless=scattered),
    ]
    if problems:
        raise ConfigError(problems)


def scattered_outputs(spec: ModelSpec) -> frozenset[str]:
    """The outputs that are cut by the shapes of an input: theirs is not that of the model's, as in Triton."""
    return frozenset(spec.outputs[index].name for entry in spec.batch_outputs for index in entry.outputs)


def scalars(spec: ModelSpec, configured: Sequence[TensorSpec], provided: Sequence[OnnxTensor]) -> dict[str, Shape]:
    """The tensors that are scalars for the model and hold one element for clients, with their dims for clients.

    Only a model without batching has them: with batching, a scalar is said with ``reshape``.
    """
    if spec.max_batch_size > 0:
        return {}
    without_dims = {tensor.name for tensor in provided if not tensor.dims}
    return {
        tensor.name: tensor.dims
        for tensor in configured
        if tensor.name in without_dims and tensor.dims and all(size == 1 for size in tensor.dims)
    }


def _missing_inputs(spec: ModelSpec, signature: Signature) -> Iterator[str]:
    configured = {tensor.name for tensor in spec.all_inputs}
    for tensor in signature.inputs:
        if tensor.name not in configured:
            yield (
                f"model '{spec.name}': the model needs input '{tensor.name}', which the configuration does not have; "
                f"it has {_names(spec.inputs)}"
            )


def _problems(
    model: str,
    kind: str,
    configured: Sequence[TensorSpec],
    provided: Sequence[OnnxTensor],
    batched: bool,
    *,
    shapeless: frozenset[str] = frozenset(),
) -> Iterator[str]:
    by_name = {tensor.name: tensor for tensor in provided}
    for tensor in configured:
        found = by_name.get(tensor.name)
        if found is None:
            yield unknown_tensor(model, kind, tensor.name, provided)
            continue
        where = f"model '{model}', {kind} '{tensor.name}'"
        if found.datatype is None:
            yield f"{where}: the model has type {found.onnx_type}, which cannot be served; only tensors can"
        elif found.datatype is not tensor.datatype:
            yield (
                f"{where}: the configuration's data_type is {tensor.datatype.config}, "
                f"but the model has {found.datatype.config}"
            )
        if tensor.allow_ragged_batch:
            yield from _ragged_problems(where, found)
        elif tensor.name not in shapeless:
            yield from _shape_problems(where, tensor, found, batched)


def _shape_problems(where: str, tensor: TensorSpec, found: OnnxTensor, batched: bool) -> Iterator[str]:
    if not found.dims:
        return  # a scalar or of unknown rank: running the model will tell
    if batched and not found.batchable:
        yield (
            f"{where}: max_batch_size is above 0, so that the model's first dimension must be variable (-1), "
            f"but the model has shape {list(found.sizes)}; set max_batch_size: 0"
        )
        return
    dims = tensor.dims if tensor.reshape is None else tensor.reshape
    full = (-1, *dims) if batched else tuple(dims)
    agree = len(full) == len(found.sizes) and all(
        -1 in (ours, theirs) or ours == theirs for ours, theirs in zip(full, found.sizes, strict=True)
    )
    if not agree:
        meaning = " (the batch dimension, which max_batch_size adds, and dims)" if batched else ""
        yield (
            f"{where}: the configuration's shape is {list(full)}{meaning}, but the model has {list(found.sizes)}; "
            f"write dims: {list(found.sizes[1:] if batched else found.sizes)}"
        )


def _ragged_problems(where: str, found: OnnxTensor) -> Iterator[str]:
    """A ragged input is the elements of all requests end to end, so the model takes one dimension of any size."""
    if found.sizes != (-1,):
        yield (
            f"{where}: with allow_ragged_batch the model must take one variable dimension, [-1], "
            f"but it has shape {list(found.sizes)}; remove allow_ragged_batch, or pad the input (parameter 'padding')"
        )


def unknown_tensor(model: str, kind: str, name: str, provided: Sequence[OnnxTensor]) -> str:
    """The text for a configured input or output that the model does not have."""
    hint = nearest(name, [tensor.name for tensor in provided])
    return f"model '{model}': the model has no {kind} '{name}'{hint}; it has {_names(provided)}"


def _names(tensors: Sequence[OnnxTensor] | Sequence[TensorSpec]) -> str:
    return ", ".join(f"'{tensor.name}'" for tensor in tensors) or "none"
