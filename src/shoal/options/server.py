"""ServerOptions: every option of the server, with its name, type, default, range and meaning."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from shoal.caching.settings import LOCAL, CacheSetting, CacheSettings, cache_settings
from shoal.observe.logs import LogFormat, LogSettings
from shoal.options.declare import Option, option
from shoal.options.kinds import (
    BACKEND_SETTING,
    BOOLEAN,
    CACHE_NBYTES,
    CACHE_SETTING,
    FILE,
    PORT,
    REGEX,
    RESOURCE_LIMIT,
    SECONDS,
    TEXT,
    BackendSetting,
    choice,
    choice_of,
    integer,
)
from shoal.scheduling.overload import MAX_QUEUED_NBYTES, MAX_QUEUED_REQUESTS
from shoal.scheduling.rate_limiter import ResourceLimit

SERVER = "Server"
MODELS = "Models"
CACHE = "Response cache"
SCHEDULING = "Scheduling"
HTTP = "HTTP"
GRPC = "gRPC"
METRICS = "Metrics"
LOGGING = "Logging"

LOG_FORMAT = choice_of(LogFormat)
ANY_PORT = "0 takes any free port."
NOT_YET = "this mode is not supported yet; 'none' loads every model at start-up and is the default"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """The server's options: Triton's by Triton's names, and a few of Shoal's own.

    Made by ``read_options`` from flags, variables and a TOML file, or directly, in a program or a test.

    Attributes:
        notes: what the user should know about the options given, one warning each; not an option.
    """

    server_id: str = option(
        "shoal",
        TEXT,
        SERVER,
        "The server's name in its metadata.",
        name="id",
    )
    port: int | None = option(
        None,
        PORT,
        SERVER,
        "One port for HTTP, gRPC and metrics, in place of a port each. It listens on http-address, with the TLS of the "
        f"http options. {ANY_PORT}",
    )
    exit_timeout_secs: int = option(
        30,
        integer(0),
        SERVER,
        "How long, once told to stop, the server waits for requests in flight before it ends without them.",
    )
    drain_secs: float = option(
        0.0,
        SECONDS,
        SERVER,
        "How long, once told to stop, the server says that it is not ready while it still takes requests, so that load "
        "balancers can turn away first.",
    )
    execution_timeout: float = option(
        0.0,
        SECONDS,
        SERVER,
        "A batch that runs longer than this is given up: its worker is replaced, its requests fail. 0 for no limit.",
    )

    model_repository: tuple[str, ...] = option(
        (),
        TEXT,
        MODELS,
        "A model repository: a folder with one folder per model. Several may be given.",
        repeatable=True,
        aliases=("model-store",),
    )
    exit_on_error: bool = option(
        True,
        BOOLEAN,
        MODELS,
        "Whether the server ends when a model cannot be loaded at start-up; otherwise it serves the others.",
    )
    strict_readiness: bool = option(
        True,
        BOOLEAN,
        MODELS,
        "Whether the server is ready only when every model is.",
    )
    disable_auto_complete_config: bool = option(
        False,
        BOOLEAN,
        MODELS,
        "Do not complete configurations from the models: each config.pbtxt must then say everything.",
    )
    strict_model_config: bool = option(
        False,
        BOOLEAN,
        MODELS,
        "Deprecated: the same as disable-auto-complete-config.",
        note="is deprecated; use disable-auto-complete-config",
    )
    model_control_mode: str = option(
        "none",
        choice("none", refused={"poll": NOT_YET, "explicit": NOT_YET}),
        MODELS,
        "How models come and go. none: all are loaded at start-up and stay.",
    )
    model_load_thread_count: int = option(
        4,
        integer(1, 1024),
        MODELS,
        "How many models are loaded at the same time.",
    )
    model_load_retry_count: int = option(
        0,
        integer(0, 1000),
        MODELS,
        "How often a load that failed is tried again.",
    )
    backend_config: tuple[BackendSetting, ...] = option(
        (),
        BACKEND_SETTING,
        MODELS,
        "A setting for a backend, such as onnxruntime,intra_op_thread_count=2, or for all, such as "
        "default-max-batch-size=8. May be given several times.",
        repeatable=True,
    )

    max_queued_requests: int = option(
        MAX_QUEUED_REQUESTS,
        integer(0),
        SCHEDULING,
        "How many requests may wait in the queues of all models together; further ones are refused as UNAVAILABLE. "
        "0 for any number.",
    )
    max_queued_nbytes: int = option(
        MAX_QUEUED_NBYTES,
        integer(0),
        SCHEDULING,
        "How many bytes of tensors the waiting requests of all models may have together; further ones are refused as "
        "UNAVAILABLE. 0 for any number.",
    )
    rate_limit: str = option(
        "off",
        choice("execution_count", "off"),
        SCHEDULING,
        "Whether instances wait for resources. execution_count: models share the resources that their instance groups "
        "name, and take turns by priority and by how often they ran. off: every instance runs as soon as it is free.",
    )
    rate_limit_resource: tuple[ResourceLimit, ...] = option(
        (),
        RESOURCE_LIMIT,
        SCHEDULING,
        "How much there is of a rate limiter's resource, on each device or on one. A global resource has no device. "
        "Without any, there is as much of each as the most that one instance needs. May be given several times.",
        repeatable=True,
    )

    cache_config: tuple[CacheSetting, ...] = option(
        (),
        CACHE_SETTING,
        CACHE,
        "The response cache and its settings, such as local,size=1048576 or redis,host=localhost,port=6379. "
        "May be given several times for one cache.",
        repeatable=True,
    )
    response_cache_byte_size: int | None = option(
        None,
        CACHE_NBYTES,
        CACHE,
        "Deprecated: the same as cache-config with local,size=BYTES.",
        note="is deprecated; use cache-config with local,size=BYTES",
    )

    allow_http: bool = option(True, BOOLEAN, HTTP, "Serve the HTTP/REST protocol.")
    http_address: str = option("0.0.0.0", TEXT, HTTP, "The address to listen on.")  # noqa: S104 - Triton's default
    http_port: int = option(8000, PORT, HTTP, f"The port to listen on. {ANY_PORT}")
    reuse_http_port: bool = option(
        False,
        BOOLEAN,
        HTTP,
        "Share the port with other servers that have this option set; the system spreads connections over them.",
    )
    http_max_input_size: int = option(
        64 * 1024 * 1024,
        integer(1),
        HTTP,
        "The longest request body, in bytes.",
    )
    http_thread_count: int = option(
        8,
        integer(1),
        HTTP,
        "Accepted for Triton's sake, without effect: one event loop serves all connections.",
        note="has no effect: one event loop serves all connections",
    )
    http_header_forward_pattern: str = option(
        "",
        REGEX,
        HTTP,
        "Headers whose names match are handed to the models as request parameters.",
    )
    http_use_ssl: bool = option(False, BOOLEAN, HTTP, "Serve HTTPS.")
    http_server_cert: str = option("", FILE, HTTP, "The server's certificate chain, in PEM.")
    http_server_key: str = option("", FILE, HTTP, "The certificate's private key, in PEM.")
    http_root_cert: str = option(
        "",
        FILE,
        HTTP,
        "Certificates, in PEM, that clients' certificates must come from; without it clients need none.",
    )

    allow_grpc: bool = option(True, BOOLEAN, GRPC, "Serve the gRPC protocol.")
    grpc_address: str = option("0.0.0.0", TEXT, GRPC, "The address to listen on.")  # noqa: S104 - Triton's default
    grpc_port: int = option(8001, PORT, GRPC, f"The port to listen on. {ANY_PORT}")
    reuse_grpc_port: bool = option(
        False,
        BOOLEAN,
        GRPC,
        "Share the port with other servers that have this option set; the system spreads connections over them.",
    )
    grpc_header_forward_pattern: str = option(
        "",
        REGEX,
        GRPC,
        "Metadata whose keys match are handed to the models as request parameters.",
    )
    grpc_infer_response_compression_level: str = option(
        "none",
        choice("none", "low", "medium", "high"),
        GRPC,
        "How hard infer responses are compressed.",
    )
    grpc_use_ssl: bool = option(False, BOOLEAN, GRPC, "Serve gRPC over TLS.")
    grpc_use_ssl_mutual: bool = option(
        False,
        BOOLEAN,
        GRPC,
        "Serve gRPC over TLS, and ask clients for a certificate that comes from grpc-root-cert.",
    )
    grpc_server_cert: str = option("", FILE, GRPC, "The server's certificate chain, in PEM.")
    grpc_server_key: str = option("", FILE, GRPC, "The certificate's private key, in PEM.")
    grpc_root_cert: str = option("", FILE, GRPC, "Certificates, in PEM, that clients' certificates must come from.")

    allow_metrics: bool = option(True, BOOLEAN, METRICS, "Serve metrics for Prometheus at /metrics.")
    metrics_address: str = option("", TEXT, METRICS, "The address to listen on; http-address when not given.")
    metrics_port: int = option(8002, PORT, METRICS, f"The port to listen on. {ANY_PORT}")
    metrics_interval_ms: int = option(
        2000,
        integer(1),
        METRICS,
        "The shortest time, in milliseconds, over which processor utilization is measured.",
    )
    allow_cpu_metrics: bool = option(True, BOOLEAN, METRICS, "Show the machine's processors and memory (nv_cpu_*).")
    allow_gpu_metrics: bool = option(
        True,
        BOOLEAN,
        METRICS,
        "Accepted for Triton's sake, without effect: GPUs are not measured.",
        note="has no effect: GPUs are not measured",
    )

    log_verbose: int = option(0, integer(0), LOGGING, "Write verbose lines when 1 or more.")
    log_info: bool = option(True, BOOLEAN, LOGGING, "Write lines of level info.")
    log_warning: bool = option(True, BOOLEAN, LOGGING, "Write lines of level warning.")
    log_error: bool = option(True, BOOLEAN, LOGGING, "Write lines of level error.")
    log_format: LogFormat = option(  # noqa: RUF009 - it makes a field, as all of them
        LogFormat.AUTO,
        LOG_FORMAT,
        LOGGING,
        "The shape of a line. auto: human on a terminal, json elsewhere. default and ISO8601 are Triton's two forms.",
    )
    log_file: str = option("", TEXT, LOGGING, "The file to append the log to; standard error when not given.")
    access_log: bool = option(False, BOOLEAN, LOGGING, "Write a line for every request.")

    notes: tuple[str, ...] = field(default=())

    @property
    def auto_complete(self) -> bool:
        """Whether configurations are completed from the models."""
        return not (self.disable_auto_complete_config or self.strict_model_config)

    @property
    def rate_limits(self) -> tuple[ResourceLimit, ...] | None:
        """The rate limiter's resources; None while it is off."""
        return self.rate_limit_resource if self.rate_limit == "execution_count" else None

    @property
    def grpc_tls(self) -> bool:
        """Whether gRPC is served over TLS; the mutual option implies it, as in Triton."""
        return self.grpc_use_ssl or self.grpc_use_ssl_mutual

    @property
    def metrics_host(self) -> str:
        """Where the metrics are served."""
        return self.metrics_address or self.http_address

    def cache_settings(self) -> CacheSettings | None:
        """The response cache's settings; None when there is to be none.

        Raises:
            InvalidArgumentError: they are wrong.
        """
        given = self.cache_config
        if self.response_cache_byte_size is not None:
            given = (CacheSetting(LOCAL, (("size", str(self.response_cache_byte_size)),)),)
        return cache_settings(given)

    def backend_settings(self) -> dict[str, dict[str, str]]:
        """``backend-config`` by backend and key, ``""`` for all backends; the last of equal keys counts."""
        settings: dict[str, dict[str, str]] = {}
        for backend, key, value in self.backend_config:
            settings.setdefault(backend, {})[key] = value
        return settings

    def log_settings(self) -> LogSettings:
        """The logging options, for ``setup_logging``."""
        return LogSettings(
            verbose=self.log_verbose,
            info=self.log_info,
            warning=self.log_warning,
            error=self.log_error,
            format=self.log_format,
            file=self.log_file,
            access=self.access_log,
        )


def _declared() -> tuple[Option, ...]:
    options = []
    for one in fields(ServerOptions):
        if "option" in one.metadata:
            it = one.metadata["option"]
            name = it.name or one.name.replace("_", "-")
            options.append(
                Option(name, one.name, it.kind, one.default, it.group, it.help, it.repeatable, it.aliases, it.note)
            )
    return tuple(options)


OPTIONS = _declared()
"""Every option, in the order of the documentation."""

BY_NAME = {one.name: one for one in OPTIONS} | {alias: one for one in OPTIONS for alias in one.aliases}
"""Options by their names and aliases."""
