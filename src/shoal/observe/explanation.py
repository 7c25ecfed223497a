"""Why a model's batches are what they are: the batch log in JSON, with advice in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

from shoal.config.spec import BatchingSpec, DirectSpec, ModelSpec
from shoal.observe.advice import Facts, advice
from shoal.observe.batch_log import BatchLog, BatchRecord, Totals
from shoal.scheduling.contract import CloseReason, QueueStatistics

Json = dict[str, Any]


def explain(spec: ModelSpec, log: BatchLog, queue: QueueStatistics, now_ns: int, beliefs: object | None = None) -> Json:
    """All that the batch log says of a model version.

    Args:
        spec: the model.
        log: its batches.
        queue: what waits at this moment.
        now_ns: the time (monotonic); times in the result are microseconds before it.
        beliefs: what the scheduler has measured and decided, when it decides by measurement (a dataclass).
    """
    counted = counts(spec, log)
    recent, total = log.recent, log.total
    explanation: Json = {
        "name": spec.name,
        "version": str(spec.version),
        "scheduler": scheduler_name(spec),
        "max_batch_size": spec.max_batch_size,
        "settings": _settings(spec.batching),
        "now_us": now_ns // 1000,
        "queue": {
            "requests": queue.requests,
            "rows": queue.rows,
            "oldest_wait_us": 0 if queue.oldest_ns is None else (now_ns - queue.oldest_ns) // 1000,
        },
        "batches": _totals(total),
        **counted,
        "advice": advice(_facts(spec, recent, total, queue)),
        "recent": [_record(record, now_ns) for record in recent],
    }
    if beliefs is not None and is_dataclass(beliefs) and not isinstance(beliefs, type):
        explanation["latency_target"] = asdict(beliefs)
    return explanation


def counts(spec: ModelSpec, log: BatchLog) -> Json:
    """What the batch log has added up, by reason, priority level and instance, and the padding."""
    log.settle()
    return {
        "reasons": [{"reason": reason.value, **_totals(each)} for reason, each in _sorted(log.by_reason)],
        "priorities": [{"priority": level, **_totals(each)} for level, each in sorted(log.by_priority.items())],
        "instances": _instances(spec, log.by_instance),
        "padding": {"elements": log.elements, "padded_elements": log.padded_elements},
    }


def scheduler_name(spec: ModelSpec) -> str:
    """How the model's requests are scheduled, in a word or two."""
    if spec.ensemble is not None:
        return "ensemble"
    if spec.sequence is not None:
        return "sequence, direct" if isinstance(spec.sequence.strategy, DirectSpec) else "sequence, oldest"
    return "default" if spec.batching is None else "dynamic batcher"


def _settings(batching: BatchingSpec | None) -> Json:
    """The batcher's settings that are not at their default."""
    if batching is None:
        return {}
    known = {
        "latency_target_us": batching.latency_target_us,
        "preferred_batch_size": [] if batching.latency_target_us else list(batching.preferred_batch_sizes),
        "max_queue_delay_us": batching.max_queue_delay_us,
        "preserve_ordering": batching.preserve_ordering,
        "priority_levels": batching.priority_levels,
    }
    return {name: value for name, value in known.items() if value}


def _totals(totals: Totals) -> Json:
    return {
        "batches": totals.batches,
        "requests": totals.requests,
        "rows": totals.rows,
        "waited_us": totals.waited_ns // 1000,
        "busy_us": totals.busy_ns // 1000,
    }


def _sorted(by_reason: dict[CloseReason, Totals]) -> list[tuple[CloseReason, Totals]]:
    return sorted(by_reason.items(), key=lambda item: -item[1].batches)


def _instances(spec: ModelSpec, by_instance: dict[int, Totals]) -> list[Json]:
    return [
        {"name": instance.name, "number": number, **_totals(by_instance.get(number) or Totals())}
        for number, instance in enumerate(spec.instances)
    ]


def _record(record: BatchRecord, now_ns: int) -> Json:
    """One batch; its times are microseconds before ``now_ns``."""
    return {
        "instance": record.instance,
        "reason": record.reason.value,
        "requests": record.requests,
        "rows": record.rows,
        "elements": record.elements,
        "padded_elements": record.padded_elements,
        "first_queued_us": (now_ns - record.first_queued_ns) // 1000,
        "last_queued_us": (now_ns - record.last_queued_ns) // 1000,
        "taken_us": (now_ns - record.taken_ns) // 1000,
        "inferred_us": (now_ns - record.infer_ns) // 1000,
        "done_us": (now_ns - record.done_ns) // 1000,
    }


def _facts(spec: ModelSpec, recent: Sequence[BatchRecord], total: Totals, queue: QueueStatistics) -> Facts:
    """What the latest batches say; all of them where few are kept."""
    count = max(1, len(recent))
    shares = {reason: sum(record.reason is reason for record in recent) / count for reason in CloseReason}
    span_ns = recent[-1].done_ns - recent[0].taken_ns if recent else 0
    busy_ns = sum(record.done_ns - record.taken_ns for record in recent)
    active = sum(not instance.passive for instance in spec.instances) or 1
    return Facts(
        scheduler=scheduler_name(spec),
        max_batch_size=spec.max_batch_size,
        delay_us=spec.batching.max_queue_delay_us if spec.batching is not None else 0,
        has_target=spec.batching is not None and spec.batching.latency_target_us > 0,
        batches=total.batches,
        shares=shares,
        rows_mean=sum(record.rows for record in recent) / count,
        wait_mean_us=sum(record.taken_ns - record.first_queued_ns for record in recent) / count / 1000,
        infer_mean_us=sum(record.done_ns - record.taken_ns for record in recent) / count / 1000,
        busy_share=min(1.0, busy_ns / span_ns / active) if span_ns > 0 else 0.0,
        waiting_rows=queue.rows,
        elements=sum(record.elements for record in recent),
        padded_elements=sum(record.padded_elements for record in recent),
    )
