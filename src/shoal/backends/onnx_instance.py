"""Runs batches through an ONNX Runtime session.

Two ways, chosen by what measures faster. ``session.run`` costs about 4 microseconds and makes new arrays for the
outputs, which the worker then copies. Binding every tensor first costs about 9, but lets the model write where the
server will read. Small copies are cheap, and memory that ONNX Runtime uses again and again is warmer than the server's:
the two are even at about 512 KiB of outputs, and at 1 MiB binding takes three quarters of the time.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shoal.backends.contract import Array, BatchResult, ModelBatch, OutputRoom, RequestInfo, RequestResult
from shoal.backends.onnx_sequences import state_outputs
from shoal.backends.onnx_session import describe
from shoal.backends.onnx_shapes import OutputShapes
from shoal.backends.onnx_signature import Signature, scalars, scattered_outputs
from shoal.config.spec import ModelSpec
from shoal.datatypes import DataType, element_count
from shoal.errors import InvalidArgumentError, ModelError, ShoalError
from shoal.requests import Shape

BIND_NBYTES = 768 * 1024
"""Outputs of at least so many bytes are bound to the server's memory; see the module's text."""

_BFLOAT16 = 16
"""ONNX's number for BF16, for which there is no NumPy type."""


@dataclass(frozen=True, slots=True)
class SessionPlan:
    """What the instances of a session share.

    Attributes:
        model: the model's name.
        session: the ``InferenceSession``.
        run_options: ``RunOptions``, or None.
        inputs: the data types of the inputs.
        outputs: the data types of the outputs that the configuration has.
        shapes: tells shapes of outputs before they are computed.
        bindable: whether all outputs may be bound: their shapes can be told, and none is BYTES.
        must_bind: whether a tensor is BF16, which cannot pass any other way.
        texts: the inputs that are BYTES.
        scalar_inputs: the inputs that clients send with dims of 1 and the model wants without, with these dims.
        scalar_outputs: the same of outputs.
        scattered: the outputs whose first dimension is not the batch's rows (``batch_output``).
        always: the outputs to fetch whatever requests ask for: states.
        divisible: whether the inputs of a batch can be taken apart by rows: none is ragged or made of the whole batch.
    """

    model: str
    session: Any
    run_options: Any
    inputs: Mapping[str, DataType]
    outputs: Mapping[str, DataType]
    shapes: OutputShapes
    bindable: bool
    must_bind: bool
    texts: frozenset[str]
    scalar_inputs: Mapping[str, Shape]
    scalar_outputs: Mapping[str, Shape]
    scattered: frozenset[str]
    divisible: bool
    always: tuple[str, ...]


def make_plan(spec: ModelSpec, signature: Signature, session: Any, run_options: Any) -> SessionPlan:
    """The plan of a session.

    Raises:
        InvalidArgumentError: the model mixes BF16 and BYTES, which no call of ONNX Runtime takes together.
    """
    inputs = {tensor.name: tensor.datatype for tensor in spec.all_inputs}
    outputs = {tensor.name: tensor.datatype for tensor in spec.all_outputs}
    datatypes = {*inputs.values(), *outputs.values()}
    must_bind = DataType.BF16 in datatypes
    if must_bind and DataType.BYTES in datatypes:
        raise InvalidArgumentError(f"model '{spec.name}': BF16 and BYTES tensors in one model cannot be served")
    served = [tensor for tensor in signature.outputs if tensor.name in outputs]
    shapes = OutputShapes(signature.inputs, served, batched=spec.max_batch_size > 0)
    texts = frozenset(name for name, datatype in inputs.items() if datatype is DataType.BYTES)
    bindable = shapes.known and DataType.BYTES not in datatypes
    return SessionPlan(
        model=spec.name,
        session=session,
        run_options=run_options,
        inputs=inputs,
        outputs=outputs,
        shapes=shapes,
        bindable=bindable,
        must_bind=must_bind,
        texts=texts,
        scalar_inputs=scalars(spec, spec.inputs, (*signature.inputs, *signature.optional_inputs)),
        scalar_outputs=scalars(spec, spec.outputs, signature.outputs),
        scattered=scattered_outputs(spec),
        divisible=not spec.batch_inputs and not any(tensor.allow_ragged_batch for tensor in spec.inputs),
        always=state_outputs(spec),
    )


class OnnxInstance:
    """One executor; a session may run in several threads at once, so that the instances of a device share one.

    Args:
        plan: what the session's instances share.
    """

    def __init__(self, plan: SessionPlan) -> None:
        self._plan = plan
        self._run = plan.session.run
        self._run_options = plan.run_options
        self._all = list(plan.outputs)
        self._dtypes = {name: np.dtype(datatype.numpy or "u2") for name, datatype in plan.outputs.items()}
        self._bind = plan.bindable
        self._row_nbytes = plan.shapes.row_nbytes({name: dtype.itemsize for name, dtype in self._dtypes.items()})

    def execute(self, batch: ModelBatch, room: OutputRoom) -> BatchResult:
        """Run the batch.

        Raises:
            ModelError: ONNX Runtime failed, or an output does not have the batch's rows.
            InvalidArgumentError: an element of a BYTES input is no UTF-8 text.
        """
        plan, inputs, rows = self._plan, batch.inputs, sum(batch.rows)
        if plan.scalar_inputs:
            inputs = {name: a.reshape(()) if name in plan.scalar_inputs else a for name, a in inputs.items()}
        if plan.texts:
            try:
                inputs = _decode_texts(inputs, plan.texts)
            except InvalidArgumentError:
                if len(batch.rows) == 1 or not plan.divisible:
                    raise
                return self._one_by_one(batch, room)
        names = self._wanted(batch.requests)
        try:
            arrays = self._outputs(inputs, names, rows, room)
        except Exception as error:  # ONNX Runtime's errors have no common class
            raise ModelError(f"model '{plan.model}': {describe(error)}") from error
        for name, dims in plan.scalar_outputs.items():
            if name in arrays and not arrays[name].ndim:
                arrays[name] = arrays[name].reshape(dims)
        if batch.batched:
            self._check_rows(arrays, rows)
        return BatchResult(arrays)

    def _wanted(self, requests: Sequence[RequestInfo]) -> list[str]:
        """The outputs to fetch: those that the requests ask for when they agree, else all."""
        first = requests[0].outputs
        for request in requests:
            if request.outputs is not first and request.outputs != first:
                return self._all
        if not first or len(first) == len(self._all):
            return self._all
        return [*first, *(name for name in self._plan.always if name not in first)]

    def _outputs(self, inputs: Mapping[str, Array], names: list[str], rows: int, room: OutputRoom) -> dict[str, Array]:
        if self._plan.must_bind:
            return self._bound(inputs, names, {}, room)
        if self._bind and (self._row_nbytes is None or self._row_nbytes * rows >= BIND_NBYTES):
            shapes = {name: self._plan.shapes.shape(name, inputs) for name in names}
            nbytes = sum(self._dtypes[name].itemsize * element_count(shape) for name, shape in shapes.items())
            if nbytes >= BIND_NBYTES:
                return self._bound_or_not(inputs, names, shapes, room)
        return dict(zip(names, self._run(names, inputs, self._run_options), strict=True))

    def _bound_or_not(
        self, inputs: Mapping[str, Array], names: list[str], shapes: Mapping[str, Shape], room: OutputRoom
    ) -> dict[str, Array]:
        """Run with bound outputs; a model whose outputs break the names of their sizes is never bound again."""
        try:
            return self._bound(inputs, names, shapes, room)
        except Exception:  # the shapes may be wrong, or the run itself, which then fails again
            arrays = dict(zip(names, self._run(names, inputs, self._run_options), strict=True))
            self._bind = False
            return arrays

    def _bound(
        self, inputs: Mapping[str, Array], names: list[str], shapes: Mapping[str, Shape], room: OutputRoom
    ) -> dict[str, Array]:
        """Run with every tensor bound by its address; outputs without a known shape are copied afterwards."""
        binding = self._plan.session.io_binding()
        held = [(name, np.ascontiguousarray(array)) for name, array in inputs.items()]
        for name, array in held:
            element = _element(self._plan.inputs[name], array)
            binding.bind_input(name, "cpu", 0, element, array.shape, array.ctypes.data)
        arrays: dict[str, Array] = {}
        for name in names:
            shape = shapes.get(name)
            if shape is None:
                binding.bind_output(name, "cpu")
                continue
            given = room.array(name, shape, self._dtypes[name])
            arrays[name] = array = np.empty(shape, self._dtypes[name]) if given is None else given
            binding.bind_output(name, "cpu", 0, array.dtype, shape, array.ctypes.data)
        self._plan.session.run_with_iobinding(binding, self._run_options)
        if len(arrays) < len(names):
            values = zip(names, binding.get_outputs(), strict=True)
            return {name: _fetch(value, self._dtypes[name]) for name, value in values}
        return arrays

    def _one_by_one(self, batch: ModelBatch, room: OutputRoom) -> BatchResult:
        """Run each request by itself, so that one with wrong data does not fail the others."""
        results, start = [], 0
        for count, request in zip(batch.rows, batch.requests, strict=True):
            inputs = {name: array[start : start + count] for name, array in batch.inputs.items()}
            start += count
            try:
                result = self.execute(ModelBatch(inputs, [count], [request], batch.batched), room)
                results.append(RequestResult(result.gathered or {}))
            except ShoalError as error:
                results.append(RequestResult({}, error))
        return BatchResult(per_request=results)

    def _check_rows(self, arrays: Mapping[str, Array], rows: int) -> None:
        for name, array in arrays.items():
            if (not array.ndim or array.shape[0] != rows) and name not in self._plan.scattered:
                raise ModelError(
                    f"model '{self._plan.model}': output '{name}' has shape {list(array.shape)} for a batch of {rows} "
                    "rows; with max_batch_size above 0 the first dimension of every output must be the batch"
                )

    def close(self) -> None:
        """Nothing to do: the model holds the session."""


def _element(datatype: DataType, array: Array) -> Any:
    return _BFLOAT16 if datatype is DataType.BF16 else array.dtype


def _fetch(value: Any, dtype: np.dtype[Any]) -> Array:
    """A copy of what an ``OrtValue`` in CPU memory holds."""
    shape = tuple(value.shape())
    nbytes = element_count(shape) * dtype.itemsize
    memory = ctypes.string_at(value.data_ptr(), nbytes) if nbytes else b""
    return np.frombuffer(memory, dtype).reshape(shape)


def _decode_texts(inputs: Mapping[str, Array], texts: frozenset[str]) -> dict[str, Array]:
    """The inputs with BYTES as text, which is what ONNX Runtime takes."""
    return {name: _decode(name, array) if name in texts else array for name, array in inputs.items()}


def _decode(name: str, array: Array) -> Array:
    decoded = np.empty(array.size, dtype=object)
    for index, element in enumerate(array.reshape(-1).tolist()):
        try:
            decoded[index] = element.decode()
        except UnicodeDecodeError as error:
            raise InvalidArgumentError(
                f"input '{name}': element {index} is not UTF-8, which the strings of an ONNX model must be: {error}"
            ) from None
    return decoded.reshape(array.shape)
