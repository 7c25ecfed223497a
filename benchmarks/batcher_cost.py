"""What a scheduler costs per request, by the number of requests that wait already: it must not grow with the queue.

A queue is filled; then, again and again, as many requests come as a batch holds and one batch is taken, so that the
queue keeps its length. Counted are the calls that the server makes on the way: enqueue, expired, take, done where the
scheduler follows its batches, wake_ns and statistics.

    ./scripts/bench batcher_cost
    ./scripts/bench batcher_cost --lengths 10 1000 --rounds 3
"""

import argparse
import time
from collections.abc import Iterable, Iterator

from shoal.config.padding import PaddedInput, PaddedLength, PaddingSpec
from shoal.config.spec import BatchingSpec, InstanceKind, InstanceSpec, ModelSpec, QueuePolicySpec, TimeoutAction
from shoal.requests import NOBODY, InferRequest
from shoal.scheduling.contract import Scheduler
from shoal.scheduling.make import make_scheduler
from shoal.testing.arrivals import RequestKind

BATCH = 32
REQUESTS = 3_200
LONG_US, SHORT_US = 10**10, 1_000
REJECT = QueuePolicySpec(default_timeout_us=LONG_US, allow_timeout_override=True)
DELAY = QueuePolicySpec(TimeoutAction.DELAY, SHORT_US, allow_timeout_override=True)
ONE = (RequestKind(),)
LEVELS = tuple(RequestKind(priority=level) for level in (3, 1, 2))
SHORT = tuple(RequestKind(timeout_us=timeout_us) for timeout_us in (900, 300, 0))  # all of them pass
LONG = tuple(RequestKind(timeout_us=timeout_us) for timeout_us in (9 * 10**9, 3 * 10**9, 0))  # none of them does

BUCKETS = tuple(RequestKind(key=(bucket,)) for bucket in range(4))
PADDING = PaddingSpec((PaddedLength((PaddedInput(0, 1, bytes(4)),), buckets=(16, 32, 64)),))

Case = tuple[BatchingSpec | None, tuple[RequestKind, ...]]
CASES: dict[str, Case] = {
    "default scheduler": (None, ONE),
    "dynamic batcher": (BatchingSpec(), ONE),
    "preserve_ordering": (BatchingSpec(preserve_ordering=True), ONE),
    "preferred sizes, delay": (BatchingSpec((8, 16), 1_000), ONE),
    "3 priority levels": (BatchingSpec(priority_levels=3, default_priority_level=2), LEVELS),
    "1,000 priority levels": (
        BatchingSpec(priority_levels=1_000, default_priority_level=1),
        tuple(RequestKind(priority=level) for level in range(1_000, 0, -1)),
    ),
    "timeout, REJECT": (BatchingSpec(default_queue_policy=REJECT), LONG),
    "timeout, DELAY": (BatchingSpec(default_queue_policy=DELAY), SHORT),
    "3 levels, DELAY": (BatchingSpec(default_queue_policy=DELAY, priority_levels=3, default_priority_level=2), LEVELS),
    "latency target": (BatchingSpec(latency_target_us=20_000), ONE),
    "4 length buckets": (BatchingSpec(), BUCKETS),
}


def model(batching: BatchingSpec | None, padding: PaddingSpec | None) -> ModelSpec:
    """A model with this batcher and one instance."""
    instance = InstanceSpec("m_0", InstanceKind.CPU, 0)
    size = BATCH if batching else 0
    return ModelSpec("m", 1, "python", "python", size, (), (), (instance,), batching, padding=padding)


def requests_of(kinds: tuple[RequestKind, ...]) -> Iterator[InferRequest]:
    """Requests without end."""
    while True:
        for kind in kinds:
            yield InferRequest(kind.plan, (), NOBODY, None, 0)


def cost_us(case: Case, length: int) -> float:
    """Microseconds per request with so many others in the queue."""
    batching, kinds = case
    scheduler = make_scheduler(model(batching, PADDING if kinds is BUCKETS else None))
    coming = requests_of(kinds)
    now_ns = 1_000_000_000
    for _ in range(length):
        scheduler.enqueue(next(coming), now_ns)
        now_ns += 1_000
    now_ns += 10_000_000
    scheduler.expired(now_ns)  # with DELAY, all that wait are late by now
    batch_size = BATCH if batching else 1
    made = [[next(coming) for _ in range(batch_size)] for _ in range(REQUESTS // batch_size)]
    started_s = time.perf_counter()
    play(scheduler, made, now_ns)
    return (time.perf_counter() - started_s) / REQUESTS * 1e6


def play(scheduler: Scheduler, groups: Iterable[list[InferRequest]], now_ns: int) -> None:
    """What the server asks of a scheduler for each batch."""
    for requests in groups:
        for request in requests:
            scheduler.enqueue(request, now_ns)
        scheduler.expired(now_ns)
        batch = scheduler.take(now_ns)
        now_ns += 1_000_000
        if batch is not None and scheduler.follows:
            scheduler.done(batch, now_ns)
        scheduler.wake_ns(now_ns)
        scheduler.statistics()


def best_of(rounds: int, case: Case, length: int) -> float:
    """The smallest of several measurements: what else the machine does can only add to it."""
    return min(cost_us(case, length) for _ in range(rounds))


def main() -> None:
    """Measure every case at every length and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[10, 1_000, 100_000])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print("microseconds per request: enqueue and the share of expired, take, done, wake_ns and statistics")
    print(f"{'requests in the queue':<24}" + "".join(f"{length:>10,}" for length in options.lengths))
    for name, case in CASES.items():
        costs = [best_of(options.rounds, case, length) for length in options.lengths]
        print(f"{name:<24}" + "".join(f"{cost:>10.2f}" for cost in costs), flush=True)


if __name__ == "__main__":
    main()
