"""Which scheduler a model gets."""

from __future__ import annotations

from shoal.config.spec import BatchingSpec, ModelSpec, QueuePolicySpec
from shoal.scheduling.contract import Scheduler
from shoal.scheduling.default import DefaultScheduler
from shoal.scheduling.dynamic import DynamicScheduler
from shoal.scheduling.priority_queue import PriorityQueue
from shoal.scheduling.queue import RequestQueue, WaitingRequests
from shoal.scheduling.shape_tensors import SameShapeTensors
from shoal.scheduling.timeout_queue import TimeoutQueue


def make_scheduler(spec: ModelSpec) -> Scheduler:
    """The scheduler that a model's configuration asks for, with an empty queue.

    A model without batching that has ``dynamic_batching`` set keeps the queue policies and runs each request alone.
    """
    if spec.batching is None:
        return DefaultScheduler()
    shape_tensors = [index for index, tensor in enumerate(spec.inputs) if tensor.is_shape_tensor]
    same_contents = SameShapeTensors(shape_tensors) if shape_tensors else None
    return DynamicScheduler(max(1, spec.max_batch_size), spec.batching, make_queue(spec.batching), same_contents)


def make_queue(batching: BatchingSpec) -> WaitingRequests:
    """The queue that the dynamic batcher's settings ask for: levels, limits and timeouts."""
    default, policies = batching.default_queue_policy, batching.priority_queue_policies
    if not batching.priority_levels:
        return make_level(default)
    return PriorityQueue(lambda level: make_level(policies.get(level, default)))


def make_level(policy: QueuePolicySpec) -> WaitingRequests:
    """One queue with its policy; without a default timeout nothing ever times out (rule 38)."""
    return TimeoutQueue(policy) if policy.default_timeout_us else RequestQueue(policy.max_queue_size)
