"""What the sequence batcher costs per request, by how many sequences there are: it must not grow with them.

First so many other sequences are begun: they live and are idle, or wait in the backlog because there is no slot for
them. Then, again and again, one request comes for each of 32 sequences and one batch runs. Counted are the calls that
the server makes on the way: enqueue, expired, take, done, wake_ns and statistics.

    ./scripts/bench sequence_cost
    ./scripts/bench sequence_cost --counts 10 1000 --rounds 3
"""

import argparse
import time

from shoal.config.spec import DirectSpec, InstanceKind, InstanceSpec, ModelSpec, OldestSpec, SequenceSpec
from shoal.requests import LATEST, NOBODY, InferHead, InferRequest, RequestPlan, SequencePart
from shoal.scheduling.contract import Scheduler
from shoal.scheduling.make import make_scheduler
from shoal.testing.arrivals import RequestKind

BATCH = 32
BATCHES = 100
LONG_US = 10**12
SINK = RequestKind().plan.sink
CASES = ("direct, others in the backlog", "oldest, others idle", "oldest, others in the backlog")


def request(correlation_id: int, *, start: bool = False, end: bool = False) -> InferRequest:
    """A request of a sequence, with a timeout."""
    part = SequencePart(correlation_id, start, end)
    head = InferHead("m", LATEST, "", ())
    plan = RequestPlan(head, SINK, 1, (), (), (), (), timeout_us=LONG_US, sequence=part)
    return InferRequest(plan, (), NOBODY, None, 0)


def scheduler(case: str, count: int) -> Scheduler:
    """A sequence batcher with ``count`` sequences besides those of the benchmark."""
    idle = "idle" in case
    strategy = OldestSpec(BATCH + count if idle else BATCH) if "oldest" in case else DirectSpec()
    instance = InstanceSpec("m_0", InstanceKind.CPU, 0)
    sequence = SequenceSpec(strategy, LONG_US)
    made = make_scheduler(ModelSpec("m", 1, "python", "python", BATCH, (), (), (instance,), sequence=sequence))
    for number in range(1, BATCH + 1):
        made.enqueue(request(number, start=True), 0)
    for number in range(BATCH + 1, BATCH + count + 1):
        made.enqueue(request(number, start=True), 0)
    while (batch := made.take(0)) is not None:
        made.done(batch, 0)
    return made


def cost_us(case: str, count: int) -> float:
    """Microseconds for one request."""
    made = scheduler(case, count)
    arrivals = [[request(number) for number in range(1, BATCH + 1)] for _ in range(BATCHES)]
    start_ns = time.perf_counter_ns()
    for now_ns, step in enumerate(arrivals):
        for each in step:
            made.enqueue(each, now_ns)
        made.expired(now_ns)
        batch = made.take(now_ns)
        assert batch is not None
        assert len(batch.requests) == BATCH
        made.wake_ns(now_ns)
        made.statistics()
        made.done(batch, now_ns)
    return (time.perf_counter_ns() - start_ns) / 1_000 / BATCH / BATCHES


def main() -> None:
    """Print a table: the smallest of some rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[10, 1_000, 100_000])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(f"microseconds per request in batches of {BATCH}, by the number of other sequences")
    print(f"{'':32}" + "".join(f"{count:>12,}" for count in options.counts))
    for case in CASES:
        costs = [min(cost_us(case, count) for _ in range(options.rounds)) for count in options.counts]
        print(f"{case:32}" + "".join(f"{cost:>12.2f}" for cost in costs))


if __name__ == "__main__":
    main()
