"""Holds a padding policy against the model's inputs and outputs, and compiles it to a ``PaddingSpec``."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

from shoal.config.padding import PaddedInput, PaddedLength, PaddedOutput, PaddingSpec
from shoal.config.padding_policy import PARAMETER, PATH, InputPolicy, PolicyReader
from shoal.config.problem import Problem, Source
from shoal.datatypes import BY_NUMBER, DataType
from shoal.errors import nearest

MASK_TYPES = frozenset(DataType) - {DataType.BYTES}
LENGTH_TYPES = frozenset(
    (DataType.INT32, DataType.INT64, DataType.UINT32, DataType.UINT64, DataType.FP32, DataType.FP64)
)
_VARIABLE = -1
_LEADERS_ONLY = ("multiple_of", "maximum", "buckets", "mask", "length", "outputs")
_FORMATS = {
    DataType.BOOL: "<?",
    DataType.UINT8: "<B",
    DataType.UINT16: "<H",
    DataType.UINT32: "<I",
    DataType.UINT64: "<Q",
    DataType.INT8: "<b",
    DataType.INT16: "<h",
    DataType.INT32: "<i",
    DataType.INT64: "<q",
    DataType.FP16: "<e",
    DataType.FP32: "<f",
    DataType.FP64: "<d",
    DataType.BF16: "<f",
}
_FLOATS = (DataType.FP16, DataType.FP32, DataType.FP64, DataType.BF16)


def made_by_padding(config: Any) -> tuple[str, ...]:
    """The names of the inputs that the server makes for a padding policy: masks and lengths; clients do not send them.

    They are in ``input`` all the same, so that the configuration tells what the model takes.
    """
    if PARAMETER not in config.parameters:
        return ()
    policies = PolicyReader(config.parameters[PARAMETER].string_value).policies.values()
    return tuple(name for policy in policies for name in (policy.mask, policy.length) if name is not None)


def padding_problems(config: Any, source: Source) -> list[Problem]:
    """What is wrong with the padding policy of a configuration whose tensors are complete."""
    if PARAMETER not in config.parameters:
        return []
    checker = _Checker(config)
    return [source.problem(path, text) for path, text in checker.problems()]


class _Checker:
    """Finds what is wrong with one policy."""

    def __init__(self, config: Any) -> None:
        self._config = config
        self._inputs = {tensor.name: tensor for tensor in config.input}
        self._outputs = {tensor.name: tensor for tensor in config.output}
        reader = PolicyReader(config.parameters[PARAMETER].string_value)
        self._policies = reader.policies
        self._read_problems = reader.problems
        self._made = made_by_padding(config)

    def problems(self) -> Iterator[tuple[str, str]]:
        """Each problem: the path of the place, and what is wrong."""
        yield from self._read_problems
        yield from self._model_problems()
        for name, policy in self._policies.items():
            path = f"{PATH}.{name}"
            if name not in self._inputs:
                yield path, f"there is no input '{name}'{nearest(name, self._inputs)}"
                continue
            yield from self._input_problems(name, policy, path)
            if policy.like is None:
                yield from self._length_problems(policy, path)
                yield from self._made_problems(policy, path)
                yield from self._output_problems(policy, path)
            else:
                yield from self._like_problems(policy, path)
        yield from self._twice_problems()

    def _model_problems(self) -> Iterator[tuple[str, str]]:
        config = self._config
        if config.max_batch_size < 1:
            yield PATH, "needs a model with max_batch_size of 1 or more"
        if config.HasField("ensemble_scheduling"):
            yield PATH, "an ensemble has no batches of its own; write it in the models of its steps"
        if config.HasField("sequence_batching"):
            yield PATH, "cannot be combined with sequence_batching"
        if config.backend == "python" and any(tensor.allow_ragged_batch for tensor in config.input):
            yield PATH, "cannot be combined with allow_ragged_batch in a Python model"

    def _input_problems(self, name: str, policy: InputPolicy, path: str) -> Iterator[tuple[str, str]]:
        tensor = self._inputs[name]
        if name in self._made:
            yield path, "is made by the server, and so cannot be padded itself"
        if tensor.allow_ragged_batch:
            yield path, "is padded, and so must not have allow_ragged_batch"
        if tensor.optional and policy.like is None:
            yield path, "must not be optional, for its length decides"
        dims = backend_dims(tensor)
        if _VARIABLE not in dims:
            yield path, f"has no variable dimension to pad: its dims are {dims}"
        elif policy.dimension is not None and (policy.dimension >= len(dims) or dims[policy.dimension] != _VARIABLE):
            variable = ", ".join(str(place) for place, dimension in enumerate(dims) if dimension == _VARIABLE)
            text = f"must be a variable dimension (-1) of dims {dims}, counted from 0: {variable}"
            yield f"{path}.dimension", f"{text}; found {policy.dimension}"
        try:
            element(BY_NUMBER[tensor.data_type], policy.value)
        except (ValueError, struct.error, OverflowError):
            text = f"{policy.value!r} is no value of {BY_NUMBER[tensor.data_type].config}"
            yield f"{path}.value", text

    def _like_problems(self, policy: InputPolicy, path: str) -> Iterator[tuple[str, str]]:
        leader = self._policies.get(policy.like or "")
        leaders = [name for name, other in self._policies.items() if other.like is None]
        if leader is None or leader.like is not None:
            hint = nearest(policy.like or "", leaders)
            yield f"{path}.like", f"must be a padded input that is not like another{hint}, found '{policy.like}'"
        for field in _LEADERS_ONLY:
            if getattr(policy, field) is not None:
                yield f"{path}.{field}", f"belongs to '{policy.like}', which this input is like"

    def _length_problems(self, policy: InputPolicy, path: str) -> Iterator[tuple[str, str]]:
        step = policy.multiple_of or 1
        if policy.maximum is not None and policy.maximum % step:
            text = f"must be a multiple of multiple_of ({step}), for batches are padded up to it"
            yield f"{path}.maximum", f"{text}, found {policy.maximum}"
        for size in policy.buckets or ():
            if size % step:
                yield f"{path}.buckets", f"must be multiples of multiple_of ({step}), found {size}"
            elif policy.maximum is not None and size > policy.maximum:
                yield f"{path}.buckets", f"must not be above maximum ({policy.maximum}), found {size}"

    def _made_problems(self, policy: InputPolicy, path: str) -> Iterator[tuple[str, str]]:
        for field, name, types, shapes in (
            ("mask", policy.mask, MASK_TYPES, ([_VARIABLE],)),
            ("length", policy.length, LENGTH_TYPES, ([1], [])),
        ):
            if name is None:
                continue
            tensor = self._inputs.get(name)
            if tensor is None:
                yield f"{path}.{field}", f"there is no input '{name}'{nearest(name, self._inputs)}"
                continue
            datatype, dims = BY_NUMBER[tensor.data_type], backend_dims(tensor)
            if datatype not in types:
                allowed = ", ".join(sorted(known.config for known in types))
                yield f"{path}.{field}", f"'{name}' must be one of {allowed}, found {datatype.config}"
            if dims not in shapes:
                wanted = "[ -1 ]" if field == "mask" else "[ 1 ], or [ 1 ] with reshape { shape: [ ] }"
                yield f"{path}.{field}", f"'{name}' must have dims {wanted}, found {dims}"
            if tensor.allow_ragged_batch:
                yield f"{path}.{field}", f"'{name}' is made by the server, and must not have allow_ragged_batch"

    def _output_problems(self, policy: InputPolicy, path: str) -> Iterator[tuple[str, str]]:
        place = f"{path}.outputs"
        if policy.outputs is None:
            if sum(other.like is None for other in self._policies.values()) > 1:
                yield place, "must be given where requests differ in several lengths; [] for none"
                return
            followers: dict[str, int | None] = dict.fromkeys(_variable_outputs(self._config))
        else:
            followers = policy.outputs
        if followers and self._config.model_transaction_policy.decoupled:
            yield place, "must be [] in a decoupled model, whose responses are not cut"
        for name, dimension in followers.items():
            tensor = self._outputs.get(name)
            if tensor is None:
                yield place, f"there is no output '{name}'{nearest(name, self._outputs)}"
                continue
            dims = backend_dims(tensor)
            if dimension is None and dims.count(_VARIABLE) != 1:
                text = f"'{name}' has dims {dims}; say which of them follows the length"
                yield place, f'{text}, such as {{"{name}": {_first_variable(dims)}}}, or leave it out of a list'
            elif dimension is not None and (dimension >= len(dims) or dims[dimension] != _VARIABLE):
                yield place, f"dimension {dimension} of '{name}' is not a variable one (-1) of dims {dims}, from 0"

    def _twice_problems(self) -> Iterator[tuple[str, str]]:
        names = [*self._made, *(name for policy in self._policies.values() for name in policy.outputs or ())]
        for name in sorted(set(names)):
            if names.count(name) > 1:
                yield PATH, f"'{name}' stands in it for the second time"


def compile_padding(config: Any, inputs: Sequence[str], first_made: int) -> PaddingSpec | None:
    """Compile the policy of a checked configuration; None when it has none.

    Args:
        config: the ``ModelConfig`` message.
        inputs: the names of the inputs that clients send, in the spec's order.
        first_made: the place in ``ModelSpec.all_inputs`` of the first input that ``made_by_padding`` names.
    """
    if PARAMETER not in config.parameters:
        return None
    policies = PolicyReader(config.parameters[PARAMETER].string_value).policies
    tensors = {tensor.name: tensor for tensor in config.input}
    made = {name: first_made + place for place, name in enumerate(made_by_padding(config))}

    def padded(name: str) -> PaddedInput:
        tensor, policy = tensors[name], policies[name]
        dims = backend_dims(tensor)
        dimension = _last_variable(dims) if policy.dimension is None else policy.dimension
        return PaddedInput(inputs.index(name), dimension + 1, element(BY_NUMBER[tensor.data_type], policy.value))

    lengths = []
    for leader, policy in policies.items():
        if policy.like is not None:
            continue
        members = [leader, *(name for name, other in policies.items() if other.like == leader)]
        lengths.append(
            PaddedLength(
                inputs=tuple(padded(name) for name in members),
                multiple_of=policy.multiple_of or 1,
                maximum=policy.maximum or 0,
                buckets=policy.buckets or (),
                mask=made.get(policy.mask or ""),
                lengths=made.get(policy.length or ""),
                outputs=_compile_outputs(config, policy),
            )
        )
    return PaddingSpec(tuple(lengths))


def _compile_outputs(config: Any, policy: InputPolicy) -> tuple[PaddedOutput, ...]:
    names = [tensor.name for tensor in config.output]
    followers = dict.fromkeys(_variable_outputs(config)) if policy.outputs is None else policy.outputs
    found = []
    for name, dimension in followers.items():
        index = names.index(name)
        dims = backend_dims(config.output[index])
        found.append(PaddedOutput(index, 1 + (_first_variable(dims) if dimension is None else dimension)))
    return tuple(found)


def backend_dims(tensor: Any) -> list[int]:
    """A tensor's dims as the backend sees them."""
    return list(tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims)


def element(datatype: DataType, value: object) -> bytes:
    """The wire bytes of one element; of zero or an empty text for None.

    Raises:
        ValueError, OverflowError, struct.error: the value is none of this type.
    """
    if datatype is DataType.BYTES:
        if not isinstance(value, str | None):
            raise ValueError(value)
        text = (value or "").encode()
        return struct.pack("<I", len(text)) + text
    if isinstance(value, bool) is not (datatype is DataType.BOOL) and value is not None:
        raise ValueError(value)
    if isinstance(value, float) and datatype not in _FLOATS:
        raise ValueError(value)
    if isinstance(value, str):
        raise ValueError(value)  # noqa: TRY004 - one exception for whatever does not fit
    data = struct.pack(_FORMATS[datatype], value or 0)
    return data[2:] if datatype is DataType.BF16 else data


def _variable_outputs(config: Any) -> list[str]:
    return [tensor.name for tensor in config.output if _VARIABLE in backend_dims(tensor)]


def _first_variable(dims: Sequence[int]) -> int:
    return list(dims).index(_VARIABLE) if _VARIABLE in dims else 0


def _last_variable(dims: Sequence[int]) -> int:
    return len(dims) - 1 - list(dims)[::-1].index(_VARIABLE)
