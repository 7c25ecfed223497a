"""The response cache in a real Redis: servers share it, and what happens to Redis happens to no request."""

from __future__ import annotations

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.caching.redis_server import MISSING, PROGRAM, RedisServer
from tests.clients import HttpConnection, body_of, channel_to, get, grpc_row, tensor, unary
from tests.frontends.cached_models import ask, counts, run_of, statistics_of, write_models
from tests.frontends.metrics_page import MetricsPage
from tests.serving import ShoalProcess

pytestmark = pytest.mark.skipif(PROGRAM is None, reason=MISSING)
WAIT_S = 20.0


@pytest.fixture
def repository(tmp_path):
    return write_models(tmp_path / "models")


@pytest.fixture
def redis(tmp_path):
    with RedisServer(tmp_path) as redis:
        yield redis


def serve(repository, redis, *settings: str, **environment: str) -> ShoalProcess:
    options = [f"--cache-config=redis,{setting}" for setting in ("host=127.0.0.1", f"port={redis.port}", *settings)]
    return ShoalProcess(repository, *options, environment=environment)


def wait_until(condition) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def keep(shoal: ShoalProcess, *values: float) -> float:
    """Ask until the answer comes from the cache; gives the execution that it is of."""
    hits = counts(statistics_of(shoal))["cache_hit"]
    runs: list[float] = []
    wait_until(lambda: runs.append(run_of(ask(shoal, *values))) or counts(statistics_of(shoal))["cache_hit"] > hits)
    return runs[-1]


def test_servers_and_restarts_share_what_is_kept(repository, redis):
    """The same model in another server, or after a restart, has the same key; a model that was changed has another."""
    with serve(repository, redis, "ttl=1000") as one, serve(repository, redis) as other:
        run = keep(one, 1, 2, 3)
        assert run_of(ask(other, 1, 2, 3)) == run
        with channel_to(other.grpc) as channel:
            answer = unary(channel, "ModelInfer")(grpc_row("cached", 1, 2, 3), timeout=20)
            assert answer.raw_output_contents[0] == ask_binary(one)
        assert counts(statistics_of(other))["execution"] == 0
    with serve(repository, redis) as again:
        assert run_of(ask(again, 1, 2, 3)) == run
        assert counts(statistics_of(again))["execution"] == 0
    with (repository / "cached" / "1" / "model.py").open("a") as code:
        code.write("\n# another model\n")
    with serve(repository, redis) as changed:
        ask(changed, 1, 2, 3)
        assert counts(statistics_of(changed))["execution"] == 1


def ask_binary(shoal: ShoalProcess) -> bytes:
    wanted = {"outputs": [{"name": "OUT", "parameters": {"binary_data": True}}]}
    return ask(shoal, 1, 2, 3, **wanted).binary


def test_an_ensemble_in_redis(repository, redis):
    with serve(repository, redis) as shoal:
        ask(shoal, 1, 2, 3, model="both")
        wait_until(lambda: ask(shoal, 1, 2, 3, model="both") and counts(statistics_of(shoal, "both"))["cache_hit"] > 0)


def test_its_metrics(repository, redis):
    with serve(repository, redis) as shoal:
        keep(shoal, 1, 2, 3)
        page = MetricsPage(shoal)
        assert page.value("shoal_cache_available") == 1
        assert page.value("shoal_cache_failures") == 0
        assert page.value("nv_cache_num_hits_per_model", model="cached") >= 1
        assert "nv_cache_util" not in page.kinds


class Traffic:
    """Clients that ask one after the other, for a few keys over and over, until they are told to stop."""

    def __init__(self, shoal: ShoalProcess, clients: int = 4) -> None:
        self._shoal = shoal
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(clients)
        self.answers: list[tuple[int, float]] = []
        self._clients = [self._pool.submit(self._client, number) for number in range(clients)]

    def _client(self, number: int) -> None:
        body, headers = body_of(tensor("IN", [1, 3], [1, 2, number]))
        with HttpConnection(self._shoal.http) as connection:
            while not self._stop.is_set():
                started_s = time.monotonic()
                status = connection.ask("POST", "/v2/models/cached/infer", body, headers).status
                self.answers.append((status, time.monotonic() - started_s))

    def more(self, count: int) -> None:
        """Wait until so many more answers came."""
        wanted = len(self.answers) + count
        wait_until(lambda: len(self.answers) >= wanted)

    def end(self) -> list[tuple[int, float]]:
        self._stop.set()
        for client in self._clients:
            client.result(WAIT_S)
        self._pool.shutdown()
        return self.answers


def test_no_request_fails_or_hangs_when_redis_stops_dies_and_comes_back(repository, redis):
    """SIGSTOP in the middle of traffic, then SIGKILL, then a new one: every request is answered, soon."""
    with serve(repository, redis, "socket_timeout=200") as shoal:
        traffic = Traffic(shoal)
        traffic.more(200)
        redis.pause()
        traffic.more(200)
        assert MetricsPage(shoal).value("shoal_cache_available") == 0
        redis.resume()
        wait_until(lambda: MetricsPage(shoal).value("shoal_cache_available") == 1)
        traffic.more(200)
        redis.kill()
        traffic.more(200)
        redis.start()
        wait_until(lambda: MetricsPage(shoal).value("shoal_cache_available") == 1)
        traffic.more(200)
        answers = traffic.end()
        assert {status for status, _ in answers} == {200}
        assert max(took_s for _, took_s in answers) < 10
        assert "does not work, requests run without it" in shoal.log()
        assert "Traceback" not in shoal.log()
        statistics = counts(statistics_of(shoal))
        assert statistics["cache_hit"] + statistics["cache_miss"] == statistics["success"] == len(answers)


def test_a_server_starts_and_stops_with_a_redis_that_hangs(repository, redis):
    redis.pause()
    with serve(repository, redis, "connect_timeout=200", "socket_timeout=200") as shoal:
        assert get(shoal.http, "/v2/health/ready").status == 200
        assert ask(shoal, 1, 2, 3).status == 200
        assert shoal.stop() == 0


def test_what_is_looked_up_when_the_server_is_told_to_stop_is_answered(repository, redis):
    """A request that was taken waits for a Redis that hangs; it still runs, for it was taken before the end."""
    with serve(repository, redis, "socket_timeout=2000", "wait_timeout=2000") as shoal:
        ask(shoal, 1, 2, 3)
        redis.pause()
        with HttpConnection(shoal.http) as connection:
            body, headers = body_of(tensor("IN", [1, 3], [1, 2, 9]))
            connection.connection.request("POST", "/v2/models/cached/infer", body, headers)
            time.sleep(0.3)
            stopping = threading.Thread(target=shoal.stop)
            stopping.start()
            assert connection.answer().status == 200
            stopping.join()
        assert shoal.wait() == 0


def test_user_and_password_from_the_environment(repository, tmp_path):
    variables = {"TRITONCACHE_REDIS_USERNAME": "default", "TRITONCACHE_REDIS_PASSWORD": "hunter2"}
    (tmp_path / "with_password").mkdir()
    with RedisServer(tmp_path / "with_password", "--requirepass", "hunter2") as redis:
        with serve(repository, redis, **variables) as shoal:
            keep(shoal, 1, 2, 3)
            assert "hunter2" not in shoal.log()
        with serve(repository, redis) as shoal:
            assert ask(shoal, 1, 2, 3).status == 200
            assert MetricsPage(shoal).value("shoal_cache_available") == 0


def test_without_the_package_the_start_says_what_to_do(repository, redis, tmp_path):
    hidden = tmp_path / "hidden" / "redis"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError")
    with pytest.raises(AssertionError, match=r"pip install 'shoal\[redis\]'") as caught:
        serve(repository, redis, PYTHONPATH=str(hidden.parent)).__enter__()
    assert "Traceback" not in str(caught.value)
    shutil.rmtree(hidden)
