"""``--cache-config``: what it takes, and what is said of what it does not take."""

from __future__ import annotations

import pytest

from shoal.caching.settings import (
    ONLY_ONE,
    CacheSetting,
    LocalSettings,
    RedisSettings,
    TlsSettings,
    cache_settings,
    parse_setting,
)
from shoal.errors import InvalidArgumentError


def read(*texts: str, **environ: str):
    return cache_settings(map(parse_setting, texts), environ)


def refusal(*texts: str) -> str:
    with pytest.raises(InvalidArgumentError) as caught:
        read(*texts)
    return caught.value.message


def test_nothing_given_is_no_cache():
    assert read() is None


def test_local():
    assert read("local,size=1048576") == LocalSettings(1 << 20)
    assert read("local,size=1048576,ttl=1.5") == LocalSettings(1 << 20, 1.5)
    assert read("local,size=1048576", "local,ttl=60") == LocalSettings(1 << 20, 60.0)
    assert read("local,size=4096", "local,size=8192") == LocalSettings(8192)


def test_redis_in_tritons_way_and_in_one():
    one = read("redis,host=h,port=7000,user=u,password=p,db=2,pool_size=3,ttl=5")
    assert one == RedisSettings("h", 7000, "u", "p", 2, pool_size=3, ttl_s=5.0)
    assert one == read(
        *(f"redis,{pair}" for pair in ("host=h", "port=7000", "user=u", "password=p", "db=2", "pool_size=3", "ttl=5"))
    )
    assert read("redis,host=h") == RedisSettings("h", 6379)


def test_times_are_milliseconds_and_none_means_the_default():
    """0 is no limit in Triton; here a lookup that has no limit could hang a request."""
    given = read("redis,host=h,connect_timeout=20,socket_timeout=30,wait_timeout=40")
    assert (given.connect_timeout_s, given.socket_timeout_s, given.wait_timeout_s) == (0.02, 0.03, 0.04)
    assert read("redis,host=h,connect_timeout=0,socket_timeout=0,wait_timeout=0") == RedisSettings("h")


def test_user_and_password_from_tritons_variables():
    variables = {"TRITONCACHE_REDIS_USERNAME": "u", "TRITONCACHE_REDIS_PASSWORD": "p"}
    assert read("redis,host=h", **variables) == RedisSettings("h", user="u", password="p")
    assert read("redis,host=h,user=x,password=y", **variables) == RedisSettings("h", user="x", password="y")


def test_a_password_may_have_commas_and_equals_signs():
    assert "there is no setting 'b'" in refusal("redis,host=h,password=a,b=c")  # such a one goes into the variable
    assert read("redis,host=h,password=a,b,,==,db=1").password == "a,b,,=="
    assert read("redis,password=a,1=2,host=h").password == "a,1=2"


def test_tls(tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    assert read("redis,host=h,tls_enabled=yes").tls == TlsSettings()
    assert read("redis,host=h,tls_enabled=no").tls is None
    assert read("redis,host=h,sni=name").tls == TlsSettings(sni="name")
    assert read(f"redis,host=h,cert={file},key={file},cacert={file},cacert_dir={tmp_path}").tls == TlsSettings(
        str(file), str(file), str(file), str(tmp_path)
    )


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["lokal,size=4096"], "--cache-config: there is no cache 'lokal', only local and redis; did you mean 'local'?"),
        (
            ["local,size=4096", "redis,host=h"],
            f"--cache-config: {ONLY_ONE}; give the settings of local or of redis",
        ),
        (["local,ttl=3"], "--cache-config local: needs size=..., the bytes that it may use"),
        (["redis,port=3"], "--cache-config redis: needs host=..., where Redis listens"),
        (["redis,host="], "--cache-config redis: needs host=..., where Redis listens"),
        (
            ["local,size=4096,tll=3"],
            "--cache-config local: there is no setting 'tll', only size, ttl; did you mean 'ttl'?",
        ),
        (
            ["local,size=1M"],
            "--cache-config local: size=1M is not valid: it takes an integer from 1024 to 9223372036854775807",
        ),
        (
            ["local,size=-5"],
            "--cache-config local: size=-5 is not valid: it takes an integer from 1024 to 9223372036854775807",
        ),
        (
            ["local,size=4096,ttl=nan"],
            "--cache-config local: ttl=nan is not valid: it takes a number of seconds of at least 0.001",
        ),
        (["redis,host=h,port=0"], "--cache-config redis: port=0 is not valid: it takes an integer from 1 to 65535"),
        (
            ["redis,host=h,tls_enabled=maybe"],
            "--cache-config redis: tls_enabled=maybe is not valid: it takes yes or no",
        ),
        (["redis,host=h,cert=/no/file"], "--cache-config redis: cert=/no/file is not valid: there is no such file"),
        (
            ["redis,host=h,tls_enabled=no,sni=x"],
            "--cache-config redis: tls_enabled=no does not go with cert, key, cacert, cacert_dir or sni",
        ),
    ],
)
def test_what_is_wrong_is_named(texts, said):
    assert refusal(*texts) == said


def test_everything_that_is_wrong_is_named_at_once():
    assert refusal("redis,port=x,db=y,hots=h").count("\n") == 3


@pytest.mark.parametrize("text", ["local", "size=3", ",size=3", "local,", "local,size", "local,=3", "redis,secret"])
def test_what_is_no_setting(text):
    with pytest.raises(ValueError):
        parse_setting(text)


def test_a_password_is_not_shown():
    text = "redis,password=hunter2,host=h,prt=1"
    assert "hunter2" not in refusal(text)
    assert "hunter2" not in repr(parse_setting(text))
    assert "hunter2" not in repr(read("redis,password=hunter2,host=h"))
    assert isinstance(parse_setting(text), CacheSetting)
