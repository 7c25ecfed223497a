"""The rules for sequence batching: strategy, control inputs (rule 46), states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from shoal.config.problem import Problem, Source
from shoal.datatypes import BY_CONFIG, BY_NUMBER, DataType, element_count

INITIAL_STATE_FOLDER = "initial_state"
"""Where in a model's folder the files of initial states are."""

_CORRELATION_ID_TYPES = {4: "TYPE_UINT32", 5: "TYPE_UINT64", 8: "TYPE_INT32", 9: "TYPE_INT64", 13: "TYPE_STRING"}
_VALUE_LISTS = ("int32_false_true", "fp32_false_true", "bool_false_true")
_CONTROLS = "sequence_batching.control_input"
_STATES = "sequence_batching.state"


def sequence_batching_problems(config: Any, source: Source, model_dir: Path) -> list[Problem]:
    """What is wrong with ``sequence_batching``, its tensors' agreement with the others aside."""
    if not config.HasField("sequence_batching"):
        return []
    batching = config.sequence_batching
    return [
        *_strategy_problems(batching, config.max_batch_size, source),
        *_control_problems(batching, source),
        *_state_problems(batching, source, model_dir),
        *_name_problems(batching, source),
    ]


def _strategy_problems(batching: Any, max_batch_size: int, source: Source) -> Iterator[Problem]:
    for index, size in enumerate(batching.oldest.preferred_batch_size):
        if not 0 < size <= max_batch_size:
            text = f"must be from 1 to max_batch_size ({max_batch_size}), found {size}"
            yield source.problem(f"sequence_batching.oldest.preferred_batch_size[{index}]", text)
    candidates = batching.oldest.max_candidate_sequences
    if candidates < 0:
        text = f"must be 0 (as many as max_batch_size) or more, found {candidates}"
        yield source.problem("sequence_batching.oldest.max_candidate_sequences", text)
    utilization = batching.direct.minimum_slot_utilization
    if not 0 <= utilization <= 1:
        text = f"must be from 0 to 1, found {utilization:g}"
        yield source.problem("sequence_batching.direct.minimum_slot_utilization", text)


def _name_problems(batching: Any, source: Source) -> Iterator[Problem]:
    """The inputs that the server makes need names of their own, and so do the outputs that it keeps."""
    inputs = [(f"{_CONTROLS}[{index}].name", tensor.name) for index, tensor in enumerate(batching.control_input)]
    inputs += [(f"{_STATES}[{index}].input_name", state.input_name) for index, state in enumerate(batching.state)]
    outputs = [(f"{_STATES}[{index}].output_name", state.output_name) for index, state in enumerate(batching.state)]
    for places in (inputs, outputs):
        first: dict[str, str] = {}
        for path, name in places:
            if not name:
                yield source.problem(path, "must be given")
            elif name in first:
                yield source.problem(path, f"'{name}' stands in this configuration for the second time: {first[name]}")
            first.setdefault(name, path)


# --- controls --------------------------------------------------------------------------------------------------------


def _control_problems(batching: Any, source: Source) -> Iterator[Problem]:
    kinds: set[int] = set()
    for index, tensor in enumerate(batching.control_input):
        path = f"{_CONTROLS}[{index}].control"
        if len(tensor.control) != 1:
            text = f"an input has exactly 1 control, found {len(tensor.control)}; give each control an input of its own"
            yield source.problem(path, text)
        for number, control in enumerate(tensor.control):
            place = f"{path}[{number}]"
            if control.kind in kinds:
                kind = control.Kind.Name(control.kind)
                yield source.problem(f"{place}.kind", f"{kind} stands in this configuration for the second time")
            kinds.add(control.kind)
            yield from _values_problems(control, place, source)


def _values_problems(control: Any, path: str, source: Source) -> Iterator[Problem]:
    kind = control.Kind.Name(control.kind)
    given = [name for name in _VALUE_LISTS if getattr(control, name)]
    if control.kind == control.CONTROL_SEQUENCE_CORRID:
        if given:
            yield source.problem(f"{path}.{given[0]}", f"{kind} has a data_type and no false and true values")
        if control.data_type not in _CORRELATION_ID_TYPES:
            allowed = ", ".join(_CORRELATION_ID_TYPES.values())
            yield source.problem(f"{path}.data_type", f"must be one of {allowed} for {kind}")
    elif len(given) != 1:
        found = f"found {' and '.join(given)}" if given else "found none"
        yield source.problem(path, f"{kind} needs exactly one of {', '.join(_VALUE_LISTS)}; {found}")
    elif len(getattr(control, given[0])) != 2:
        count = len(getattr(control, given[0]))
        yield source.problem(f"{path}.{given[0]}", f"needs two values, for false and for true, found {count}")


# --- states ----------------------------------------------------------------------------------------------------------


def _state_problems(batching: Any, source: Source, model_dir: Path) -> Iterator[Problem]:
    for index, state in enumerate(batching.state):
        path = f"{_STATES}[{index}]"
        if state.data_type == 0:
            yield source.problem(f"{path}.data_type", f"must be given, one of {', '.join(BY_CONFIG)}")
        if not state.dims:
            yield source.problem(f"{path}.dims", "must be given")
        yield from _dimension_problems(state.dims, f"{path}.dims", source)
        if state.use_growable_memory and not state.use_same_buffer_for_input_output:
            text = "needs use_same_buffer_for_input_output: true, as in Triton"
            yield source.problem(f"{path}.use_growable_memory", text)
        if len(state.initial_state) > 1:
            text = f"a state has at most 1 initial state, found {len(state.initial_state)}"
            yield source.problem(f"{path}.initial_state", text)
        if len(state.initial_state) == 1:
            initial = state.initial_state[0]
            yield from _initial_problems(state, initial, f"{path}.initial_state[0]", source, model_dir)


def _dimension_problems(dims: Sequence[int], path: str, source: Source) -> Iterator[Problem]:
    for index, dimension in enumerate(dims):
        if dimension < 1 and dimension != -1:
            text = f"a dimension is 1 or more, or -1 when it varies, found {dimension}"
            yield source.problem(f"{path}[{index}]", text)


def _initial_problems(state: Any, initial: Any, path: str, source: Source, model_dir: Path) -> Iterator[Problem]:
    """The rules of ``GenerateInitialStateData``."""
    if not initial.name:
        yield source.problem(f"{path}.name", "must be given")
    if initial.data_type != state.data_type:
        found, wanted = (BY_NUMBER[each].config if each else "none" for each in (initial.data_type, state.data_type))
        yield source.problem(f"{path}.data_type", f"must be that of the state, {wanted}, found {found}")
    dims, wanted_dims = list(initial.dims), list(state.dims)
    fits = len(dims) == len(wanted_dims) and all(
        wanted in (-1, dimension) for dimension, wanted in zip(dims, wanted_dims, strict=True)
    )
    if not fits or min(dims, default=1) < 1:
        text = f"must be a shape without -1 that agrees with the state's dims {wanted_dims}, found {dims}"
        yield source.problem(f"{path}.dims", text)
    elif initial.WhichOneof("state_data") is None:
        yield source.problem(path, "needs either zero_data: true or a data_file")
    elif initial.data_file and initial.data_type:
        yield from _file_problems(initial, path, source, model_dir)


def _file_problems(initial: Any, path: str, source: Source, model_dir: Path) -> Iterator[Problem]:
    file = model_dir / INITIAL_STATE_FOLDER / initial.data_file
    try:
        data = file.read_bytes()
    except OSError as error:
        yield source.problem(f"{path}.data_file", f"{file} cannot be read: {error.strerror}")
        return
    datatype, count = BY_NUMBER[initial.data_type], element_count(tuple(initial.dims))
    if datatype is DataType.BYTES:
        if _elements(data) != count:
            text = f"{file} must hold {count} strings, each behind its length in 4 bytes (little-endian)"
            yield source.problem(f"{path}.data_file", text)
    elif len(data) < count * datatype.itemsize:
        text = f"{file} has {len(data)} bytes, but the shape {list(initial.dims)} needs {count * datatype.itemsize}"
        yield source.problem(f"{path}.data_file", text)


def _elements(data: bytes) -> int:
    """How many strings the bytes of a BYTES tensor hold; -1 when they end within one."""
    count = offset = 0
    while offset < len(data):
        offset += 4 + int.from_bytes(data[offset : offset + 4], "little")
        count += 1
    return count if offset == len(data) else -1


# --- with the model's own tensors ------------------------------------------------------------------------------------


def sequence_tensor_problems(config: Any, source: Source) -> list[Problem]:
    """Whether the tensors of controls and states agree with the inputs and outputs, once these are known."""
    inputs = {tensor.name for tensor in config.input}
    outputs = {tensor.name: tensor for tensor in config.output}
    batching = config.sequence_batching
    problems = [
        source.problem(
            f"{_CONTROLS}[{index}].name",
            f"'{tensor.name}' is also listed under input, where control inputs must not be; leave it out there",
        )
        for index, tensor in enumerate(batching.control_input)
        if tensor.name in inputs
    ]
    for index, state in enumerate(batching.state):
        path = f"{_STATES}[{index}]"
        if state.input_name in inputs:
            text = f"'{state.input_name}' is also listed under input, where states must not be; leave it out there"
            problems.append(source.problem(f"{path}.input_name", text))
        if state.output_name in outputs:
            problems += _output_problems(state, outputs[state.output_name], path, source)
    return problems


def _output_problems(state: Any, output: Any, path: str, source: Source) -> Iterator[Problem]:
    """A state that clients get as an output too must be the same tensor in both places."""
    dims = list(output.reshape.shape if output.HasField("reshape") else output.dims)
    if state.data_type != output.data_type:
        wanted = BY_NUMBER[output.data_type].config if output.data_type else "none"
        yield source.problem(f"{path}.data_type", f"must be that of output '{output.name}', {wanted}")
    if list(state.dims) != dims:
        text = f"must be those of output '{output.name}', {dims}, found {list(state.dims)}"
        yield source.problem(f"{path}.dims", text)
