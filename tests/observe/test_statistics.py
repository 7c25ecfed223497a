"""ModelStatistics against the plainest way to count, and against what the real Triton answers."""

import json
from pathlib import Path

from hypothesis import given

from shoal.errors import FailureReason
from shoal.observe.buckets import DURATION_BOUNDS_S, ROWS_BOUNDS
from shoal.observe.statistics import ModelStatistics
from shoal.scheduling.contract import Batch, CloseReason
from tests.observe.traffic import MadeBatch, make_request, make_times, play, traffic

TRITON = json.loads((Path(__file__).parent / "triton_statistics.json").read_text())["model_stats"][0]


def bucket(bounds, value):
    """Which bucket a value belongs to, by its definition: the first bound that is not below it."""
    return next((index for index, bound in enumerate(bounds) if value <= bound), len(bounds))


def histogram(bounds, values):
    counts = [0] * (len(bounds) + 1)
    for value in values:
        counts[bucket(bounds, value)] += 1
    return counts


EPOCH_NS = 1_234_567_890_123_456


def split(events):
    return [one for one in events if isinstance(one, MadeBatch)], [one for one in events if type(one) is tuple]


@given(traffic)
def test_counts_equal_those_of_a_plain_model(events):
    """Rule 43 and section 2.9: every field of the statistics, over any batches, failures in them, and rejections."""
    statistics = ModelStatistics("m", 3, epoch_ns=EPOCH_NS)
    play(statistics, events)
    ran, rejected = split(events)
    told = statistics.to_dict()
    answered = [(made, request) for made in ran for request in made.answered]
    failed = [(made, request) for made in ran for request in made.batch.requests if request not in made.answered]
    stats = told["inference_stats"]
    count = len(answered)
    assert stats["success"] == {"count": count, "ns": sum(m.times.done_ns - r.arrival_ns for m, r in answered)}
    assert stats["queue"] == {"count": count, "ns": sum(m.times.taken_ns - r.queued_ns for m, r in answered)}
    assert stats["compute_input"] == {
        "count": count,
        "ns": sum(m.times.input_ns - m.times.taken_ns for m, _ in answered),
    }
    assert stats["compute_infer"] == {
        "count": count,
        "ns": sum(m.times.infer_ns - m.times.input_ns for m, _ in answered),
    }
    assert stats["compute_output"] == {
        "count": count,
        "ns": sum(m.times.output_ns - m.times.infer_ns for m, _ in answered),
    }
    assert stats["fail"] == {
        "count": len(failed) + len(rejected),
        "ns": sum(m.times.done_ns - r.arrival_ns for m, r in failed) + sum(took_ns for _, took_ns in rejected),
    }
    assert told["inference_count"] == sum(request.plan.rows for _, request in answered)
    assert told["execution_count"] == len(ran)
    assert told["last_inference"] == ((EPOCH_NS + ran[-1].times.done_ns) // 1_000_000 if ran else 0)
    for reason in FailureReason:
        by_model = len(failed) if reason is FailureReason.BACKEND else 0
        assert statistics.failures[reason] == by_model + sum(one is reason for one, _ in rejected)


@given(traffic)
def test_batch_stats_count_each_execution_once(events):
    statistics = ModelStatistics("m", 1)
    play(statistics, events)
    ran, _ = split(events)
    told = statistics.to_dict()["batch_stats"]
    assert [entry["batch_size"] for entry in told] == sorted({made.batch.rows for made in ran})
    for entry in told:
        times = [made.times for made in ran if made.batch.rows == entry["batch_size"]]
        assert entry["compute_input"] == {"count": len(times), "ns": sum(t.input_ns - t.taken_ns for t in times)}
        assert entry["compute_infer"] == {"count": len(times), "ns": sum(t.infer_ns - t.input_ns for t in times)}
        assert entry["compute_output"] == {"count": len(times), "ns": sum(t.output_ns - t.infer_ns for t in times)}


@given(traffic)
def test_histograms_equal_those_of_a_plain_model(events):
    statistics = ModelStatistics("m", 1)
    play(statistics, events)
    ran, _ = split(events)
    bounds_ns = [round(bound * 1e9) for bound in DURATION_BOUNDS_S]
    answered = [(made.times, request) for made in ran for request in made.answered]
    assert statistics.request_buckets == histogram(bounds_ns, [t.done_ns - r.arrival_ns for t, r in answered])
    assert statistics.queue_buckets == histogram(bounds_ns, [t.taken_ns - r.queued_ns for t, r in answered])
    statistics.log.settle()
    assert statistics.log.infer_buckets == histogram(bounds_ns, [m.times.infer_ns - m.times.input_ns for m in ran])
    assert set(statistics.log.rows_by_reason) == {made.batch.reason for made in ran}
    for reason, rows in statistics.log.rows_by_reason.items():
        sizes = [made.batch.rows for made in ran if made.batch.reason is reason]
        assert rows.counts == histogram(ROWS_BOUNDS, sizes)
        assert rows.rows == sum(sizes)


def shape_of(value):
    """Keys and types of a JSON value; of a list, those of its first item."""
    if isinstance(value, dict):
        return {key: shape_of(one) for key, one in value.items()}
    return [shape_of(one) for one in value[:1]] if isinstance(value, list) else type(value)


def test_json_has_the_shape_of_the_real_server():
    """Section 2.9: the same keys in the same order, with the same types, as recorded from Triton 2.51."""
    statistics = ModelStatistics("slow", 1)
    request = make_request()
    statistics.batch_done(Batch([request], 1, CloseReason.IDLE), make_times(5, 1, 1, 1, 1), [request])
    told = statistics.to_dict()
    assert shape_of(told) == shape_of(TRITON)
    assert list(told) == list(TRITON)
    assert list(told["inference_stats"]) == list(TRITON["inference_stats"])
    assert list(told["batch_stats"][0]) == list(TRITON["batch_stats"][0])


def test_a_model_that_did_nothing_has_every_field_at_zero():
    told = ModelStatistics("m", 1).to_dict()
    assert (told["inference_count"], told["execution_count"], told["last_inference"], told["batch_stats"]) == (
        0,
        0,
        0,
        [],
    )
    assert set(told["inference_stats"]) == set(TRITON["inference_stats"])
    assert all(one == {"count": 0, "ns": 0} for one in told["inference_stats"].values())


def test_compute_times_count_for_every_request_of_a_batch():
    """As measured on the real server: three requests in a batch of 327 ms count 981 ms, the batch size's entry 327."""
    requests = [make_request(rows, 0, 0) for rows in (1, 1, 2)]
    statistics = ModelStatistics("m", 1)
    statistics.batch_done(Batch(requests, 4, CloseReason.FULL), make_times(0, 1, 327, 2, 0), requests)
    told = statistics.to_dict()
    assert told["inference_stats"]["compute_infer"] == {"count": 3, "ns": 981}
    assert told["batch_stats"] == [
        {
            "batch_size": 4,
            "compute_input": {"count": 1, "ns": 1},
            "compute_infer": {"count": 1, "ns": 327},
            "compute_output": {"count": 1, "ns": 2},
        }
    ]


def test_a_batch_that_raised_is_an_execution_without_inferences():
    """As the real server counts it."""
    requests = [make_request(), make_request(2)]
    statistics = ModelStatistics("m", 1)
    MadeBatch(Batch(requests, 3, CloseReason.FULL), make_times(10, 1, 5, 1, 1), [True, True]).play(statistics)
    told = statistics.to_dict()
    assert (told["inference_count"], told["execution_count"]) == (0, 1)
    assert told["inference_stats"]["success"]["count"] == 0
    assert told["inference_stats"]["fail"] == {"count": 2, "ns": 36}
    assert [entry["batch_size"] for entry in told["batch_stats"]] == [3]


def test_only_the_answered_requests_of_a_batch_count_as_successes():
    statistics = ModelStatistics("m", 1)
    good, bad = make_request(2), make_request(5)
    statistics.request_failed(bad, FailureReason.BACKEND, 1)
    statistics.batch_done(Batch([good, bad], 7, CloseReason.FULL), make_times(1), [good])
    assert (statistics.success_count, statistics.inference_count) == (1, 2)
