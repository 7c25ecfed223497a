"""ModelSpec: a checked model configuration, frozen, in the form that the hot path reads.

The protobuf message stays for the config endpoint; nothing that runs per request touches it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

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
class InstanceSpec:
    """One instance of a model.

    Attributes:
        name: such as ``add_sub_0_1``: group name and number.
        kind: CPU, GPU or MODEL.
        device_id: the GPU's number; 0 for the others, as Triton has it.
    """

    name: str
    kind: InstanceKind
    device_id: int


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
    """The dynamic batcher's settings; Triton's ``dynamic_batching`` with units in the names."""

    preferred_batch_sizes: tuple[int, ...] = ()
    max_queue_delay_us: int = 0
    preserve_ordering: bool = False
    priority_levels: int = 0
    default_priority_level: int = 0
    default_queue_policy: QueuePolicySpec = field(default_factory=QueuePolicySpec)
    priority_queue_policies: Mapping[int, QueuePolicySpec] = field(default_factory=dict)


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
