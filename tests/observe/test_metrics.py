"""The metrics page: Triton's names and labels, numbers that agree with the statistics, and text that parses."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from shoal.errors import FailureReason
from shoal.observe.machine import CpuMeter, memory_use, process_use
from shoal.observe.metrics import Metrics, MetricsSettings
from shoal.observe.source import ProcessSample, Role
from shoal.observe.statistics import ModelStatistics
from tests.observe.traffic import Source, make_sample, play, traffic

TRITON = (Path(__file__).parent / "triton_metrics.txt").read_text()
NOT_HERE = {"nv_pinned_memory_pool_total_bytes", "nv_pinned_memory_pool_used_bytes"}


def heads(text):
    """Help and type of every family, as written."""
    return {
        name: (help_text, kind)
        for name, help_text, kind in re.findall(r"^# HELP (\w+) (.*)\n# TYPE \w+ (\w+)$", text, re.MULTILINE)
    }


def label_names(text):
    """The label names of every sample, by the sample's name as written."""
    names = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name = re.match(r"\w+", line)[0]
            names.setdefault(name, set()).add(frozenset(re.findall(r'(\w+)="', line)))
    return names


def samples(text):
    """Values by sample name and labels, read by the library's parser; it adds the ``_total`` that Triton lacks."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def render(*models, **more):
    return Metrics(Source(list(models), **more)).render().decode()


def value(values, name, **labels):
    return values[name, frozenset({"model": "m", "version": "1", **labels}.items())]


def test_tritons_families_have_its_names_helps_types_and_labels():
    """Section 1.9, as recorded from Triton 2.51: what Shoal has of it is written exactly so."""
    ours, theirs = render(make_sample()), TRITON
    wanted = {name: head for name, head in heads(theirs).items() if name not in NOT_HERE}
    assert wanted == {name: head for name, head in heads(ours).items() if name in wanted}
    for name, labels in label_names(theirs).items():
        if name not in NOT_HERE:
            assert label_names(ours)[name] == labels, name


def test_the_load_time_is_there_by_tritons_later_name():
    """Later than the recorded version: a gauge in seconds."""
    text = render(make_sample())
    assert heads(text)["nv_model_load_duration_secs"] == ("Model load time in seconds", "gauge")
    assert value(samples(text), "nv_model_load_duration_secs") == 0.25


def test_all_failure_reasons_exist_from_the_start():
    """Rule 43: an alert on a rate needs the series before the first failure."""
    values = samples(render(make_sample()))
    for reason in ("REJECTED", "CANCELED", "BACKEND", "OTHER"):
        assert value(values, "nv_inference_request_failure_total", reason=reason) == 0


@given(traffic)
@settings(max_examples=50)
def test_numbers_agree_with_the_statistics(events):
    statistics = ModelStatistics("m", 1)
    play(statistics, events)
    values = samples(render(make_sample(statistics)))
    told = statistics.to_dict()
    stats = told["inference_stats"]
    assert value(values, "nv_inference_request_success_total") == stats["success"]["count"]
    assert value(values, "nv_inference_count_total") == told["inference_count"]
    assert value(values, "nv_inference_exec_count_total") == told["execution_count"]
    for name, field in (
        ("request", "success"),
        ("queue", "queue"),
        ("compute_input", "compute_input"),
        ("compute_infer", "compute_infer"),
        ("compute_output", "compute_output"),
    ):
        assert value(values, f"nv_inference_{name}_duration_us_total") == stats[field]["ns"] // 1000
    for reason in FailureReason:
        counted = value(values, "nv_inference_request_failure_total", reason=reason.value)
        assert counted == statistics.failures[reason]
    for name, count, sum_ns in (
        ("request", stats["success"]["count"], stats["success"]["ns"]),
        ("queue", stats["queue"]["count"], stats["queue"]["ns"]),
        ("compute_infer", told["execution_count"], sum(one["compute_infer"]["ns"] for one in told["batch_stats"])),
    ):
        family = f"shoal_inference_{name}_duration_seconds"
        assert value(values, f"{family}_count") == count
        assert value(values, f"{family}_bucket", le="+Inf") == count
        assert value(values, f"{family}_sum") == pytest.approx(sum_ns / 1e9)
    batches = sum(one for (name, _), one in values.items() if name == "shoal_inference_batch_rows_count")
    assert batches == told["execution_count"]


@given(traffic)
@settings(max_examples=25)
def test_histogram_buckets_only_grow(events):
    """A bucket holds all that is not above its bound, so a smaller one before it."""
    statistics = ModelStatistics("m", 1)
    play(statistics, events)
    series = {}
    for (name, labels), count in samples(render(make_sample(statistics))).items():
        if name.endswith("_bucket"):
            bound = dict(labels)["le"]
            series.setdefault((name, labels - {("le", bound)}), []).append((float(bound), count))
    assert len(series) >= 3
    for buckets in series.values():
        counts = [count for _, count in sorted(buckets)]
        assert counts == sorted(counts)


def test_gauges_show_the_moment():
    values = samples(render(make_sample(), open_connections={"http": 5, "grpc": 0}))
    assert value(values, "nv_inference_pending_request_count") == 3
    assert value(values, "shoal_inference_pending_rows") == 7
    assert value(values, "shoal_model_instances") == 2
    assert value(values, "shoal_worker_restarts_total") == 4
    assert values["shoal_open_connections", frozenset({("service", "http")})] == 5
    assert values["shoal_open_connections", frozenset({("service", "grpc")})] == 0


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
@settings(max_examples=50)
def test_labels_survive_any_text(name, tag):
    """Quotes, backslashes and line ends in a model's name or tag neither break the page nor change."""
    text = render(make_sample(name=name, tags={"team": tag, "cost-centre": "7"}))
    labels = {"model": name, "version": "1", "_team": tag, "_cost_centre": "7"}
    assert samples(text)["nv_inference_count_total", frozenset(labels.items())] == 0


def test_a_model_named_like_a_counter_keeps_its_name():
    """The names that lose the library's ``_total`` are the families', never a label's value."""
    name = "nv_total{x\nnv_inference_count_total 7"
    values = samples(render(make_sample(name=name)))
    assert values["nv_inference_count_total", frozenset({("model", name), ("version", "1")})] == 0


def test_processes_show_their_memory_and_processor_time():
    pid = os.getpid()
    gone = ProcessSample(2**22 + 1, Role.WORKER, "m")
    values = samples(render(process_samples=[ProcessSample(pid, Role.SERVER), gone]))
    labels = frozenset({"process": "server", "model": "", "pid": str(pid)}.items())
    assert values["shoal_process_resident_memory_bytes", labels] > 1_000_000
    assert values["shoal_process_cpu_seconds_total", labels] > 0
    assert len([name for name, _ in values if name == "shoal_process_resident_memory_bytes"]) == 1


def test_a_snapshot_is_rendered_without_asking_the_source_again():
    """The source belongs to the event loop's thread; the page is written on another one."""
    source = Source([make_sample()], open_connections={"http": 5})
    metrics = Metrics(source)
    snapshot = metrics.snapshot()
    source.model_samples.clear()
    source.open_connections["http"] = 6
    values = samples(metrics.render(snapshot).decode())
    assert value(values, "shoal_model_instances") == 2
    assert values["shoal_open_connections", frozenset({("service", "http")})] == 5
    assert "shoal_model_instances{" not in metrics.render().decode()


def test_the_machines_families_can_be_left_out():
    metrics = Metrics(Source(), MetricsSettings(cpu=False))
    assert "nv_cpu" not in metrics.render().decode()


def test_it_can_be_registered_with_the_library():
    registry = CollectorRegistry()
    registry.register(Metrics(Source([make_sample()])))
    assert registry.get_sample_value("shoal_model_instances", {"model": "m", "version": "1"}) == 2


def write_proc(proc, busy, idle):
    (proc / "stat").write_text(f"cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n")


def test_utilization_is_measured_from_one_reading_to_the_next(tmp_path):
    now = [0]
    write_proc(tmp_path, 100, 100)
    meter = CpuMeter(1000, lambda: now[0], tmp_path)
    write_proc(tmp_path, 130, 170)
    assert meter.utilization() == 0.3
    now[0] = 999_999_999
    write_proc(tmp_path, 230, 170)
    assert meter.utilization() == 0.3
    now[0] = 1_000_000_000
    assert meter.utilization() == 1.0


def test_what_the_system_does_not_say_is_left_out(tmp_path):
    assert CpuMeter(1, lambda: 0, tmp_path).utilization() is None
    assert memory_use(tmp_path) is None
    assert process_use(1, tmp_path) is None


def test_a_process_may_have_any_name(tmp_path):
    """The name stands in the middle of the line, and a process chooses it."""
    (tmp_path / "7").mkdir()
    fields = " ".join(["S", *["0"] * 10, "150", "50", *["0"] * 8, "12", "0"])
    (tmp_path / "7" / "stat").write_text(f"7 (a) 1 2 (b) {fields}\n")
    use = process_use(7, tmp_path)
    assert use is not None
    assert use.cpu_seconds == 200 / os.sysconf("SC_CLK_TCK")
    assert use.resident_nbytes == 12 * os.sysconf("SC_PAGE_SIZE")
