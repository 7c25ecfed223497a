"""The metrics page of a running server: what it counts is what happened, and what the statistics extension says."""

from __future__ import annotations

import pytest

from tests.clients import get, infer, row, tensor
from tests.execution.models import write_model
from tests.frontends.conftest import REFUSING
from tests.frontends.metrics_page import FAILURES, MetricsPage
from tests.serving import ShoalProcess

GOOD, WIDE, BAD = 5, 2, 3
DURATIONS = {
    "nv_inference_request_duration_us": "success",
    "nv_inference_queue_duration_us": "queue",
    "nv_inference_compute_input_duration_us": "compute_input",
    "nv_inference_compute_infer_duration_us": "compute_infer",
    "nv_inference_compute_output_duration_us": "compute_output",
}


@pytest.fixture(scope="module")
def shoal(tmp_path_factory):
    """A server after known traffic: single rows, batches of three rows, and requests that the model refuses."""
    repository = tmp_path_factory.mktemp("models")
    write_model(repository, "refusing", REFUSING)
    with ShoalProcess(repository) as shoal:
        for _ in range(GOOD):
            assert infer(shoal.http, "refusing", row(1)).status == 200
        for _ in range(WIDE):
            assert infer(shoal.http, "refusing", tensor("IN", [3, 1], [1, 2, 3])).status == 200
        for _ in range(BAD):
            assert infer(shoal.http, "refusing", row(-1)).status == 400
        yield shoal


@pytest.fixture(scope="module")
def page(shoal):
    return MetricsPage(shoal)


@pytest.fixture(scope="module")
def statistics(shoal):
    (statistics,) = get(shoal.http, "/v2/models/refusing/stats").json["model_stats"]
    return statistics


def test_counters_tell_the_traffic(page):
    labels = {"model": "refusing", "version": "1"}
    assert page.value("nv_inference_request_success", **labels) == GOOD + WIDE
    assert page.value("nv_inference_count", **labels) == GOOD + 3 * WIDE
    assert page.value("nv_inference_exec_count", **labels) == GOOD + WIDE + BAD
    assert page.value(FAILURES, **labels, reason="BACKEND") == BAD
    assert page.value("nv_inference_pending_request_count", **labels) == 0


def test_it_says_what_the_statistics_say(page, statistics):
    assert page.value("nv_inference_count") == statistics["inference_count"]
    assert page.value("nv_inference_exec_count") == statistics["execution_count"]
    of_requests = statistics["inference_stats"]
    assert page.value("nv_inference_request_success") == of_requests["success"]["count"]
    assert sum(value for name, _, value in page.samples if name == FAILURES) == of_requests["fail"]["count"]
    for name, of in DURATIONS.items():
        assert page.value(name) == of_requests[of]["ns"] // 1000 > 0


def test_batches_are_those_of_the_statistics(page, statistics):
    by_size = {each["batch_size"]: each["compute_infer"]["count"] for each in statistics["batch_stats"]}
    assert by_size == {1: GOOD + BAD, 3: WIDE}
    assert page.value("shoal_inference_batch_rows_count", reason="idle") == sum(by_size.values())
    assert page.value("shoal_inference_batch_rows_sum", reason="idle") == GOOD + BAD + 3 * WIDE
    assert page.value("shoal_inference_batch_rows_bucket", reason="idle", le="1.0") == GOOD + BAD


def test_every_family_has_a_type_and_every_histogram_its_sum(page):
    assert page.kinds["nv_inference_request_success"] == "counter"
    assert page.kinds["nv_inference_pending_request_count"] == "gauge"
    assert "unknown" not in page.kinds.values()
    histograms = [name for name, kind in page.kinds.items() if kind == "histogram"]
    assert len(histograms) == 4
    names = {name for name, _, _ in page.samples}
    assert all({name + "_bucket", name + "_sum", name + "_count"} <= names for name in histograms)


def test_counters_never_go_back(shoal, page):
    assert infer(shoal.http, "refusing", row(1)).status == 200
    counters = {name for name, kind in page.kinds.items() if kind == "counter"}
    later = MetricsPage(shoal)
    for name, labels, value in page.samples:
        if name in counters:
            assert later.value(name, **labels) >= value
    assert later.value("nv_inference_count") == page.value("nv_inference_count") + 1
