"""Requests for scheduler tests: only what a scheduler looks at."""

from __future__ import annotations

from shoal.config.spec import BatchingSpec, InstanceKind, InstanceSpec, ModelSpec
from shoal.requests import LATEST, InferHead, InferRequest, RequestPlan
from shoal.scheduling.contract import Scheduler
from shoal.scheduling.make import make_scheduler


class Nobody:
    """The sink and responder of requests that nobody answers."""

    def submit(self, request):
        raise AssertionError

    def cancel(self, request):
        raise AssertionError

    def completed(self, request, response):
        raise AssertionError

    def failed(self, request, error):
        raise AssertionError


NOBODY = Nobody()


def request(rows: int = 1, key: tuple = (), *, priority: int = 0, timeout_us: int = 0, name: str = "") -> InferRequest:
    head = InferHead("m", LATEST, name, ())
    plan = RequestPlan(head, NOBODY, rows, (), (), key, (), (), priority, timeout_us)
    return InferRequest(plan, (), NOBODY, None, 0)


def scheduler(max_batch_size: int = 8, **batching) -> Scheduler:
    return make_scheduler(model(max_batch_size, BatchingSpec(**batching)))


def model(max_batch_size: int, batching: BatchingSpec | None, instances: int = 1) -> ModelSpec:
    each = tuple(InstanceSpec(f"m_{number}", InstanceKind.CPU, 0) for number in range(instances))
    return ModelSpec("m", 1, "python", "python", max_batch_size, (), (), each, batching)


def queue(scheduler: Scheduler, *requests: InferRequest, now_ns: int = 0) -> list[InferRequest]:
    for each in requests:
        scheduler.enqueue(each, now_ns)
    return list(requests)


def taken_rows(scheduler: Scheduler, now_ns: int = 0) -> list[int]:
    """The rows of every batch that free instances get at this moment."""
    rows = []
    while (batch := scheduler.take(now_ns)) is not None:
        rows.append(batch.rows)
    return rows
