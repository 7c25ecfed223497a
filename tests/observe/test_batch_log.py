"""What is kept of every batch, and what an explanation says of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.config.spec import BatchingSpec, InstanceKind, InstanceSpec, ModelSpec
from shoal.observe.batch_log import KEPT_BATCHES, BatchLog
from shoal.observe.explanation import explain
from shoal.scheduling.contract import Batch, CloseReason, QueueStatistics

from .traffic import MadeBatch, batches, make_request, make_times

NOW_NS = 10**13
EMPTY = QueueStatistics(0, 0, None)


def made_spec(batching=None, max_batch_size=8, instances=2):
    each = tuple(InstanceSpec(f"m_0_{number}", InstanceKind.CPU, 0) for number in range(instances))
    return ModelSpec("m", 1, "python", "", max_batch_size, (), (), each, batching)


def log_of(made):
    log = BatchLog()
    for one in made:
        log.add(one.batch, one.times)
    log.settle()
    return log


def batch(rows=1, reason=CloseReason.IDLE, waited_us=10, took_us=100, taken_ns=10**12, **fields):
    requests = [make_request(1, taken_ns, taken_ns - waited_us * 1000) for _ in range(rows)]
    made = Batch(requests, rows, reason)
    for name, value in fields.items():
        setattr(made, name, value)
    return MadeBatch(made, make_times(taken_ns, infer_ns=took_us * 1000), [False] * rows)


def advice_for(made, spec=None):
    return " ".join(explain(spec or made_spec(BatchingSpec()), log_of(made), EMPTY, NOW_NS)["advice"])


@given(st.lists(batches(), max_size=20), st.integers(0, 3))
def test_totals_are_the_sums_of_the_batches(made, instances):
    for number, one in enumerate(made):
        one.batch.instance = number % (instances + 1)
    log = log_of(made)
    told = explain(made_spec(BatchingSpec(), instances=instances + 1), log, EMPTY, NOW_NS)
    assert told["batches"]["batches"] == len(made) == len(told["recent"])
    for part in ("reasons", "instances"):
        for name in ("batches", "requests", "rows"):
            assert sum(each[name] for each in told[part]) == told["batches"][name]
    assert told["batches"]["rows"] == sum(one.batch.rows for one in made)
    assert {each["reason"] for each in told["reasons"]} == {one.batch.reason.value for one in made}


def test_only_the_latest_batches_are_kept_one_by_one():
    log = log_of(batch(taken_ns=10**12 + number) for number in range(KEPT_BATCHES + 10))
    assert len(log.recent) == KEPT_BATCHES
    assert log.recent[-1].taken_ns == 10**12 + KEPT_BATCHES + 9
    assert log.by_reason[CloseReason.IDLE].batches == KEPT_BATCHES + 10


def test_each_priority_level_says_how_long_its_requests_waited():
    one = batch(rows=3, waited_us=0)
    for request, (level, waited_us) in zip(one.batch.requests, [(1, 5), (2, 30), (2, 40)], strict=True):
        request.plan.priority = level
        request.queued_ns = one.times.taken_ns - waited_us * 1000
    told = explain(made_spec(BatchingSpec(priority_levels=2)), log_of([one]), EMPTY, NOW_NS)["priorities"]
    assert [(each["priority"], each["requests"], each["waited_us"]) for each in told] == [(1, 1, 5), (2, 2, 70)]


def test_padding_adds_up():
    told = explain(
        made_spec(), log_of([batch(elements=6, padded_elements=8), batch(), batch(elements=4, padded_elements=8)]),
        EMPTY, NOW_NS,
    )  # fmt: skip
    assert told["padding"] == {"elements": 10, "padded_elements": 16}


def test_what_waits_is_told_with_its_age():
    told = explain(made_spec(), BatchLog(), QueueStatistics(3, 7, NOW_NS - 5_000_000), NOW_NS)
    assert told["queue"] == {"requests": 3, "rows": 7, "oldest_wait_us": 5000}


@pytest.mark.parametrize(
    ("spec", "made", "expected"),
    [
        (made_spec(BatchingSpec()), [batch()] * 3, "Only 3 batches have run"),
        (made_spec(max_batch_size=0), [batch()] * 9, "max_batch_size is 0"),
        (made_spec(), [batch()] * 9, "no dynamic_batching"),
        (made_spec(BatchingSpec()), [batch()] * 9, "nothing else waited"),
        (made_spec(BatchingSpec()), [batch(reason=CloseReason.SHAPE)] * 9, "another shape"),
        (made_spec(BatchingSpec(max_queue_delay_us=700)), [batch(reason=CloseReason.DELAY)] * 9, "delay of 700 us"),
        (made_spec(BatchingSpec()), [batch(rows=8, reason=CloseReason.FULL)] * 9, "Nothing stands out"),
        (
            made_spec(BatchingSpec(), instances=1),
            [batch(8, CloseReason.FULL, 5000, 100, 10**12 + number * 100_000) for number in range(20)],
            "more instances",
        ),
        (
            made_spec(BatchingSpec(), instances=1),
            [batch(1, CloseReason.PREFERRED, 5000, 100, 10**12 + number * 100_000) for number in range(20)],
            "with small batches",
        ),
        (made_spec(BatchingSpec()), [batch(rows=8, elements=10, padded_elements=40)] * 9, "75% of what the model"),
    ],
    ids=["few", "no batching", "no batcher", "idle", "shape", "delay", "fine", "busy", "small and busy", "padding"],
)
def test_advice_names_what_stands_out(spec, made, expected):
    assert expected in advice_for(made, spec)


@pytest.mark.parametrize("reason", [CloseReason.IDLE, CloseReason.DELAY])
def test_with_a_latency_target_nobody_is_told_to_set_a_delay(reason):
    """The setting is refused beside a target, which chooses the delay itself."""
    told = advice_for([batch(reason=reason)] * 9, made_spec(BatchingSpec(latency_target_us=50_000)))
    assert "delay" not in told
    assert told
