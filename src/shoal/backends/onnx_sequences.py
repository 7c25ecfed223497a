"""Sequence models in ONNX: which of a model's tensors the server makes and keeps, and whether its controls fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from shoal.config.spec import ControlKind, ControlSpec, ModelSpec
from shoal.datatypes import DataType
from shoal.errors import nearest

if TYPE_CHECKING:
    from shoal.backends.onnx_signature import OnnxTensor

_VALUES = {DataType.INT32: "int32_false_true", DataType.FP32: "fp32_false_true", DataType.BOOL: "bool_false_true"}


def sequence_tensors(config: Any) -> tuple[frozenset[str], frozenset[str]]:
    """The inputs and outputs of a model that its configuration's ``sequence_batching`` has, and clients do not see.

    Args:
        config: the ``ModelConfig`` message.
    """
    batching = config.sequence_batching
    controls = [tensor.name for tensor in batching.control_input]
    public = {tensor.name for tensor in config.output}
    inputs = frozenset([*controls, *(state.input_name for state in batching.state)])
    return inputs, frozenset(state.output_name for state in batching.state if state.output_name not in public)


def control_names(spec: ModelSpec) -> frozenset[str]:
    """The names of a model's control inputs."""
    return frozenset(spec.made_inputs[control.input].name for control in _controls(spec))


def state_outputs(spec: ModelSpec) -> tuple[str, ...]:
    """The outputs that the server needs of every run, whatever clients ask for."""
    states = spec.sequence.states if spec.sequence is not None else ()
    return tuple(spec.all_outputs[state.output].name for state in states)


def control_problems(spec: ModelSpec, provided: Sequence[OnnxTensor]) -> Iterator[str]:
    """What does not fit between the controls of a configuration and the inputs of the model."""
    by_name = {tensor.name: tensor for tensor in provided}
    shape = (-1, 1) if spec.max_batch_size > 0 else (1,)
    for control in _controls(spec):
        name = spec.made_inputs[control.input].name
        where = f"model '{spec.name}', control input '{name}' ({control.kind.value})"
        found = by_name.get(name)
        if found is None:
            has = ", ".join(f"'{tensor.name}'" for tensor in provided) or "none"
            yield f"{where}: the model has no input of this name{nearest(name, by_name)}; it has {has}"
            continue
        if found.datatype is not control.datatype:
            yield f"{where}: its type is {control.datatype.config}, but the model has {_type_advice(control, found)}"
        agree = len(found.sizes) == len(shape) and all(
            size in (-1, wanted) for size, wanted in zip(found.sizes, shape, strict=True)
        )
        if found.dims and not agree:
            yield f"{where}: a control input has the shape {list(shape)}, but the model has {list(found.sizes)}"


def _controls(spec: ModelSpec) -> Sequence[ControlSpec]:
    return spec.sequence.controls if spec.sequence is not None else ()


def _type_advice(control: ControlSpec, found: OnnxTensor) -> str:
    """The type that the model has, and what to write for it."""
    if found.datatype is None:
        return f"{found.onnx_type}, which cannot be served"
    if control.kind is ControlKind.CORRELATION_ID:
        return f"{found.datatype.config}; write data_type: {found.datatype.config}"
    if found.datatype in _VALUES:
        return f"{found.datatype.config}; use {_VALUES[found.datatype]}"
    return f"{found.datatype.config}; change the model, for a control is {', '.join(each.config for each in _VALUES)}"
