"""Which scheduler a model gets."""

from __future__ import annotations

from shoal.config.spec import BatchingSpec, ModelSpec, QueuePolicySpec
from shoal.scheduling.bucketed import Bucket, BucketedScheduler
from shoal.scheduling.contract import Scheduler
from shoal.scheduling.default import DefaultScheduler
from shoal.scheduling.dynamic import DynamicScheduler, SameContents
from shoal.scheduling.latency_batcher import LatencyScheduler
from shoal.scheduling.priority_queue import PriorityQueue
from shoal.scheduling.queue import RequestQueue, WaitingRequests
from shoal.scheduling.sequence_make import make_sequence_scheduler
from shoal.scheduling.shape_tensors import SameShapeTensors
from shoal.scheduling.timeout_queue import TimeoutQueue


def make_scheduler(spec: ModelSpec, rule: SameContents | None = None) -> Scheduler:
    """The scheduler that a model's configuration asks for, with an empty queue.

    A model without batching that has ``dynamic_batching`` set keeps the queue policies and runs each request alone.

    Args:
        spec: the model.
        rule: the user's own rule for what may share a batch.
    """
    if spec.sequence is not None:
        return make_sequence_scheduler(spec, spec.sequence, _same_contents(spec))
    if spec.batching is None:
        return DefaultScheduler()
    same_contents = rule or _same_contents(spec)
    if spec.padding is None or not spec.padding.bucketed:
        return _batcher(spec, spec.batching, same_contents).batcher
    follows = spec.batching.latency_target_us > 0
    return BucketedScheduler(spec.batching, lambda own: _batcher(spec, own, same_contents), follows=follows)


def _batcher(spec: ModelSpec, batching: BatchingSpec, same_contents: SameContents | None) -> Bucket:
    """The dynamic batcher with these settings, and its queue."""
    rows, queue = max(1, spec.max_batch_size), make_queue(batching)
    if batching.latency_target_us:
        active = sum(not instance.passive for instance in spec.instances)
        return Bucket(queue, LatencyScheduler(rows, batching, queue, active, same_contents))
    return Bucket(queue, DynamicScheduler(rows, batching, queue, same_contents))


def _same_contents(spec: ModelSpec) -> SameShapeTensors | None:
    """The test of shape tensors, for a model that has any."""
    shape_tensors = [index for index, tensor in enumerate(spec.inputs) if tensor.is_shape_tensor]
    return SameShapeTensors(shape_tensors) if shape_tensors else None


def make_queue(batching: BatchingSpec) -> WaitingRequests:
    """The queue that the dynamic batcher's settings ask for: levels, limits and timeouts."""
    default, policies = batching.default_queue_policy, batching.priority_queue_policies
    if not batching.priority_levels:
        return make_level(default)
    return PriorityQueue(lambda level: make_level(policies.get(level, default)))


def make_level(policy: QueuePolicySpec) -> WaitingRequests:
    """One queue with its policy; without a default timeout nothing ever times out (rule 38)."""
    return TimeoutQueue(policy) if policy.default_timeout_us else RequestQueue(policy.max_queue_size)
