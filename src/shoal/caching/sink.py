"""What stands before a model whose responses are kept: looks a request up, and lets it run when there is nothing.

::

    submit -> key -> lookup -> (hit)  answered at once; the model never sees it
                            -> (miss) runtime -> answered, then kept if it succeeded

A request that misses gets a stand-in for its responder until it is answered, which is how the answer comes by here.
Requests with the same key that miss at the same time all run; the last one's answer stays.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from shoal.caching.contract import CacheRecorder, DeferredCache, ImmediateCache
from shoal.caching.key import Identity, request_key
from shoal.caching.order import AnswerOrder, Turn
from shoal.config.spec import ModelSpec
from shoal.errors import CancelledError, ShoalError
from shoal.requests import InferRequest, InferResponse, RequestState, Responder, Sink

log = logging.getLogger("shoal.cache")


@dataclass(frozen=True, slots=True)
class CachedModel:
    """What a caching sink stands before.

    Attributes:
        spec: the model.
        sink: what runs its requests.
        recorder: counts hits and misses.
        identity: tells it from other models of its name and version.
        now_ns: the clock.
    """

    spec: ModelSpec
    sink: Sink
    recorder: CacheRecorder
    identity: Identity
    now_ns: Callable[[], int]


class _Missed:
    """Stands in for the responder of a request that was not in the cache."""

    __slots__ = ("_before", "_key", "_lookup_ns", "_responder", "_turn")

    def __init__(
        self, before: CachingSink, key: bytes, responder: Responder, lookup_ns: int, turn: Turn | None
    ) -> None:
        self._before = before
        self._key = key
        self._responder = responder
        self._lookup_ns = lookup_ns
        self._turn = turn

    def completed(self, request: InferRequest, response: InferResponse) -> None:
        """Pass the answer on, and keep it."""
        request.responder = self._responder
        keep = not request.cancelled
        try:
            self._before.answer(request, response, self._turn)
        finally:
            self._before.missed(self._key if keep else None, response, self._lookup_ns)

    def failed(self, request: InferRequest, error: ShoalError) -> None:
        """Pass the error on; it is not kept."""
        request.responder = self._responder
        try:
            self._before.forgo(self._turn)
            self._responder.failed(request, error)
        finally:
            self._before.missed(None, None, self._lookup_ns)

    def responded(self, request: InferRequest, answer: InferResponse | ShoalError | None, *, final: bool) -> None:
        """Pass one of several answers on; such models are not cached, so this is of no model's making."""
        if final:
            request.responder = self._responder
            self._before.forgo(self._turn)
        self._responder.responded(request, answer, final=final)


class CachingSink:
    """Stands before a model (a ``requests.Sink``); what both kinds of cache share."""

    def __init__(self, model: CachedModel, cache: ImmediateCache | DeferredCache) -> None:
        self._spec = model.spec
        self._sink = model.sink
        self._recorder = model.recorder
        self._identity = model.identity
        self._now_ns = model.now_ns
        self._insert = cache.insert
        batching = model.spec.batching
        self._order = AnswerOrder() if batching is not None and batching.preserve_ordering else None

    def cancel(self, request: InferRequest) -> None:
        """The client is gone or cancelled."""
        self._sink.cancel(request)

    def abandon(self, correlation_id: int | str, begun_ns: int) -> None:
        """Nothing: what is cached has no sequences."""

    def _begin(self) -> Turn | None:
        return None if self._order is None else self._order.begin()

    def _hit(self, request: InferRequest, response: InferResponse, started_ns: int, turn: Turn | None) -> None:
        request.state = RequestState.DONE
        lookup_ns = self._now_ns() - started_ns
        try:
            self.answer(request, response, turn)
        finally:
            self._recorder.cache_hit(request, lookup_ns, self._now_ns())

    def _miss(self, request: InferRequest, key: bytes, started_ns: int, turn: Turn | None) -> None:
        request.responder = _Missed(self, key, request.responder, self._now_ns() - started_ns, turn)
        self._sink.submit(request)

    # --- for the stand-in -------------------------------------------------------------------------------------------

    def answer(self, request: InferRequest, response: InferResponse, turn: Turn | None) -> None:
        """Give a request its answer, in its turn."""
        if self._order is None or turn is None:
            request.responder.completed(request, response)
        else:
            self._order.answer(turn, lambda: request.responder.completed(request, response))

    def forgo(self, turn: Turn | None) -> None:
        """A request's turn comes to nothing."""
        if self._order is not None and turn is not None:
            self._order.forgo(turn)

    def missed(self, key: bytes | None, response: InferResponse | None, lookup_ns: int) -> None:
        """A request that missed was answered: count it, and keep its answer under this key, if there is one."""
        started_ns = self._now_ns()
        if key is not None and response is not None:
            try:
                self._insert(key, response)
            except Exception:  # the request has its answer
                log.exception("a response of model '%s' could not be kept", self._spec.name)
        self._recorder.cache_miss(lookup_ns + self._now_ns() - started_ns)


class ImmediateCachingSink(CachingSink):
    """Before it asks the runtime it asks a cache that answers at once."""

    def __init__(self, model: CachedModel, cache: ImmediateCache) -> None:
        super().__init__(model, cache)
        self._lookup = cache.lookup

    def submit(self, request: InferRequest) -> None:
        """Answer the request from the cache, or let it run."""
        started_ns = self._now_ns()
        turn = self._begin()
        key = request_key(request, self._spec, self._identity)
        response = self._lookup(key)
        if response is None:
            self._miss(request, key, started_ns, turn)
        else:
            self._hit(request, response, started_ns, turn)


class _Waiting:
    """A request whose lookup is under way."""

    __slots__ = ("_before", "key", "request", "started_ns", "turn")

    def __init__(
        self, before: DeferredCachingSink, request: InferRequest, key: bytes, started_ns: int, turn: Turn | None
    ) -> None:
        self._before = before
        self.request = request
        self.key = key
        self.started_ns = started_ns
        self.turn = turn

    def told(self, response: InferResponse | None) -> None:
        """The cache's answer."""
        self._before.told(self, response)


class DeferredCachingSink(CachingSink):
    """Before it asks the runtime it asks a cache that answers later; meanwhile the request may be cancelled."""

    def __init__(self, model: CachedModel, cache: DeferredCache) -> None:
        super().__init__(model, cache)
        self._ask = cache.ask
        self._waiting: dict[InferRequest, _Waiting] = {}

    def submit(self, request: InferRequest) -> None:
        """Ask the cache, and answer the request from there or let it run when the cache has told."""
        started_ns = self._now_ns()
        turn = self._begin()
        key = request_key(request, self._spec, self._identity)
        waiting = _Waiting(self, request, key, started_ns, turn)
        if self._ask(key, waiting.told):
            self._waiting[request] = waiting
        else:
            self._miss(request, key, started_ns, turn)

    def told(self, waiting: _Waiting, response: InferResponse | None) -> None:
        """What the cache found for a request, which may have been cancelled meanwhile."""
        if self._waiting.pop(waiting.request, None) is None:
            return
        if response is None:
            self._miss(waiting.request, waiting.key, waiting.started_ns, waiting.turn)
        else:
            self._hit(waiting.request, response, waiting.started_ns, waiting.turn)

    def cancel(self, request: InferRequest) -> None:
        """The client is gone or cancelled: a request whose lookup is under way is answered with CANCELLED."""
        waiting = self._waiting.pop(request, None)
        if waiting is None:
            super().cancel(request)
            return
        error = CancelledError("request was cancelled while it was looked up in the response cache")
        request.state = RequestState.DONE
        self._recorder.request_failed(request, error.reason, self._now_ns())
        self.forgo(waiting.turn)
        request.responder.failed(request, error)
