"""Makes the sequence batcher that a model's configuration asks for."""

from __future__ import annotations

from shoal.config.spec import BatchingSpec, ModelSpec, OldestSpec, SequenceSpec
from shoal.scheduling.dynamic import DynamicScheduler, SameContents
from shoal.scheduling.queue import RequestQueue
from shoal.scheduling.sequence import SequenceScheduler
from shoal.scheduling.sequence_batcher import InstanceBatcher
from shoal.scheduling.sequence_direct import DirectBatcher
from shoal.scheduling.sequence_oldest import OldestBatcher


def make_sequence_scheduler(
    spec: ModelSpec, sequence: SequenceSpec, same_contents: SameContents | None
) -> SequenceScheduler:
    """A scheduler without sequences, with slots on every instance that takes batches."""
    rows = max(1, spec.max_batch_size)
    strategy = sequence.strategy
    slots = (isinstance(strategy, OldestSpec) and strategy.max_candidate_sequences) or rows

    def batcher() -> InstanceBatcher:
        if not isinstance(strategy, OldestSpec):
            return DirectBatcher(slots, strategy, same_contents)
        batching = BatchingSpec(strategy.preferred_batch_sizes, strategy.max_queue_delay_us)
        return OldestBatcher(DynamicScheduler(rows, batching, RequestQueue(), same_contents))

    numbers = [number for number, instance in enumerate(spec.instances) if not instance.passive]
    return SequenceScheduler(spec, {number: batcher() for number in numbers}, slots)
