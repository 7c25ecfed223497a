"""Runs the real Triton with Python models made from ``ModelSpec``, for tests that compare with it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from shoal.config.spec import ModelSpec, QueuePolicySpec, TensorSpec

PEERS = Path(os.environ.get("PEERS", Path.home() / ".cache/shoal-peers"))
START_SECONDS = 90
START_ATTEMPTS = 3
UNASSIGNED_PORTS = range(20_000, 32_000)

MODEL_CODE = """
import json
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.config = json.loads(args["model_config"])
        delay = self.config["parameters"].get("delay_ms", {"string_value": "0"})
        self.delay_s = int(delay["string_value"]) / 1000

    def execute(self, requests):
        time.sleep(self.delay_s)
        return [self.answer(len(requests)) for _ in requests]

    def answer(self, joined):
        batched = [1] if self.config["max_batch_size"] else []
        outputs = []
        for output in self.config["output"]:
            shape = batched + [1 if int(dimension) < 0 else int(dimension) for dimension in output["dims"]]
            if output["data_type"] == "TYPE_STRING":
                array = np.full(shape, b"x", dtype=object)
            else:
                array = np.full(shape, joined, dtype=pb_utils.triton_string_to_numpy(output["data_type"]))
            outputs.append(pb_utils.Tensor(output["name"], array))
        return pb_utils.InferenceResponse(outputs)
"""


def installed() -> bool:
    """Whether the real Triton is on this machine."""
    return (PEERS / "ready").exists()


def write_model(repository: Path, spec: ModelSpec) -> None:
    """Write the model's folder: the configuration and code that answers anything."""
    code = repository / spec.name / "1" / "model.py"
    code.parent.mkdir(parents=True)
    code.write_text(MODEL_CODE)
    (repository / spec.name / "config.pbtxt").write_text(config_text(spec))


def config_text(spec: ModelSpec) -> str:
    """The model's ``config.pbtxt``."""
    lines = [f'name: "{spec.name}"', 'backend: "python"', f"max_batch_size: {spec.max_batch_size}"]
    lines += [f"input {{ {tensor_text(each)} }}" for each in spec.inputs]
    lines += [f"output {{ {tensor_text(each)} }}" for each in spec.outputs]
    lines.append(f"instance_group {{ kind: KIND_CPU count: {len(spec.instances)} }}")
    lines += [
        f'parameters {{ key: "{key}" value {{ string_value: "{text}" }} }}' for key, text in spec.parameters.items()
    ]
    if spec.batching is not None:
        lines.append(f"dynamic_batching {{ {batching_text(spec)} }}")
    return "\n".join(lines) + "\n"


def tensor_text(spec: TensorSpec) -> str:
    """One input or output."""
    fields = [f'name: "{spec.name}"', f"data_type: {spec.datatype.config}", f"dims: {list(spec.dims)}"]
    if spec.reshape is not None:
        fields.append(f"reshape {{ shape: {list(spec.reshape)} }}")
    if spec.optional:
        fields.append("optional: true")
    return " ".join(fields)


def batching_text(spec: ModelSpec) -> str:
    """The dynamic batcher's settings."""
    batching = spec.batching
    assert batching is not None
    policies = batching.priority_queue_policies
    return " ".join(
        [
            *(f"preferred_batch_size: {size}" for size in batching.preferred_batch_sizes),
            f"max_queue_delay_microseconds: {batching.max_queue_delay_us}",
            f"preserve_ordering: {str(batching.preserve_ordering).lower()}",
            f"priority_levels: {batching.priority_levels}",
            f"default_priority_level: {batching.default_priority_level}",
            f"default_queue_policy {{ {policy_text(batching.default_queue_policy)} }}",
            *(
                f"priority_queue_policy {{ key: {level} value {{ {policy_text(policy)} }} }}"
                for level, policy in policies.items()
            ),
        ]
    )


def policy_text(policy: QueuePolicySpec) -> str:
    """The limits of one queue."""
    return " ".join(
        [
            f"timeout_action: {policy.timeout_action.value}",
            f"default_timeout_microseconds: {policy.default_timeout_us}",
            f"allow_timeout_override: {str(policy.allow_timeout_override).lower()}",
            f"max_queue_size: {policy.max_queue_size}",
        ]
    )


def free_port() -> int:
    """A port that nobody listens on, and that no system gives to those who ask for any: it stays free for us."""
    for port in random.sample(UNASSIGNED_PORTS, 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("0.0.0.0", port))
            return port
    raise AssertionError("no port is free")


@contextlib.contextmanager
def serving(repository: Path, specs: Iterable[ModelSpec]) -> Iterator[str]:
    """A running Triton with these models; gives the address of its HTTP server."""
    for spec in specs:
        write_model(repository, spec)
    with running(repository, free_port()) as address:
        yield address


@contextlib.contextmanager
def running(repository: Path, port: int, *options: str, path: str = "/v2/health/ready") -> Iterator[str]:
    """A running Triton with this repository and these further options, once ``path`` answers.

    Only one test process at a time has any: two that start together have been seen to take each other's ports.
    """
    address = f"http://127.0.0.1:{port}"
    with PEER_LOCK:
        process = start_until_ready(repository, port, options, address + path)
        try:
            yield address
        finally:
            stop(process)


class PeerLock:
    """A lock between processes, which one process may take several times."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._depth = 0
        self._file: IO[str] | None = None

    def __enter__(self) -> None:
        if self._depth == 0:
            self._file = self._path.open("w")
            fcntl.flock(self._file, fcntl.LOCK_EX)
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            assert self._file is not None
            self._file.close()


PEER_LOCK = PeerLock(Path(tempfile.gettempdir()) / "shoal-triton-peer.lock")


def start_until_ready(repository: Path, port: int, options: Iterable[str], url: str) -> subprocess.Popen[bytes]:
    """Start the server; once more when it ended at once, for a port may be taken for a moment by another test."""
    for attempt in range(START_ATTEMPTS):
        process = start(repository, port, *options)
        try:
            wait_until_ready(url, process)
        except AssertionError:
            stop(process)
            if attempt == START_ATTEMPTS - 1:
                raise
        else:
            return process
    raise AssertionError("no attempt was made")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the server, by force if it must be."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def start(repository: Path, port: int, *options: str) -> subprocess.Popen[bytes]:
    """Start the server with everything off but HTTP and what further options turn on."""
    packages = next((PEERS / "venv/lib").glob("python3*")) / "site-packages"
    triton = packages / "pytriton/tritonserver"
    environment = dict(os.environ)
    environment["PATH"] = f"{PEERS / 'venv/bin'}:{environment['PATH']}"
    environment["PYTHONPATH"] = str(packages)
    environment["LD_LIBRARY_PATH"] = f"{packages / 'nvidia_pytriton.libs'}:{triton / 'external_libs'}"
    off = ["--allow-grpc=false", "--allow-metrics=false", "--log-info=false", "--log-warning=false"]
    folders = [f"--backend-directory={triton / 'backends'}", f"--cache-directory={triton / 'caches'}"]
    folders.append(f"--model-repository={repository}")
    command = [
        str(triton / "bin/tritonserver"),
        *folders,
        f"--http-port={port}",
        *off,
        "--exit-timeout-secs=5",
        *options,
    ]
    with (repository.parent / f"{repository.name}.log").open("wb") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    """Return when the server answers there that all is well."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        assert process.poll() is None, "the real Triton ended while it started; see its log"
        time.sleep(0.2)
    raise AssertionError("the real Triton did not become ready")


def post(url: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
    """The status and body of the answer to a POST."""
    request = urllib.request.Request(url, body, headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
