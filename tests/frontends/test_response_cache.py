"""The local response cache of a running server, over HTTP and gRPC (sections 1.8, 1.9 and 2.9)."""

from __future__ import annotations

import struct

import pytest
from tritonclient.grpc import service_pb2

from tests.clients import ask as send
from tests.clients import body_of, channel_to, grpc_row, infer, tensor, unary
from tests.frontends.cached_models import ask, counts, run_of, statistics_of, write_models
from tests.frontends.metrics_page import MetricsPage
from tests.serving import ShoalProcess

LARGE = 200_000


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return write_models(tmp_path_factory.mktemp("cached_models"))


@pytest.fixture
def shoal(repository):
    with ShoalProcess(repository, "--cache-config=local,size=16777216") as shoal:
        yield shoal


def test_hits_run_no_model_and_count_as_successes(shoal):
    """Section 2.9: success and queue count hits, the compute counts and the execution count do not."""
    first = run_of(ask(shoal, 1, 2, 3))
    before_ms = statistics_of(shoal)["last_inference"]
    assert [run_of(ask(shoal, 1, 2, 3, id=str(number))) for number in range(4)] == [first] * 4
    assert run_of(ask(shoal, 1, 2, 4)) == first + 1
    assert ask(shoal, -1).status == ask(shoal, -1).status == 400
    told = statistics_of(shoal)
    assert counts(told) == {
        "success": 6, "fail": 2, "queue": 6, "cache_hit": 4, "cache_miss": 4,
        "compute_input": 2, "compute_infer": 2, "compute_output": 2, "inference": 2, "execution": 4,
    }  # fmt: skip
    assert told["inference_stats"]["cache_hit"]["ns"] > 0
    assert told["inference_stats"]["cache_miss"]["ns"] > 0
    assert told["last_inference"] > before_ms > 0
    with channel_to(shoal.grpc) as channel:
        answer = unary(channel, "ModelStatistics")(service_pb2.ModelStatisticsRequest(name="cached"), timeout=20)
    stats = answer.model_stats[0].inference_stats
    assert (stats.cache_hit.count, stats.cache_miss.count, stats.compute_infer.count) == (4, 4, 2)
    assert stats.cache_hit.ns == told["inference_stats"]["cache_hit"]["ns"]


def test_every_way_to_ask_shares_what_is_kept(shoal):
    """JSON, binary and gRPC requests for the same tensor: one execution."""
    run = run_of(ask(shoal, 1, 2, 3))
    data = struct.pack("<3f", 1, 2, 3)
    binary = infer(shoal.http, "cached", tensor("IN", [1, 3], binary_data_size=12), tail=data)
    assert run_of(binary) == run
    wanted = {"outputs": [{"name": "OUT", "parameters": {"binary_data": True}}]}
    assert struct.unpack("<3f", ask(shoal, 1, 2, 3, **wanted).binary) == (run,) * 3
    with channel_to(shoal.grpc) as channel:
        for _ in range(2):
            answer = unary(channel, "ModelInfer")(grpc_row("cached", 1, 2, 3, id="g"), timeout=20)
            assert struct.unpack("<3f", answer.raw_output_contents[0]) == (run,) * 3
            assert answer.id == "g"
        requests = iter([grpc_row("cached", 1, 2, 3)] * 3)
        stream = channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
        )(requests, timeout=20)
        streamed = [one.infer_response.raw_output_contents[0] for one in stream]
    assert streamed == [struct.pack("<3f", run, run, run)] * 3
    assert counts(statistics_of(shoal))["execution"] == 1


def test_what_the_answer_depends_on_is_in_the_key(shoal):
    """Triton 2.51 answers all of these from the first one's result."""
    runs = [run_of(ask(shoal, 1, 2, 3, 4))]
    runs.append(run_of(infer(shoal.http, "cached", tensor("IN", [2, 2], [1, 2, 3, 4]))))
    runs.append(run_of(ask(shoal, 1, 2, 3, 4, parameters={"temperature": 1})))
    runs.append(run_of(ask(shoal, 1, 2, 3, 4, parameters={"temperature": 1.0})))
    assert len(set(runs)) == 4
    assert infer(shoal.http, "cached", tensor("IN", [2, 2], [1, 2, 3, 4])).json["outputs"][0]["shape"] == [2, 2]
    assert run_of(ask(shoal, 1, 2, 3, 4, parameters={"priority": 0, "timeout": 5_000_000})) == runs[0]


def test_large_outputs_are_kept_when_their_shared_memory_is_used_again(shoal):
    """An output that leaves as a view of the model's memory is copied, and stays what it was."""

    def ask_large(number: float) -> bytes:
        data = struct.pack("<f", number) * LARGE
        body, headers = body_of(
            tensor("IN", [1, LARGE], binary_data_size=4 * LARGE),
            tail=data,
            outputs=[{"name": "OUT", "parameters": {"binary_data": True}}],
        )
        reply = send(shoal.http, "POST", "/v2/models/cached/infer", body, headers)
        assert reply.status == 200
        return reply.binary

    first = {number: ask_large(number) for number in (1.0, 2.0, 3.0)}
    assert len(set(first.values())) == 3
    for number in (4.0, 5.0):
        ask_large(number)
    assert all(ask_large(number) == data for number, data in first.items())
    assert counts(statistics_of(shoal))["execution"] == 5


def test_metrics_of_the_cache_and_of_cached_models(shoal):
    for _ in range(3):
        ask(shoal, 1, 2, 3)
    ask(shoal, 1, 2, 3, model="plain")
    page = MetricsPage(shoal)
    labels = {"model": "cached", "version": "1"}
    assert page.value("nv_cache_num_hits_per_model", **labels) == 2
    assert page.value("nv_cache_num_misses_per_model", **labels) == 1
    told = statistics_of(shoal)["inference_stats"]
    assert page.value("nv_cache_hit_duration_per_model", **labels) == told["cache_hit"]["ns"] // 1000
    assert page.value("nv_cache_miss_duration_per_model", **labels) == told["cache_miss"]["ns"] // 1000
    assert page.value("nv_inference_request_success", **labels) == 3
    assert page.value("nv_inference_exec_count", **labels) == page.value("nv_inference_count", **labels) == 1
    assert page.value("shoal_inference_request_duration_seconds_count", **labels) == 3
    assert {labels["model"] for name, labels, _ in page.samples if name == "nv_cache_num_hits_per_model"} == {
        "cached",
        "both",
    }
    assert page.value("nv_cache_num_lookups") == 3
    assert page.value("nv_cache_num_hits") == 2
    assert page.value("nv_cache_num_misses") == 1
    assert page.value("nv_cache_num_entries") == 1
    assert page.value("nv_cache_num_evictions") == 0
    assert 0 < page.value("nv_cache_util") < 0.001
    assert page.kinds["nv_cache_util"] == page.kinds["nv_cache_lookup_duration"] == "gauge"
    assert page.kinds["nv_cache_num_hits_per_model"] == "counter"


def test_an_ensemble_is_cached_at_the_top_and_its_steps_by_themselves(shoal):
    """A hit runs no step; a miss may find a step's answer (Triton: top level since core PR #352)."""
    first = run_of(ask(shoal, 1, 2, 3, model="both"))
    assert run_of(ask(shoal, 1, 2, 3, model="both")) == first
    assert counts(statistics_of(shoal, "both")) | {"execution": 1} == {
        "success": 2, "fail": 0, "queue": 2, "cache_hit": 1, "cache_miss": 1,
        "compute_input": 1, "compute_infer": 1, "compute_output": 1, "inference": 1, "execution": 1,
    }  # fmt: skip
    assert counts(statistics_of(shoal, "plain"))["success"] == 1
    assert counts(statistics_of(shoal))["cache_miss"] == 1
    assert run_of(ask(shoal, 1, 2, 3)) == 1
    assert counts(statistics_of(shoal))["cache_hit"] == 1


def test_old_answers_make_room(repository):
    with ShoalProcess(repository, "--response-cache-byte-size=4096") as shoal:
        assert "is deprecated; use cache-config with local,size=BYTES" in shoal.log()
        for number in range(20):
            ask(shoal, number, 1, 2)
        assert MetricsPage(shoal).value("nv_cache_num_evictions") > 10
        assert run_of(ask(shoal, 19, 1, 2)) == 20
        assert run_of(ask(shoal, 0, 1, 2)) == 21


def test_answers_grow_old(repository):
    with ShoalProcess(repository, "--cache-config=local,size=65536", "--cache-config=local,ttl=0.2") as shoal:
        before = run_of(ask(shoal, 1, 2, 3))
        runs = {before}
        while len(runs) < 3:  # the clock is the server's
            runs.add(run_of(ask(shoal, 1, 2, 3)))
        statistics = counts(statistics_of(shoal))
        assert statistics["cache_hit"] > 0
        assert statistics["execution"] == 3


def test_a_model_that_asks_for_a_cache_where_there_is_none_is_served(repository):
    """Triton serves it without a word; the metrics are there and stay 0."""
    with ShoalProcess(repository) as shoal:
        assert run_of(ask(shoal, 1, 2, 3)) != run_of(ask(shoal, 1, 2, 3))
        page = MetricsPage(shoal)
        assert page.value("nv_cache_num_hits_per_model", model="cached") == 0
        assert "nv_cache_util" not in page.kinds
        assert "model 'cached' has response_cache enabled, but the server has no cache" in shoal.log()
