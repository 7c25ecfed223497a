"""What a model's latest batches mean, in words: why its batches are small, what makes requests wait, what to change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from shoal.scheduling.contract import CloseReason

ENOUGH_BATCHES = 8
"""Fewer batches than this say nothing."""
MOST = 0.5
MUCH = 0.2
SMALL_SHARE = 0.5
"""A batch below this share of the largest is small."""
BUSY = 0.9
PADDING_WASTE = 0.3


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a model's latest batches.

    Attributes:
        scheduler: such as ``dynamic batcher``.
        max_batch_size: most rows in a batch.
        delay_us: how long the batcher may hold a request.
        has_target: whether a latency target decides about delays and sizes.
        batches: batches that ran so far.
        shares: the share of the latest batches that each reason closed.
        rows_mean: their rows, on average.
        wait_mean_us: how long the first request of each waited, on average.
        infer_mean_us: how long they took, from the queue to the answers, on average.
        busy_share: how much of the time the instances were busy.
        waiting_rows: rows that wait now.
        elements: elements of padded inputs as the clients sent them.
        padded_elements: the same with the padding.
    """

    scheduler: str
    max_batch_size: int
    delay_us: int
    has_target: bool
    batches: int
    shares: Mapping[CloseReason, float]
    rows_mean: float
    wait_mean_us: float
    infer_mean_us: float
    busy_share: float
    waiting_rows: int
    elements: int
    padded_elements: int


def advice(facts: Facts) -> list[str]:
    """Sentences, the most important first; never empty."""
    if facts.scheduler == "ensemble":
        return ["An ensemble forms no batches of its own: ask for its members one by one."]
    if facts.batches < ENOUGH_BATCHES:
        return [f"Only {facts.batches} batches have run: send more requests to see how they are batched."]
    found = [*_setup(facts), *_small(facts), *_waiting(facts), *_padding(facts)]
    return found or ["Nothing stands out: batches are of a good size and requests do not wait long."]


def _setup(facts: Facts) -> Iterator[str]:
    if facts.max_batch_size == 0:
        yield "max_batch_size is 0, so every request runs alone. If the model takes a batch dimension, set it."
    elif facts.scheduler == "default" and facts.max_batch_size > 1:
        yield "The model has no dynamic_batching, so every request runs alone. Add: dynamic_batching { }"


def _small(facts: Facts) -> Iterator[str]:
    """Why batches are smaller than they could be."""
    if facts.scheduler != "dynamic batcher" or facts.rows_mean >= SMALL_SHARE * facts.max_batch_size:
        return
    idle, delay, shape = (facts.shares[each] for each in (CloseReason.IDLE, CloseReason.DELAY, CloseReason.SHAPE))
    size = f"Batches have {facts.rows_mean:.1f} of {facts.max_batch_size} rows"
    if idle >= MOST:
        wait = "" if facts.has_target else ", or let them wait with max_queue_delay_microseconds"
        yield (
            f"{size}: {idle:.0%} of them ran because an instance was free and nothing else waited. That is the fastest "
            f"for each request. For larger batches send more requests at once{wait}."
        )
    if shape >= MUCH:
        yield (
            f"{size}: {shape:.0%} of them were closed by a request of another shape or with other inputs. Pad the "
            "input (parameter 'padding'), use length buckets, or send equal shapes together."
        )
    if delay >= MOST and not facts.has_target:
        yield (
            f"{size}: {delay:.0%} of them waited for the whole delay of {facts.delay_us} us and did not fill. A "
            "shorter delay answers sooner and loses little; preferred_batch_size says what is worth waiting for."
        )


def _waiting(facts: Facts) -> Iterator[str]:
    """What makes requests wait."""
    if facts.wait_mean_us <= facts.infer_mean_us or facts.busy_share < BUSY:
        return
    wait = f"Requests wait {facts.wait_mean_us:.0f} us for batches that take {facts.infer_mean_us:.0f} us"
    if facts.rows_mean >= SMALL_SHARE * max(1, facts.max_batch_size):
        yield (
            f"{wait}, and the instances are busy {facts.busy_share:.0%} of the time: more instances "
            "(instance_group count), a larger max_batch_size or a faster model is what helps; a limit on the queue "
            "(max_queue_size) keeps the wait short for those that are taken."
        )
    else:
        yield f"{wait}, and the instances are busy {facts.busy_share:.0%} of the time with small batches."


def _padding(facts: Facts) -> Iterator[str]:
    if not facts.padded_elements:
        return
    waste = 1 - facts.elements / facts.padded_elements
    if waste >= PADDING_WASTE:
        yield f"{waste:.0%} of what the model computes is padding: give the input length buckets, or more of them."
