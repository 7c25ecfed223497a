"""Compiles ``sequence_batching``: its strategy, the inputs that the server makes, the states that it keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from shoal.config.check_sequences import INITIAL_STATE_FOLDER
from shoal.config.spec import (
    ControlKind,
    ControlSpec,
    DirectSpec,
    OldestSpec,
    SequenceSpec,
    StateSpec,
    TensorSpec,
)
from shoal.datatypes import BY_NUMBER, DataType, element_count
from shoal.errors import ConfigError

_VALUES = {
    "int32_false_true": DataType.INT32,
    "fp32_false_true": DataType.FP32,
    "bool_false_true": DataType.BOOL,
}


class CompiledSequence(NamedTuple):
    """The settings, and the tensors that the server makes and keeps for them."""

    spec: SequenceSpec
    made_inputs: tuple[TensorSpec, ...]
    made_outputs: tuple[TensorSpec, ...]


def compile_sequence(config: Any, model_dir: Path) -> CompiledSequence:
    """Compile a checked configuration that has ``sequence_batching``.

    Args:
        config: the ``ModelConfig`` message.
        model_dir: the model's folder, where the files of initial states are.

    Raises:
        ConfigError: the file of an initial state cannot be read any more.
    """
    batching = config.sequence_batching
    controls: list[ControlSpec] = []
    inputs: list[TensorSpec] = []
    for tensor in batching.control_input:
        controls += [_control(control, len(inputs)) for control in tensor.control]
        inputs.append(TensorSpec(tensor.name, controls[-1].datatype, (1,)))
    states: list[StateSpec] = []
    outputs: list[TensorSpec] = []
    public = [tensor.name for tensor in config.output]
    for state in batching.state:
        datatype, dims = BY_NUMBER[state.data_type], tuple(state.dims)
        if state.output_name in public:
            output = public.index(state.output_name)
        else:
            output = len(public) + len(outputs)
            outputs.append(TensorSpec(state.output_name, datatype, dims))
        initial, initial_dims = _initial(state, model_dir)
        single = state.use_same_buffer_for_input_output
        states.append(StateSpec(len(inputs), output, datatype, dims, initial, initial_dims, single))
        inputs.append(TensorSpec(state.input_name, datatype, dims))
    spec = SequenceSpec(
        strategy=_strategy(batching),
        max_idle_us=batching.max_sequence_idle_microseconds,
        controls=tuple(controls),
        states=tuple(states),
        iterative=batching.iterative_sequence,
    )
    return CompiledSequence(spec, tuple(inputs), tuple(outputs))


def _strategy(batching: Any) -> DirectSpec | OldestSpec:
    if not batching.HasField("oldest"):
        direct = batching.direct
        return DirectSpec(direct.max_queue_delay_microseconds, direct.minimum_slot_utilization)
    oldest = batching.oldest
    return OldestSpec(
        oldest.max_candidate_sequences,
        tuple(oldest.preferred_batch_size),
        oldest.max_queue_delay_microseconds,
        oldest.preserve_ordering,
    )


def _control(control: Any, index: int) -> ControlSpec:
    kind = ControlKind(control.Kind.Name(control.kind))
    if kind is ControlKind.CORRELATION_ID:
        return ControlSpec(kind, index, BY_NUMBER[control.data_type])
    for name, datatype in _VALUES.items():
        values = getattr(control, name)
        if values:
            return ControlSpec(kind, index, datatype, (values[0], values[1]))
    raise AssertionError("a checked control has values")


def _initial(state: Any, model_dir: Path) -> tuple[bytes, tuple[int, ...]]:
    """A state's bytes at the start of a sequence, and their shape; zeros when nothing is said of it."""
    datatype = BY_NUMBER[state.data_type]
    if not state.initial_state:
        dims = tuple(max(dimension, 1) if dimension < 0 else dimension for dimension in state.dims)
        return _zeros(datatype, dims), dims
    initial = state.initial_state[0]
    dims = tuple(initial.dims)
    if not initial.data_file:
        return _zeros(datatype, dims), dims
    path = model_dir / INITIAL_STATE_FOLDER / initial.data_file
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError([f"{path}: the initial state cannot be read: {error.strerror}"]) from None
    if datatype is not DataType.BYTES:
        data = data[: element_count(dims) * datatype.itemsize]  # what follows is left alone, as in Triton
    return data, dims


def _zeros(datatype: DataType, dims: tuple[int, ...]) -> bytes:
    """Zeros, or empty strings."""
    return bytes(element_count(dims) * (datatype.itemsize or 4))
