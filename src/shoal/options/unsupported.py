"""Triton's options that Shoal does not have, each with what a user who gives it should know."""

from __future__ import annotations

_REPOSITORY = "models are loaded at start-up and stay; they cannot be loaded, unloaded or polled for yet"
_RESTRICTED = "restricting single APIs by a header is not supported yet; put a proxy in front"
_KEEPALIVE = "gRPC keep-alive and connection age cannot be set yet"
_NO_POOL = "Shoal has no such pool or thread; leave it out"
_TRACE = "tracing is not supported yet"
_CLOUD = "this cloud frontend is not supported; the HTTP and gRPC protocols are the same there"
_BACKENDS = "backends are Python packages and need no directory; leave it out"
_GPU_MEMORY = "GPU memory is left to the backends; leave it out"

UNSUPPORTED: dict[str, str] = {
    "repository-poll-secs": _REPOSITORY,
    "load-model": _REPOSITORY,
    "model-config-name": "a model's configuration is always config.pbtxt; alternative names are not supported yet",
    "model-namespacing": "model names must differ between repositories; namespaces are not supported yet",
    "enable-peer-access": _GPU_MEMORY,
    "http-restricted-api": _RESTRICTED,
    "grpc-restricted-protocol": _RESTRICTED,
    "grpc-infer-thread-count": _NO_POOL,
    "grpc-infer-allocation-pool-size": _NO_POOL,
    "grpc-max-response-pool-size": _NO_POOL,
    "buffer-manager-thread-count": _NO_POOL,
    "grpc-keepalive-time": _KEEPALIVE,
    "grpc-keepalive-timeout": _KEEPALIVE,
    "grpc-keepalive-permit-without-calls": _KEEPALIVE,
    "grpc-http2-max-pings-without-data": _KEEPALIVE,
    "grpc-http2-min-recv-ping-interval-without-data": _KEEPALIVE,
    "grpc-http2-max-ping-strikes": _KEEPALIVE,
    "grpc-max-connection-age": _KEEPALIVE,
    "grpc-max-connection-age-grace": _KEEPALIVE,
    "allow-sagemaker": _CLOUD,
    "sagemaker-port": _CLOUD,
    "sagemaker-safe-port-range": _CLOUD,
    "sagemaker-thread-count": _CLOUD,
    "allow-vertex-ai": _CLOUD,
    "vertex-ai-port": _CLOUD,
    "vertex-ai-thread-count": _CLOUD,
    "vertex-ai-default-model": _CLOUD,
    "metrics-config": "histograms of latencies are always on, and summaries are not supported; leave it out",
    "trace-config": _TRACE,
    "trace-file": _TRACE,
    "trace-level": _TRACE,
    "trace-rate": _TRACE,
    "trace-count": _TRACE,
    "trace-log-frequency": _TRACE,
    "backend-directory": _BACKENDS,
    "repoagent-directory": "repository agents are not supported",
    "cache-directory": "the caches are part of Shoal and need no directory; leave it out and set cache-config",
    "pinned-memory-pool-byte-size": _NO_POOL,
    "cuda-memory-pool-byte-size": _GPU_MEMORY,
    "cuda-virtual-address-size": _GPU_MEMORY,
    "min-supported-compute-capability": "every GPU that the backends can use is used; leave it out",
    "host-policy": "binding instances to NUMA nodes is not supported yet",
    "model-load-gpu-limit": "limiting GPU memory while models load is not supported yet",
    "allow-client-shm": "shared memory between client and server is not supported yet",
}
"""By name, without dashes in front."""
