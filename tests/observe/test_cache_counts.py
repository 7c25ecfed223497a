"""Hits and misses of the response cache in a model's statistics (sections 1.8 and 2.9)."""

from hypothesis import given
from hypothesis import strategies as st

from shoal.observe.statistics import ModelStatistics
from tests.observe.traffic import make_request, play, traffic

TIMES = st.integers(0, 10**10)


@given(traffic, st.lists(st.tuples(TIMES, TIMES)), st.lists(TIMES))
def test_a_hit_is_a_success_that_ran_nothing(events, hits, misses):
    """It adds to success, queue and cache_hit; what the model did stays as it was."""
    without, statistics = ModelStatistics("m", 1), ModelStatistics("m", 1)
    play(without, events)
    play(statistics, events)
    for took_ns, lookup_ns in hits:
        request = make_request()
        statistics.cache_hit(request, lookup_ns, request.arrival_ns + took_ns)
    for took_ns in misses:
        statistics.cache_miss(took_ns)
    before, after = without.to_dict(), statistics.to_dict()
    stats, expected = after["inference_stats"], before["inference_stats"]
    took_ns = sum(took for took, _ in hits)
    expected["success"] = {"count": expected["success"]["count"] + len(hits), "ns": expected["success"]["ns"] + took_ns}
    expected["queue"] = {"count": expected["success"]["count"], "ns": expected["queue"]["ns"]}
    expected["cache_hit"] = {"count": len(hits), "ns": sum(lookup for _, lookup in hits)}
    expected["cache_miss"] = {"count": len(misses), "ns": sum(misses)}
    assert stats == expected
    assert (after["inference_count"], after["execution_count"]) == (
        before["inference_count"],
        before["execution_count"],
    )
    assert after["batch_stats"] == before["batch_stats"]
    assert sum(statistics.request_buckets) == sum(statistics.queue_buckets) == statistics.success_count
