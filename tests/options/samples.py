"""For every option a text that is valid and not its default, the value that it stands for, and one that is wrong."""

from typing import NamedTuple

from shoal.caching.settings import CacheSetting
from shoal.observe.logs import LogFormat
from shoal.options import OPTIONS, BackendSetting
from shoal.options.kinds import BOOLEAN, FILE, PORT, REGEX, SECONDS
from shoal.scheduling.rate_limiter import ResourceLimit


class Sample(NamedTuple):
    text: str
    value: object
    wrong: str | None


BY_NAME = {
    "model-repository": Sample("models", "models", None),
    "backend-config": Sample("python,a=b=c", BackendSetting("python", "a", "b=c"), "python"),
    "cache-config": Sample("local,size=4096", CacheSetting("local", (("size", "4096"),)), "local"),
    "response-cache-byte-size": Sample("4096", 4096, "7"),
    "model-control-mode": Sample("NONE", "none", "some"),
    "grpc-infer-response-compression-level": Sample("high", "high", "highest"),
    "rate-limit": Sample("EXECUTION_COUNT", "execution_count", "on"),
    "rate-limit-resource": Sample("memory:4:1", ResourceLimit("memory", 4, 1), "memory"),
    "log-format": Sample("iso8601", LogFormat.ISO8601, "xml"),
}
BY_KIND = {
    PORT: Sample("4711", 4711, "65536"),
    SECONDS: Sample("2.5", 2.5, "-1"),
    REGEX: Sample("x-.*", "x-.*", "("),
    FILE: Sample(__file__, __file__, "/no/such/file"),
}


def sample_of(option):
    if option.name in BY_NAME:
        return BY_NAME[option.name]
    if option.kind is BOOLEAN:
        return Sample(str(not option.default).lower(), not option.default, "maybe")
    if option.kind.metavar == "INTEGER" and option.kind is not PORT:
        return Sample("7", 7, "7.5")
    return BY_KIND.get(option.kind, Sample("text", "text", None))


SAMPLES = {option.name: sample_of(option) for option in OPTIONS}
