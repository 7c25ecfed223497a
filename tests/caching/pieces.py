"""A small model, requests for it and answers of it, for the tests of the response cache."""

from __future__ import annotations

from dataclasses import replace

from shoal.caching.key import KEY_NBYTES
from shoal.config.spec import BatchingSpec, InstanceKind, InstanceSpec, ModelSpec, TensorSpec
from shoal.datatypes import DataType
from shoal.requests import (
    LATEST,
    InferHead,
    InferRequest,
    InferResponse,
    InputHead,
    OutputHead,
    RequestState,
    ResponseLayout,
    TensorHead,
)
from shoal.scheduling.admission import plan_request

SPEC = ModelSpec(
    name="fish",
    version=3,
    backend="python",
    platform="python",
    max_batch_size=8,
    inputs=(
        TensorSpec("A", DataType.FP32, (-1,)),
        TensorSpec("B", DataType.BYTES, (-1,), optional=True),
        TensorSpec("C", DataType.FP32, (-1,), optional=True),
    ),
    outputs=(TensorSpec("X", DataType.FP32, (-1,)), TensorSpec("Y", DataType.BYTES, (-1,))),
    instances=(InstanceSpec("fish_0", InstanceKind.CPU, 0),),
    cached=True,
)
ORDERED = replace(SPEC, batching=BatchingSpec(preserve_ordering=True))
IDENTITY = b"i" * KEY_NBYTES


def key_of(number: int) -> bytes:
    """A key."""
    return number.to_bytes(KEY_NBYTES, "little")


def response_of(*data: bytes, parameters: dict | None = None, name: str = "fish") -> InferResponse:
    """A response with outputs of these bytes."""
    heads = tuple(TensorHead(f"X{place}", DataType.UINT8, (len(each),)) for place, each in enumerate(data))
    return InferResponse(ResponseLayout(name, 3, heads), list(data), parameters)


class Client:
    """A responder that notes what it is told; ``events`` holds one entry per call."""

    def __init__(self) -> None:
        self.events: list[tuple[str, InferRequest, object]] = []

    def completed(self, request, response):
        assert request.responder is self
        self.events.append(("completed", request, response))

    def failed(self, request, error):
        assert request.responder is self
        self.events.append(("failed", request, error))

    def responded(self, request, answer, *, final):
        self.events.append(("final" if final else "responded", request, answer))

    def answers_to(self, request: InferRequest) -> list[tuple[str, object]]:
        """What came for one request."""
        return [(kind, what) for kind, whom, what in self.events if whom is request]


class Runtime:
    """A sink that runs what it is told to run, when it is told to."""

    def __init__(self) -> None:
        self.waiting: list[InferRequest] = []
        self.cancelled: list[InferRequest] = []

    def submit(self, request):
        request.state = RequestState.QUEUED
        self.waiting.append(request)

    def cancel(self, request):
        self.cancelled.append(request)
        request.cancelled = True

    def complete(self, request, response):
        self.waiting.remove(request)
        request.state = RequestState.DONE
        request.responder.completed(request, response)

    def fail(self, request, error):
        self.waiting.remove(request)
        request.state = RequestState.DONE
        request.responder.failed(request, error)


class Recorder:
    """Counts what a caching sink reports."""

    def __init__(self) -> None:
        self.hits = self.misses = 0
        self.failures: list[object] = []
        self.hit_ns = self.miss_ns = 0

    def cache_hit(self, request, lookup_ns, now_ns):
        self.hits += 1
        self.hit_ns += lookup_ns

    def cache_miss(self, took_ns):
        self.misses += 1
        self.miss_ns += took_ns

    def request_failed(self, request, reason, now_ns):
        self.failures.append(reason)


def head_of(*inputs: InputHead, outputs: tuple[str, ...] = (), **more: object) -> InferHead:
    """A head of a request for the model."""
    return InferHead(
        "fish", LATEST, more.pop("request_id", ""), inputs, tuple(OutputHead(name) for name in outputs), **more
    )


def request_of(data: bytes, responder: object = None, spec: ModelSpec = SPEC) -> InferRequest:
    """A request with one row in the input A."""
    head = head_of(InputHead("A", DataType.FP32, (1, len(data) // 4), len(data)))
    return InferRequest(plan_request(head, spec, None), [data], responder, None, 0)
