"""The Redis cache against a real Redis, one that is down, slow, full or holds other things, and one that is none."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

import pytest
import trustme

from shoal.caching import redis_client
from shoal.caching.redis import MOST_KEYS, RedisCache, _name
from shoal.caching.settings import RedisSettings, TlsSettings
from shoal.errors import UnavailableError
from tests.caching.pieces import key_of, response_of
from tests.caching.redis_server import MISSING, PROGRAM, RedisServer, free_port

pytestmark = pytest.mark.skipif(PROGRAM is None, reason=MISSING)
WAIT_S = 10.0


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@contextlib.asynccontextmanager
async def cache_at(port: int, **settings):
    """A started cache."""
    cache = RedisCache(RedisSettings("127.0.0.1", port, **settings))
    await cache.start()
    try:
        yield cache
    finally:
        await cache.stop()


async def look_up(cache: RedisCache, *keys: bytes) -> list:
    """What the cache has under these keys, asked for at the same time; None for a miss."""
    told: list[asyncio.Future] = []
    for key in keys:
        future = asyncio.get_running_loop().create_future()
        told.append(future)
        if not cache.ask(key, future.set_result):
            future.set_result(None)
    async with asyncio.timeout(WAIT_S):
        return await asyncio.gather(*told)


async def kept(cache: RedisCache, key: bytes):
    """What the cache has under this key, as soon as it was written."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        (found,) = await look_up(cache, key)
        if found is not None:
            return found
        await asyncio.sleep(0.01)
    raise AssertionError("it was not kept")


async def available(cache: RedisCache) -> None:
    """Ask now and then, as requests do, until the cache is up again."""
    deadline = time.monotonic() + WAIT_S
    while not cache.statistics().available:
        assert time.monotonic() < deadline, "it did not come back"
        await look_up(cache, key_of(0))
        await asyncio.sleep(0.05)


async def ask_redis(port: int, *command: object, **options):
    """A command by a client of our own."""
    settings = RedisSettings("127.0.0.1", port, **options)
    client = redis_client.make_client(settings)
    try:
        return await client.execute_command(*command)
    finally:
        await client.aclose()


def test_what_was_kept_is_found_by_another_server(server):
    async def work():
        async with cache_at(server.port) as one, cache_at(server.port) as other:
            assert await look_up(one, key_of(1)) == [None]
            one.insert(key_of(1), response_of(b"tensor", b"", parameters={"p": 1.5}))
            found = await kept(other, key_of(1))
            assert [bytes(data) for data in found.data] == [b"tensor", b""]
            assert found.parameters == {"p": 1.5}
            assert found.layout.outputs == response_of(b"tensor", b"").layout.outputs
            assert one.statistics().failures == other.statistics().failures == 0

    asyncio.run(work())


def test_many_lookups_at_once_share_round_trips(server):
    """Keys that come in one turn of the event loop are asked for together, and each gets its own answer."""

    async def work():
        keys = [key_of(100 + number) for number in range(3 * MOST_KEYS)]
        async with cache_at(server.port, wait_timeout_s=WAIT_S) as cache:
            for key in keys[::2]:
                cache.insert(key, response_of(key))
            for key in keys[::2]:
                await kept(cache, key)
            before = await commands_of(server.port)
            found = await look_up(cache, *keys)
            assert await commands_of(server.port) - before <= len(keys) / MOST_KEYS + 1
        for number, (key, response) in enumerate(zip(keys, found, strict=True)):
            assert (response is None) == bool(number % 2)
            assert response is None or bytes(response.data[0]) == key

    asyncio.run(work())


async def commands_of(port: int) -> int:
    """How many MGET the server has answered."""
    told = await ask_redis(port, "INFO", "commandstats")
    return told["cmdstat_mget"]["calls"] if "cmdstat_mget" in told else 0


def test_large_responses(server):
    async def work():
        data = bytes(range(256)) * 20_000
        async with cache_at(server.port) as cache:
            cache.insert(key_of(2), response_of(data))
            assert bytes((await kept(cache, key_of(2))).data[0]) == data

    asyncio.run(work())


def test_ttl_is_redis_own(server):
    async def work():
        async with cache_at(server.port, ttl_s=100.0) as cache:
            cache.insert(key_of(3), response_of(b"x"))
            await kept(cache, key_of(3))
        assert 90_000 < await ask_redis(server.port, "PTTL", _name(key_of(3))) <= 100_000
        async with cache_at(server.port) as cache:
            cache.insert(key_of(4), response_of(b"x"))
            await kept(cache, key_of(4))
        assert await ask_redis(server.port, "PTTL", _name(key_of(4))) == -1

    asyncio.run(work())


def test_another_database(server):
    async def work():
        async with cache_at(server.port, db=2) as cache:
            cache.insert(key_of(5), response_of(b"x"))
            await kept(cache, key_of(5))
        assert await ask_redis(server.port, "EXISTS", _name(key_of(5))) == 0
        assert await ask_redis(server.port, "EXISTS", _name(key_of(5)), db=2) == 1

    asyncio.run(work())


# --- what is not as it should be --------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["SET", "LPUSH"])
def test_garbage_is_a_miss_and_is_written_over(server, command, caplog):
    """Bytes that are no response, and a key of another type."""

    async def work():
        key = key_of(6)
        await ask_redis(server.port, "DEL", _name(key))
        await ask_redis(server.port, command, _name(key), b"garbage")
        async with cache_at(server.port) as cache:
            assert await look_up(cache, key) == [None]
            assert cache.statistics().available
            cache.insert(key, response_of(b"good"))
            assert bytes((await kept(cache, key)).data[0]) == b"good"

    asyncio.run(work())
    assert ("no response of ours" in caplog.text) == (command == "SET")


def test_a_redis_that_is_not_there_is_asked_nothing(caplog):
    async def work():
        async with cache_at(free_port()) as cache:
            assert not cache.statistics().available
            assert not cache.ask(key_of(1), lambda found: None)
            cache.insert(key_of(1), response_of(b"x"))

    asyncio.run(work())
    assert "does not work, requests run without it" in caplog.text
    assert "ERROR" not in caplog.text


def test_a_redis_that_comes_later_is_used(tmp_path, caplog):
    async def work():
        port = free_port()
        async with cache_at(port) as cache:
            with RedisServer(tmp_path, port=port):
                await available(cache)
                cache.insert(key_of(1), response_of(b"x"))
                await kept(cache, key_of(1))

    asyncio.run(work())


def test_a_redis_that_is_killed_and_started_again(tmp_path, caplog):
    async def work():
        with RedisServer(tmp_path) as server:
            async with cache_at(server.port) as cache:
                cache.insert(key_of(1), response_of(b"x"))
                await kept(cache, key_of(1))
                server.kill()
                assert await look_up(cache, *[key_of(1)] * 5) == [None] * 5
                assert not cache.statistics().available
                server.start()
                await available(cache)
                assert await look_up(cache, key_of(1)) == [None]
                cache.insert(key_of(1), response_of(b"y"))
                assert bytes((await kept(cache, key_of(1))).data[0]) == b"y"

    asyncio.run(work())


def test_a_redis_that_hangs_holds_up_no_request_for_long(tmp_path, caplog):
    """SIGSTOP: the connections stay open and nothing comes. Those that wait are told; the others need not wait."""

    async def work():
        with RedisServer(tmp_path) as server:
            async with cache_at(server.port, socket_timeout_s=0.2, connect_timeout_s=0.2) as cache:
                cache.insert(key_of(1), response_of(b"x"))
                await kept(cache, key_of(1))
                server.pause()
                started_s = time.monotonic()
                assert await look_up(cache, *[key_of(1)] * (5 * MOST_KEYS)) == [None] * (5 * MOST_KEYS)
                assert time.monotonic() - started_s < 5
                assert not cache.statistics().available
                assert not cache.ask(key_of(1), lambda found: None)
                cache.insert(key_of(2), response_of(b"x"))
                server.resume()
                await available(cache)
                assert bytes((await kept(cache, key_of(1))).data[0]) == b"x"

    asyncio.run(work())
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1


def test_a_redis_that_is_full_still_finds(tmp_path, caplog):
    async def work():
        with RedisServer(tmp_path, "--maxmemory", "3mb", "--maxmemory-policy", "noeviction") as server:
            async with cache_at(server.port) as cache:
                cache.insert(key_of(1), response_of(b"x"))
                await kept(cache, key_of(1))
                for number in range(2, 12):
                    cache.insert(key_of(number), response_of(bytes(1 << 20)))
                deadline = time.monotonic() + WAIT_S
                while not cache.statistics().failures:
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0.01)
                assert cache.statistics().available
                assert bytes((await kept(cache, key_of(1))).data[0]) == b"x"

    asyncio.run(work())
    assert "Redis did not keep a response" in caplog.text


async def _serve(talk, work):
    """Something that is no Redis, while ``work`` runs with its port."""
    listener = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        await work(listener.sockets[0].getsockname()[1])
    finally:
        listener.close()
        await listener.wait_closed()


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00" * 200, b"*1\r\n$-5\r\n", b"+OK\r\n", b"", b"-NOAUTH log in\r\n"],
)
def test_what_is_no_redis_is_no_cache(answer, caplog):
    """Whatever it says at connection or to a lookup, no request fails."""

    async def talk(reader, writer):
        with contextlib.closing(writer), contextlib.suppress(OSError):
            while await reader.read(4096):
                writer.write(answer)
                await writer.drain()
                if not answer:
                    break

    async def work(port):
        async with cache_at(port, socket_timeout_s=0.2, connect_timeout_s=0.2) as cache:
            cache._circuit.close()  # as if it had worked before
            assert await look_up(cache, key_of(1), key_of(2)) == [None, None]
            cache.insert(key_of(1), response_of(b"x"))

    asyncio.run(_serve(talk, work))
    assert "ERROR" not in caplog.text


def test_a_redis_that_dribbles_is_given_up(caplog):
    """Each byte comes within the socket timeout, and the answer never ends."""

    async def talk(reader, writer):
        with contextlib.closing(writer), contextlib.suppress(OSError):
            await reader.read(4096)
            writer.write(b"+")
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.02)

    async def work(port):
        async with cache_at(port, socket_timeout_s=0.2, connect_timeout_s=0.2) as cache:
            cache._circuit.close()
            assert await look_up(cache, key_of(1)) == [None]
            assert not cache.statistics().available

    asyncio.run(_serve(talk, work))


def test_what_waits_at_the_end_is_told(server):
    async def work():
        cache = RedisCache(RedisSettings("127.0.0.1", server.port))
        await cache.start()
        told = []
        for number in range(5):
            assert cache.ask(key_of(number), told.append)
        await cache.stop()
        assert told == [None] * 5
        assert not cache.ask(key_of(1), told.append)

    asyncio.run(work())


def test_draining_waits_for_what_was_asked(server):
    async def work():
        async with cache_at(server.port) as cache:
            told = []
            for number in range(900, 905):
                assert cache.ask(key_of(number), told.append)
            assert told == []
            await cache.drained()
            assert told == [None] * 5
            assert not cache.ask(key_of(1), told.append)

    asyncio.run(work())


# --- access -----------------------------------------------------------------------------------------------------------


def test_user_and_password(tmp_path, caplog):
    async def work():
        rules = "on >secret ~shoal:* +@all"
        with RedisServer(tmp_path, "--user", "fish", *rules.split(), "--requirepass", "other") as server:
            async with cache_at(server.port, user="fish", password="secret") as cache:
                cache.insert(key_of(1), response_of(b"x"))
                await kept(cache, key_of(1))
            async with cache_at(server.port, password="other") as cache:
                assert bytes((await kept(cache, key_of(1))).data[0]) == b"x"
            async with cache_at(server.port, user="fish", password="wrong") as cache:
                assert not cache.statistics().available

    asyncio.run(work())
    assert "wrong" not in caplog.text.replace("WRONGPASS", "")


@pytest.fixture
def certificates(tmp_path):
    authority = trustme.CA()
    files = {name: str(tmp_path / name) for name in ("ca", "cert", "key", "client")}
    authority.cert_pem.write_to_path(files["ca"])
    issued = authority.issue_cert("redis.example")
    issued.cert_chain_pems[0].write_to_path(files["cert"])
    issued.private_key_pem.write_to_path(files["key"])
    authority.issue_cert("client.example").private_key_and_cert_chain_pem.write_to_path(files["client"])
    return files


def test_tls_with_a_client_certificate_and_a_name(tmp_path, certificates, caplog):
    """The server is reached by its address, and its certificate is for the name that ``sni`` says."""
    options = ["--tls-cert-file", certificates["cert"], "--tls-key-file", certificates["key"]]
    options += ["--tls-ca-cert-file", certificates["ca"], "--tls-auth-clients", "yes"]

    async def work():
        with RedisServer(tmp_path, *options, tls=True) as server:
            right = TlsSettings(cert=certificates["client"], cacert=certificates["ca"], sni="redis.example")
            async with cache_at(server.port, tls=right, connect_timeout_s=5.0) as cache:
                cache.insert(key_of(1), response_of(b"x"))
                await kept(cache, key_of(1))
            for wrong in (
                TlsSettings(cert=certificates["client"], cacert=certificates["ca"], sni="other.example"),
                TlsSettings(cert=certificates["client"], cacert=certificates["ca"]),
                TlsSettings(cacert=certificates["ca"], sni="redis.example"),
                None,
            ):
                async with cache_at(server.port, tls=wrong) as cache:
                    assert not cache.statistics().available, wrong

    asyncio.run(work())


def test_the_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "redis.asyncio", None)

    async def work():
        RedisCache(RedisSettings("127.0.0.1"))

    with pytest.raises(UnavailableError, match=r"pip install 'shoal\[redis\]'"):
        asyncio.run(work())
