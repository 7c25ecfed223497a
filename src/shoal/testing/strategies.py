"""Hypothesis strategies for models and for requests that fit them. Needs ``hypothesis`` installed.

::

    @given(model_specs().flatmap(lambda spec: st.tuples(st.just(spec), sample_requests(spec))))
    def test_my_backend(drawn): ...
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from struct import pack

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from shoal.config.spec import (
    BatchingSpec,
    InstanceKind,
    InstanceSpec,
    ModelSpec,
    QueuePolicySpec,
    TensorSpec,
    TimeoutAction,
)
from shoal.datatypes import DataType, element_count
from shoal.requests import LATEST, InferHead, InputHead, OutputHead, Shape

_LARGEST_DIMENSION = 4
_MOST_DIMENSIONS = 3
_names = st.text(alphabet="abcdefghijklmnopqrstuvwxyz_0123456789", min_size=1, max_size=8)


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """A request that its model admits: its head, and one payload buffer per input whose data is not in the head."""

    head: InferHead
    payload: tuple[bytes, ...]


@st.composite
def tensor_specs(draw: DrawFn, name: str) -> TensorSpec:
    """Any tensor of a model, with fixed and variable dimensions."""
    dimension = st.one_of(st.just(-1), st.integers(1, _LARGEST_DIMENSION))
    dims = draw(st.lists(dimension, min_size=1, max_size=_MOST_DIMENSIONS))
    return TensorSpec(name, draw(st.sampled_from(DataType)), tuple(dims))


@st.composite
def model_specs(draw: DrawFn) -> ModelSpec:
    """Any model: batching or not, with optional inputs, reshaped inputs and all data types."""
    names = draw(st.lists(_names, min_size=2, max_size=6, unique=True))
    split = draw(st.integers(1, len(names) - 1))
    inputs = [_varied(draw, draw(tensor_specs(name))) for name in names[:split]]
    outputs = [draw(tensor_specs(name)) for name in names[split:]]
    max_batch_size = draw(st.integers(0, 16))
    return ModelSpec(
        name=draw(_names),
        version=draw(st.integers(1, 9)),
        backend="python",
        platform="python",
        max_batch_size=max_batch_size,
        inputs=(replace(inputs[0], optional=False), *inputs[1:]),
        outputs=tuple(outputs),
        instances=(InstanceSpec("instance_0", InstanceKind.CPU, 0),),
        batching=draw(st.none() | batching_specs(max_batch_size)) if max_batch_size else None,
    )


def _varied(draw: DrawFn, tensor: TensorSpec) -> TensorSpec:
    """The same input, maybe optional, maybe with its fixed dimensions of 1 hidden from the backend."""
    reshape = tuple(dimension for dimension in tensor.dims if dimension != 1)
    return replace(tensor, optional=draw(st.booleans()), reshape=reshape if draw(st.booleans()) else None)


@st.composite
def queue_policies(draw: DrawFn) -> QueuePolicySpec:
    """Any queue policy, with times of at most a few milliseconds and small limits."""
    return QueuePolicySpec(
        timeout_action=draw(st.sampled_from(TimeoutAction)),
        default_timeout_us=draw(st.one_of(st.just(0), st.integers(1, 5_000))),
        allow_timeout_override=draw(st.booleans()),
        max_queue_size=draw(st.one_of(st.just(0), st.integers(1, 8))),
    )


@st.composite
def batching_specs(draw: DrawFn, max_batch_size: int) -> BatchingSpec:
    """Any setting of the dynamic batcher that the configuration check lets through for this ``max_batch_size``."""
    sizes = draw(st.lists(st.integers(1, max_batch_size), max_size=3, unique=True))
    levels = draw(st.one_of(st.just(0), st.integers(1, 3)))
    policies = st.dictionaries(st.integers(1, levels), queue_policies()) if levels else st.just({})
    return BatchingSpec(
        preferred_batch_sizes=tuple(sorted(sizes)),
        max_queue_delay_us=draw(st.one_of(st.just(0), st.integers(1, 2_000))),
        priority_levels=levels,
        default_priority_level=draw(st.integers(1, levels)) if levels else 0,
        default_queue_policy=draw(queue_policies()),
        priority_queue_policies=draw(policies),
    )


@st.composite
def sample_requests(draw: DrawFn, spec: ModelSpec) -> SampleRequest:
    """A request that fits the model: any batch size, any shapes it allows, inputs and outputs in any order."""
    rows = draw(st.integers(1, spec.max_batch_size)) if spec.max_batch_size else 0
    present = [tensor for tensor in spec.inputs if not tensor.optional or draw(st.booleans())]
    inputs: list[InputHead] = []
    payload: list[bytes] = []
    for tensor in draw(st.permutations(present)):
        shape = _shape(draw, tensor.dims, rows)
        data = draw(wire_bytes(tensor.datatype, element_count(shape)))
        in_head = draw(st.booleans())
        inputs.append(
            InputHead(tensor.name, tensor.datatype, shape, 0 if in_head else len(data), data if in_head else None)
        )
        if not in_head:
            payload.append(data)
    wanted = draw(st.lists(st.sampled_from([tensor.name for tensor in spec.outputs]), unique=True))
    head = InferHead(
        model_name=spec.name,
        model_version=LATEST,
        request_id=draw(st.text(max_size=8)),
        inputs=tuple(inputs),
        outputs=tuple(OutputHead(name) for name in wanted),
    )
    return SampleRequest(head, tuple(payload))


def _shape(draw: DrawFn, dims: Shape, rows: int) -> Shape:
    """A shape that the dims allow, the batch dimension included."""
    sizes = [draw(st.integers(0, _LARGEST_DIMENSION)) if dimension == -1 else dimension for dimension in dims]
    return (rows, *sizes) if rows else tuple(sizes)


def wire_bytes(datatype: DataType, count: int) -> SearchStrategy[bytes]:
    """The wire bytes of a tensor of ``count`` elements."""
    if datatype is not DataType.BYTES:
        nbytes = count * datatype.itemsize
        largest = 1 if datatype is DataType.BOOL else 255
        return st.integers(0, largest).map(lambda value: bytes([value]) * nbytes)
    elements = st.lists(st.binary(max_size=5), min_size=count, max_size=count)
    return elements.map(lambda each: b"".join(pack("<I", len(element)) + element for element in each))
