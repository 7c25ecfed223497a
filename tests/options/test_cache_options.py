"""The response cache's options: by flag, variable and file, and what is said of those that do not go together."""

import pytest

from shoal.caching.settings import LocalSettings, RedisSettings
from shoal.options import OptionError, read_options

NEEDED = {"model-repository": ["m"]}


def settings(flags=None, environ=None, config=None):
    return read_options(NEEDED | (flags or {}), environ or {}, config).cache_settings()


def test_there_is_no_cache_unless_one_is_asked_for():
    assert settings() is None


def test_by_every_source(tmp_path):
    path = tmp_path / "shoal.toml"
    path.write_text('cache-config = ["redis,host=h", "redis,port=7000"]\n')
    assert settings({"cache-config": ["local,size=4096,ttl=2"]}) == LocalSettings(4096, 2.0)
    assert settings(environ={"SHOAL_CACHE_CONFIG": "redis,host=h;redis,port=7000"}) == RedisSettings("h", 7000)
    assert settings(config=str(path)) == RedisSettings("h", 7000)
    path.write_text("response-cache-byte-size = 8192\n")
    assert settings(config=str(path)) == LocalSettings(8192)


def test_the_old_name_is_taken_and_spoken_of():
    """Triton: '--response-cache-byte-size' has been deprecated, and stands for the local cache."""
    options = read_options(NEEDED | {"response-cache-byte-size": ["4096"]}, {})
    assert options.cache_settings() == LocalSettings(4096)
    assert options.notes == (
        "the option 'response-cache-byte-size' is deprecated; use cache-config with local,size=BYTES",
    )


def test_both_names_at_once_are_refused_in_tritons_words():
    with pytest.raises(OptionError) as caught:
        settings({"cache-config": ["local,size=4096"], "response-cache-byte-size": ["4096"]})
    assert caught.value.message == (
        "Incompatible flags --response-cache-byte-size and --cache-config both provided. "
        "Please provide one or the other."
    )


def test_wrong_settings_end_the_start():
    with pytest.raises(OptionError, match="--cache-config local: there is no setting 'sise', only size, ttl"):
        settings({"cache-config": ["local,sise=4096"]})


def test_a_setting_without_a_value_is_refused():
    with pytest.raises(OptionError, match="'local' from the command line is not valid: it takes NAME,KEY=VALUE"):
        settings({"cache-config": ["local"]})
