"""The dynamic batcher's rules once more, naively: what the scheduler tests hold the real one against."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from shoal.config.spec import BatchingSpec, QueuePolicySpec, TimeoutAction
from shoal.requests import InferRequest

Joins = Callable[[Sequence[InferRequest], InferRequest], bool]
"""Whether a request may join those before it, besides what the batcher asks for itself."""


def always(joined: Sequence[InferRequest], other: InferRequest) -> bool:
    return True


def batch_length(
    waiting: Sequence[InferRequest], now_ns: int, max_batch_size: int, batching: BatchingSpec, joins: Joins = always
) -> int:
    """How many of the first waiting requests are to run now; 0 for none."""
    sizes = batching.preferred_batch_sizes or (max_batch_size,)
    rows = [each.plan.rows for each in waiting]
    totals = [sum(rows[:count]) for count in range(len(rows) + 1)]
    fitting = longest_fitting(waiting, totals, max_batch_size, joins)
    if not fitting:
        return 0
    delay_ns = batching.max_queue_delay_us * 1_000
    age_ns = now_ns - min(each.queued_ns for each in waiting[:fitting])
    if delay_ns and age_ns >= delay_ns:
        return fitting
    preferred = [count for count in range(1, fitting + 1) if totals[count] in sizes]
    if preferred:
        return preferred[-1]
    passing = [count for count in range(1, fitting + 1) if count < len(rows) and totals[count + 1] > max(sizes)]
    if passing:
        return passing[0]
    grows = fitting == len(waiting) and totals[fitting] < max(sizes)
    return 0 if grows and delay_ns else fitting


def longest_fitting(waiting: Sequence[InferRequest], totals: list[int], max_batch_size: int, joins: Joins) -> int:
    """How many of the first requests have the same key and fit into a batch."""
    count = 0
    for each in waiting:
        if each.plan.batch_key != waiting[0].plan.batch_key or totals[count + 1] > max_batch_size:
            break
        if count and not joins(waiting[:count], each):
            break
        count += 1
    return count


class QueueModel:
    """Levels with limits and timeouts, as plain lists."""

    def __init__(self, batching: BatchingSpec) -> None:
        self.batching = batching
        self.in_time: list[InferRequest] = []
        self.delayed: list[InferRequest] = []
        self.rejected: list[InferRequest] = []

    def policy(self, request: InferRequest) -> QueuePolicySpec:
        default = self.batching.default_queue_policy
        return self.batching.priority_queue_policies.get(request.plan.priority, default)

    def is_full_for(self, request: InferRequest) -> bool:
        same_level = [each for each in self.waiting() if each.plan.priority == request.plan.priority]
        return 0 < self.policy(request).max_queue_size <= len(same_level)

    def deadline_ns(self, request: InferRequest) -> int | None:
        policy = self.policy(request)
        timeout_us = policy.default_timeout_us
        if policy.allow_timeout_override and 0 < request.plan.timeout_us < timeout_us:
            timeout_us = request.plan.timeout_us
        return request.queued_ns + timeout_us * 1_000 if timeout_us else None

    def expire(self, now_ns: int) -> None:
        """Delay or reject what is late, the earliest deadline first."""
        due = [each for each in self.in_time if (at := self.deadline_ns(each)) is not None and at <= now_ns]
        for each in sorted(due, key=self.deadline_ns):
            self.in_time.remove(each)
            rejects = self.policy(each).timeout_action is TimeoutAction.REJECT
            (self.rejected if rejects else self.delayed).append(each)

    def waiting(self) -> list[InferRequest]:
        """Everything in the order in which it runs: by level, those in time before the delayed."""
        ranked = [(each.plan.priority, late, each) for late, each in self._both()]
        return [each for _, _, each in sorted(ranked, key=lambda entry: entry[:2])]

    def _both(self):
        return [(False, each) for each in self.in_time] + [(True, each) for each in self.delayed]

    def remove(self, request: InferRequest) -> None:
        (self.in_time if request in self.in_time else self.delayed).remove(request)
