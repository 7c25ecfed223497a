"""Server: composes the floors below into one inference server, without any socket of its own.

The frontends put protocols before it; a program may also use it directly, on its own event loop::

    server = Server(ServerSettings(repositories=[Path("models")]))
    await server.start()
    ...
    await server.stop(timeout_s=30)
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shoal import __version__
from shoal.caching.contract import LocalCacheStatistics, RemoteCacheStatistics
from shoal.caching.make import ResponseCaching
from shoal.caching.settings import CacheSettings
from shoal.clock import Clock, MonotonicClock
from shoal.config.render import config_to_dict
from shoal.config.spec import ModelSpec, TensorSpec
from shoal.errors import InternalError, InvalidArgumentError, ShoalError, UnavailableError, UnsupportedError
from shoal.execution.arena import ALIGNMENT
from shoal.execution.contract import Runtime, ensembles_first
from shoal.execution.fork_client import ForkClient
from shoal.execution.gpus import count_gpus
from shoal.execution.rate_grants import RateGate
from shoal.execution.request_deadlines import DeadlineKeeper
from shoal.execution.runtime import RuntimeSettings
from shoal.observe.explanation import counts, explain
from shoal.observe.statistics import ModelStatistics
from shoal.repository.catalog import Catalog, ModelState, ServedModel
from shoal.repository.lifecycle import ModelLifecycle
from shoal.repository.loader import LoaderSettings
from shoal.requests import LATEST, Buffer, InferHead, RequestPlan
from shoal.scheduling.admission import plan_raw_request, plan_request, raw_payload
from shoal.scheduling.overload import MAX_QUEUED_NBYTES, MAX_QUEUED_REQUESTS, ServerQueue
from shoal.scheduling.rate_limiter import RateLimiter, ResourceLimit

EXTENSIONS = [
    "classification",
    "sequence",
    "schedule_policy",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "statistics",
]
STOPPING = "Server is stopping, scheduler for model has stopped accepting new inference requests"
LARGEST_SHARE, MOST_SHARE = 16, 4
"""What requests still on their way may take of a model's shared memory: a part of it each, and a part all together."""

FAILED_START_STOP_S = 5.0
"""How long the models that could be loaded have to end when another could not."""

log = logging.getLogger("shoal.server")


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What a server is to serve, and how.

    Attributes:
        repositories: the model repositories' folders.
        name: the server's name in its metadata.
        exit_on_error: whether a model that fails to load fails the start.
        strict_readiness: whether the server is ready only when every model is.
        auto_complete: whether models complete their configurations.
        load_threads: models that load at the same time.
        load_retries: how often a failed load is tried again.
        execution_timeout_s: longest time a batch may run; 0 for no limit.
        backend_settings: ``--backend-config`` settings by backend; those of "" hold for every backend.
        rate_limits: the rate limiter's resources; None to have no rate limiter.
        max_queued_requests: how many requests may wait in all models together; 0 for any number.
        max_queued_nbytes: how many bytes of tensors they may have; 0 for any number.
        cache: the response cache's settings; None to have none.
    """

    repositories: Sequence[Path]
    name: str = "shoal"
    exit_on_error: bool = True
    strict_readiness: bool = True
    auto_complete: bool = True
    load_threads: int = 4
    load_retries: int = 0
    execution_timeout_s: float = 0.0
    backend_settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    rate_limits: Sequence[ResourceLimit] | None = None
    max_queued_requests: int = MAX_QUEUED_REQUESTS
    max_queued_nbytes: int = MAX_QUEUED_NBYTES
    cache: CacheSettings | None = None


class Server:
    """An inference server on the running event loop.

    Args:
        settings: what to serve.
        client: a fork server that was started before; None to start one.
        clock: what time it is.

    Attributes:
        settings: what it was told.
        catalog: its models.
        failures: why each model that could not be loaded could not, by name.
    """

    def __init__(self, settings: ServerSettings, client: ForkClient | None = None, clock: Clock | None = None) -> None:
        self.settings = settings
        self.catalog = Catalog()
        self.client = client or ForkClient()
        self.failures: dict[str, str] = {}
        self._clock = clock or MonotonicClock()
        self._deadlines = DeadlineKeeper(self._clock)
        self._statistics: dict[tuple[str, int], ModelStatistics] = {}
        self._listeners: list[Callable[[], None]] = []
        self._live = False
        self._loaded = False
        self._stopping = False
        self._caching = None if settings.cache is None else ResponseCaching(settings.cache, self._clock)
        loader = LoaderSettings(
            client=self.client,
            runtime=_runtime_settings(settings, self._clock),
            recorder=self._make_statistics,
            gpu_count=count_gpus(),
            auto_complete=settings.auto_complete,
            backend_settings=settings.backend_settings,
            caching=self._caching,
        )
        self._lifecycle = ModelLifecycle(self.catalog, loader, settings.load_threads, settings.load_retries)

    def _make_statistics(self, spec: ModelSpec) -> ModelStatistics:
        made = self._statistics[spec.name, spec.version] = ModelStatistics(spec.name, spec.version)
        return made

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load every model of the repositories.

        Raises:
            ShoalError: a repository cannot be read, or a model failed and ``exit_on_error`` is set; all is stopped.
        """
        self._live = True
        self.client.start()
        try:
            if self._caching is not None:
                await self._caching.start()
            self.failures = await self._lifecycle.load_all(self.settings.repositories)
            if self.settings.exit_on_error:
                _raise_failures(self.failures)
        except BaseException:
            await self.stop(FAILED_START_STOP_S)
            raise
        self._loaded = True
        self._models_changed()

    def refuse_readiness(self) -> None:
        """From now on the server is not ready; it still answers."""
        self._stopping = True

    async def drain(self, timeout_s: float) -> bool:
        """Take no more requests and wait until those taken are answered; False when some were not in time."""
        self.refuse_readiness()
        if self._caching is not None:
            await self._caching.drained()  # a request that was taken and is looked up may still have to run
        runtimes = [served.runtime for served in self.served()]
        for runtime in runtimes:
            runtime.close(STOPPING)
        try:
            await asyncio.wait_for(_drained(runtimes), timeout_s)
        except TimeoutError:
            return False
        return True

    async def stop(self, timeout_s: float) -> None:
        """Stop the models and the fork server; requests that are not answered yet are refused."""
        self.refuse_readiness()
        self._live = self._loaded = False
        if self._caching is not None:
            await self._caching.stop()
        await self._lifecycle.stop_all(timeout_s)
        self._deadlines.close()
        self._models_changed()
        self.client.close()

    def on_models_changed(self, listener: Callable[[], None]) -> None:
        """Have ``listener`` called whenever a model was loaded, reloaded or unloaded: plans made before are void."""
        self._listeners.append(listener)

    def _models_changed(self) -> None:
        for listener in self._listeners:
            listener()

    # --- requests ---------------------------------------------------------------------------------------------------

    def check_single_answer(self, model: str, version: int, refusal: str) -> None:
        """Check, before anything else is read, that a request to a model has exactly one answer.

        Args:
            model: the model's name.
            version: its version or ``LATEST``.
            refusal: what to say of a decoupled model.

        Raises:
            ShoalError: there is no such model.
            UnsupportedError: it is decoupled.
        """
        if self.catalog.find(model, version).spec.decoupled:
            raise UnsupportedError(refusal)

    def plan(self, head: InferHead) -> RequestPlan:
        """Check a request's head against its model; the plan may be kept until models change.

        Raises:
            ShoalError: there is no such model, or the request does not fit it.
        """
        served = self.catalog.find(head.model_name, head.model_version)
        return self._complete_plan(plan_request(head, served.spec, served.sink), served.spec)

    def plan_raw(self, head: InferHead, body: Buffer) -> tuple[RequestPlan, Sequence[Buffer]]:
        """The same for a raw binary request, whose body is its one tensor; also gives the payload."""
        served = self.catalog.find(head.model_name, head.model_version)
        plan = self._complete_plan(plan_raw_request(head, len(body), served.spec, served.sink), served.spec)
        return plan, raw_payload(plan, body)

    def _complete_plan(self, plan: RequestPlan, spec: ModelSpec) -> RequestPlan:
        """Add what encoders ask for, and keep the deadline if there is one."""
        plan.batched = spec.max_batch_size > 0
        plan.decoupled = spec.decoupled
        if any(output.classification for output in plan.head.outputs):
            labels = {tensor.name: tensor.labels for tensor in spec.outputs}
            plan.labels = labels.__getitem__
        if plan.deadline_us:
            plan.sink = self._deadlines.before(plan.sink, self.model_statistics(spec))
        return plan

    def receive_buffer(self, model: str, version: int, nbytes: int, aligned: int) -> memoryview | None:
        """Shared memory of a model to receive a large request in, or None when there is none to be had.

        Args:
            model: the model's name.
            version: its version or ``LATEST``.
            nbytes: length of the request.
            aligned: where in the request the first tensor begins; that byte is put on an aligned address.
        """
        try:
            arena = self.catalog.find(model, version).runtime.receive_arena
            if (
                arena is None
                or nbytes > arena.mapping.nbytes // LARGEST_SHARE
                or arena.used_nbytes > arena.mapping.nbytes // MOST_SHARE
            ):
                return None
            block = arena.allocate(nbytes + ALIGNMENT)
        except ShoalError:
            return None  # a request in memory of its own is answered with the same error, or served from there
        start = -aligned % ALIGNMENT
        return arena.lend(block)[start : start + nbytes]

    # --- what it says of itself -------------------------------------------------------------------------------------

    @property
    def live(self) -> bool:
        """Whether it runs: from the moment when it begins to load models until they are stopped."""
        return self._live

    @property
    def ready(self) -> bool:
        """Whether it takes requests: every model is ready under strict readiness (rule 53)."""
        if not self._loaded or self._stopping:
            return False
        if not self.settings.strict_readiness:
            return True
        return not self.failures and all(served.runtime.ready for served in self.served())

    @property
    def stopping(self) -> bool:
        """Whether it is on its way out."""
        return self._stopping

    def model_ready(self, name: str, version: int = LATEST) -> bool:
        """Whether a model version takes requests."""
        try:
            return not self._stopping and self.catalog.find(name, version).runtime.ready
        except ShoalError:
            return False

    def metadata(self) -> dict[str, Any]:
        """Name, version and extensions of the server."""
        return {"name": self.settings.name, "version": __version__, "extensions": EXTENSIONS}

    def model_metadata(self, name: str, version: int = LATEST) -> dict[str, Any]:
        """A model's inputs and outputs for clients (rules 28 and 51).

        Raises:
            ShoalError: there is no such model, or none of it is ready.
        """
        spec = self.catalog.find(name, version).spec
        versions = self.catalog.ready_versions(name) if version == LATEST else [version]
        batched = spec.max_batch_size > 0
        return {
            "name": name,
            "versions": [str(number) for number in versions],
            "platform": spec.platform,
            "inputs": [_tensor_metadata(tensor, batched) for tensor in spec.inputs],
            "outputs": [_tensor_metadata(tensor, batched) for tensor in spec.outputs],
        }

    def model_config(self, name: str, version: int = LATEST) -> Any:
        """A model's completed ``ModelConfig`` message.

        Raises:
            ShoalError: there is no such model, or none of it is ready.
        """
        return self.catalog.find(name, version).config

    def model_config_dict(self, name: str, version: int = LATEST) -> dict[str, Any]:
        """The same as the JSON that clients get."""
        return config_to_dict(self.model_config(name, version))

    def statistics(self, name: str = "", version: int = LATEST) -> dict[str, Any]:
        """Statistics of one model version, of all versions of a model, or of all models.

        Raises:
            InvalidArgumentError: there is no such model or version (Triton answers 400 here).
        """
        entries = [entry for entry in self.catalog if entry.state is ModelState.READY and name in ("", entry.name)]
        if name and not entries:
            raise InvalidArgumentError(f"requested model '{name}' is not available")
        if version != LATEST:
            entries = [entry for entry in entries if entry.version == version]
            if not entries:
                raise InvalidArgumentError(f"requested model version is not available for model '{name}'")
        return {"model_stats": [self._statistics[entry.name, entry.version].to_dict() for entry in entries]}

    def batching(self, name: str, version: int) -> dict[str, Any]:
        """The part of a model version's explanation that only counts, for its statistics."""
        return counts(self.catalog.find(name, version).spec, self._statistics[name, version].log)

    def explanation(self, name: str, version: int = LATEST) -> dict[str, Any]:
        """Why a model's batches are what they are: see ``observe.explanation.explain``.

        Raises:
            ShoalError: there is no such model, or none of it is ready.
        """
        served = self.catalog.find(name, version)
        spec, log = served.spec, self._statistics[name, served.spec.version].log
        return explain(spec, log, served.runtime.queue_statistics(), self._clock.now_ns(), served.runtime.beliefs())

    def model_statistics(self, spec: ModelSpec) -> ModelStatistics:
        """The counters of a loaded model version."""
        return self._statistics[spec.name, spec.version]

    def cache_statistics(self) -> LocalCacheStatistics | RemoteCacheStatistics | None:
        """What the response cache counts; None without one."""
        return None if self._caching is None else self._caching.statistics()

    def served(self) -> list[ServedModel]:
        """Every model version that is loaded."""
        return [entry.served for entry in self.catalog if entry.served is not None]

    def check_live(self) -> None:
        """Raise what Triton answers while it is stopping.

        Raises:
            UnavailableError: the server is not live.
        """
        if not self._live:
            raise UnavailableError("Server exiting")


def _runtime_settings(settings: ServerSettings, clock: Clock) -> RuntimeSettings:
    """What all models share: the clock, the rate limiter where there is to be one, and the count of what waits."""
    gate = None if settings.rate_limits is None else RateGate(RateLimiter(settings.rate_limits))
    queued = ServerQueue(settings.max_queued_requests, settings.max_queued_nbytes)
    return RuntimeSettings(clock, settings.execution_timeout_s, gate, queued)


async def _drained(runtimes: Sequence[Runtime]) -> None:
    """Wait until nothing is on its way."""
    for group in ensembles_first(runtimes):
        await asyncio.gather(*(runtime.drained() for runtime in group))


def _raise_failures(failures: Mapping[str, str]) -> None:
    if failures:
        raise InternalError("\n".join(f"failed to load model '{name}': {why}" for name, why in failures.items()))


def _tensor_metadata(tensor: TensorSpec, batched: bool) -> dict[str, Any]:
    shape = [-1, *tensor.dims] if batched else list(tensor.dims)
    return {"name": tensor.name, "datatype": tensor.datatype.wire, "shape": shape}
