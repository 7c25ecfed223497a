"""ModelSpec: a checked model configuration, frozen, in the form that the hot path reads.

The protobuf message stays for the config endpoint; nothing that runs per request touches it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from shoal.config.padding import PaddingSpec
from shoal.datatypes import DataType
from shoal.requests import Shape


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a model.

    Attributes:
        name: its name.
        datatype: its element type.
        dims: its shape for clients, without the batch dimension; -1 is variable.
        reshape: its shape for the backend, without the batch dimension, when it differs; None otherwise.
        optional: an input that requests may leave out.
        allow_ragged_batch: an input whose shapes may differ within a batch.
        is_shape_tensor: an input whose values are a shape; its content must be equal within a batch.
        labels: an output's class labels, by index.
    """

    name: str
    datatype: DataType
    dims: Shape
    reshape: Shape | None = None
    optional: bool = False
    allow_ragged_batch: bool = False
    is_shape_tensor: bool = False
    labels: tuple[str, ...] = ()


class InstanceKind(Enum):
    """Where an instance runs; AUTO is resolved before the spec is made."""

    CPU = "KIND_CPU"
    GPU = "KIND_GPU"
    MODEL = "KIND_MODEL"


@dataclass(frozen=True, slots=True)
class ResourceSpec:
    """An amount of a rate limiter's resource that an instance takes while it runs; shared by all devices if global."""

    name: str
    count: int
    is_global: bool = False


@dataclass(frozen=True, slots=True)
class InstanceSpec:
    """One instance of a model.

    Attributes:
        name: such as ``add_sub_0_1``: group name and number.
        kind: CPU, GPU or MODEL.
        device_id: the GPU's number; 0 for the others, as Triton has it.
        resources: what it takes of the rate limiter's resources.
        priority: its weight in the rate limiter: with 2 it runs half as often as with 1.
        passive: whether it is loaded but never given a batch.
    """

    name: str
    kind: InstanceKind
    device_id: int
    resources: tuple[ResourceSpec, ...] = ()
    priority: int = 1
    passive: bool = False


class TimeoutAction(Enum):
    """What becomes of a request whose queue timeout passed."""

    REJECT = "REJECT"
    DELAY = "DELAY"


@dataclass(frozen=True, slots=True)
class QueuePolicySpec:
    """The limits of one queue: sizes in requests, times in microseconds; 0 means no limit."""

    timeout_action: TimeoutAction = TimeoutAction.REJECT
    default_timeout_us: int = 0
    allow_timeout_override: bool = False
    max_queue_size: int = 0


@dataclass(frozen=True, slots=True)
class BatchingSpec:
    """The dynamic batcher's settings; Triton's ``dynamic_batching`` with units in the names.

    ``latency_target_us`` comes from the model's parameter of that name; with it the batcher chooses its own sizes and
    delay. 0 for none.
    """

    preferred_batch_sizes: tuple[int, ...] = ()
    max_queue_delay_us: int = 0
    preserve_ordering: bool = False
    priority_levels: int = 0
    default_priority_level: int = 0
    default_queue_policy: QueuePolicySpec = field(default_factory=QueuePolicySpec)
    priority_queue_policies: Mapping[int, QueuePolicySpec] = field(default_factory=dict)
    latency_target_us: int = 0


class ControlKind(Enum):
    """What a control input of a sequence model tells it."""

    START = "CONTROL_SEQUENCE_START"
    READY = "CONTROL_SEQUENCE_READY"
    END = "CONTROL_SEQUENCE_END"
    CORRELATION_ID = "CONTROL_SEQUENCE_CORRID"


@dataclass(frozen=True, slots=True)
class ControlSpec:
    """One control of a sequence model.

    Attributes:
        kind: what it tells.
        input: which of the model's made inputs carries it (an index into ``ModelSpec.made_inputs``).
        datatype: the input's element type.
        false_true: the two values that stand for no and yes; None for the correlation id.
    """

    kind: ControlKind
    input: int
    datatype: DataType
    false_true: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class StateSpec:
    """A tensor that the server keeps for a sequence between its requests.

    Attributes:
        input: which of the model's made inputs it is (an index into ``ModelSpec.made_inputs``).
        output: which of the model's outputs it comes from (an index into ``ModelSpec.all_outputs``).
        datatype: its element type.
        dims: its shape without the batch dimension; -1 is variable.
        initial: its wire bytes at the start of a sequence.
        initial_dims: the shape of those, without the batch dimension.
        single_buffer: the model reads and writes the same memory.
    """

    input: int
    output: int
    datatype: DataType
    dims: Shape
    initial: bytes
    initial_dims: Shape
    single_buffer: bool = False


@dataclass(frozen=True, slots=True)
class DirectSpec:
    """The direct strategy: each sequence has a batch slot of its own."""

    max_queue_delay_us: int = 0
    minimum_slot_utilization: float = 0.0


@dataclass(frozen=True, slots=True)
class OldestSpec:
    """The oldest strategy: the oldest requests of different sequences are batched."""

    max_candidate_sequences: int = 0
    preferred_batch_sizes: tuple[int, ...] = ()
    max_queue_delay_us: int = 0
    preserve_ordering: bool = False


@dataclass(frozen=True, slots=True)
class SequenceSpec:
    """The sequence batcher's settings; Triton's ``sequence_batching`` with units in the names.

    Attributes:
        strategy: direct (the default) or oldest.
        max_idle_us: how long a sequence may be without a request before its slot is freed.
        controls: what the model is told.
        states: what the server keeps for the model.
        iterative: whether the model may ask for the same request again until it is done with it.
    """

    strategy: DirectSpec | OldestSpec
    max_idle_us: int
    controls: tuple[ControlSpec, ...] = ()
    states: tuple[StateSpec, ...] = ()
    iterative: bool = False


@dataclass(frozen=True, slots=True)
class StepSpec:
    """One step of an ensemble: a model, and its tensors' names mapped to those of the ensemble."""

    model_name: str
    model_version: int
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class EnsembleSpec:
    """An ensemble's steps, and how many requests may be in flight at each; 0 for no limit."""

    steps: tuple[StepSpec, ...]
    max_inflight_requests: int = 0


@dataclass(frozen=True, slots=True)
class BatchInputSpec:
    """An input that is derived from the shapes of a batch's requests (Triton's ``batch_input``).

    Attributes:
        kind: Triton's name of the kind, such as ``BATCH_ELEMENT_COUNT``.
        inputs: which of the model's made inputs get it (indices into ``ModelSpec.made_inputs``).
        datatype: its element type.
        source: the index of the input that it is derived from.
    """

    kind: str
    inputs: tuple[int, ...]
    datatype: DataType
    source: int


@dataclass(frozen=True, slots=True)
class BatchOutputSpec:
    """Outputs that are cut by the shapes of an input rather than by rows (Triton's ``batch_output``)."""

    outputs: tuple[int, ...]
    source: int


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One version of a model, ready to be served.

    Attributes:
        name: the model's name.
        version: this version.
        backend: such as ``python`` or ``onnxruntime``.
        platform: what metadata shows: the config's platform if it has one, else the backend.
        max_batch_size: most rows in a batch; 0 for a model without batching.
        inputs: in the order of the configuration.
        outputs: in the order of the configuration.
        instances: every instance to start.
        batching: the dynamic batcher's settings, None for the default scheduler.
        parameters: the configuration's parameters as strings.
        filename: the model's file below its version directory, such as ``model.onnx``.
        metric_tags: extra labels for the model's metrics.
        sequence: the sequence batcher's settings, None for a model without sequences.
        ensemble: the steps of an ensemble, None for a model of its own.
        decoupled: whether a request may get any number of responses.
        cached: whether responses are kept in the response cache.
        made_inputs: inputs that the server makes: controls and states, batch inputs, and those of the padding, in this
            order. Their dims are without the first dimension, and they are numbered on after ``inputs``.
        made_outputs: outputs that the server keeps to itself (states), numbered on after ``outputs``.
        batch_inputs: inputs derived from the shapes of a batch's requests.
        batch_outputs: outputs cut by the shapes of an input.
        padding: how unequal lengths are padded to share a batch; None when they are not.
    """

    name: str
    version: int
    backend: str
    platform: str
    max_batch_size: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    instances: tuple[InstanceSpec, ...]
    batching: BatchingSpec | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    filename: str = ""
    metric_tags: Mapping[str, str] = field(default_factory=dict)
    sequence: SequenceSpec | None = None
    ensemble: EnsembleSpec | None = None
    decoupled: bool = False
    cached: bool = False
    made_inputs: tuple[TensorSpec, ...] = ()
    made_outputs: tuple[TensorSpec, ...] = ()
    batch_inputs: tuple[BatchInputSpec, ...] = ()
    batch_outputs: tuple[BatchOutputSpec, ...] = ()
    padding: PaddingSpec | None = None

    @property
    def all_inputs(self) -> tuple[TensorSpec, ...]:
        """What the backend gets: the clients' inputs, then those that the server makes."""
        return self.inputs + self.made_inputs

    @property
    def all_outputs(self) -> tuple[TensorSpec, ...]:
        """What the backend gives: the clients' outputs, then those that the server keeps."""
        return self.outputs + self.made_outputs
