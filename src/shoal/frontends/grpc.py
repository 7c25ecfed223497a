"""The gRPC frontend: v2 calls in, Server calls, v2 messages out.

As in the HTTP frontend, a message whose repeated part was seen before is found by its bytes and gives the checked plan.
Inference streams are in ``grpc_stream``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from shoal.errors import ShoalError, UnsupportedError
from shoal.frontends.access import log_grpc
from shoal.frontends.grpc_stream import InferStream
from shoal.protocols import grpc_infer, grpc_messages, parameters
from shoal.protocols.grpc_peek import peek
from shoal.requests import Buffer, InferHead, InferRequest, InferResponse, Parameter, RequestPlan
from shoal.server import Server
from shoal.transport.handler import GrpcCall

INFER = grpc_messages.SERVICE + "ModelInfer"
DECOUPLED = "ModelInfer RPC doesn't support models with decoupled transaction policy"
STREAM_INFER = grpc_messages.SERVICE + "ModelStreamInfer"


class GrpcFrontend:
    """Serves the v2 protocol over gRPC (a ``transport.handler.GrpcHandler`` and a ``requests.Responder``).

    Args:
        server: what answers.
        forward_pattern: metadata whose names match become request parameters; "" for none.
        compression_level: of the answers to clients that accept compression; 0 for none.
        access_log: whether every request is logged.

    Attributes:
        access_log: the same.
    """

    def __init__(
        self, server: Server, forward_pattern: str = "", compression_level: int = 0, *, access_log: bool = False
    ) -> None:
        self._server = server
        self._forward = re.compile(forward_pattern, re.IGNORECASE) if forward_pattern else None
        self._compression_level = compression_level
        self.access_log = access_log
        self._memo: grpc_infer.PrefixMemo[RequestPlan] = grpc_infer.PrefixMemo()
        self._methods: dict[str, Callable[[Buffer], Sequence[Buffer]]] = {
            grpc_messages.SERVICE + name: method
            for name, method in {
                "ServerLive": self._server_live,
                "ServerReady": self._server_ready,
                "ModelReady": self._model_ready,
                "ServerMetadata": self._server_metadata,
                "ModelMetadata": self._model_metadata,
                "ModelConfig": self._model_config,
                "ModelStatistics": self._model_statistics,
            }.items()
        }
        self._streams: set[InferStream] = set()
        self._methods[grpc_messages.HEALTH_CHECK] = self._health_check
        server.on_models_changed(self._memo.clear)

    # --- the transport's calls --------------------------------------------------------------------------------------

    def started(self, call: GrpcCall) -> None:
        """Begin a call."""
        if call.path == STREAM_INFER:
            call.context = stream = InferStream(self, call)
            self._streams.add(stream)
        elif call.path == INFER:
            call.unary = True
            call.compression_level = self._compression_level
        elif call.path in self._methods:
            call.unary = True
        else:
            self._refuse(call, UnsupportedError(f"unknown method '{call.path}'"), time.monotonic_ns())

    def message_buffer(self, call: GrpcCall, first: memoryview, nbytes: int) -> memoryview | None:
        """Memory that the model's workers share, so that a large tensor is received where it will be read."""
        if call.path not in (INFER, STREAM_INFER):
            return None
        known = peek(first)
        if known is None:
            return None
        return self._server.receive_buffer(known.model_name, known.model_version, nbytes, known.first_raw)

    def message(self, call: GrpcCall, message: Buffer) -> None:
        """Answer a request, now or when its model has run."""
        arrival_ns = time.monotonic_ns()
        try:
            if call.path == INFER:
                plan, payload = self.plan(call, message)
                if plan.decoupled:
                    raise UnsupportedError(DECOUPLED)
                request = InferRequest(plan, payload, self, call, arrival_ns)
                call.context = request
                plan.sink.submit(request)
            elif call.path == STREAM_INFER:
                call.context.message(message)  # type: ignore[attr-defined] # set in ``started``
            else:
                answer = self._methods[call.path](message)
                call.respond(answer)
                if self.access_log:
                    log_grpc(call, 0, sum(map(len, answer)), arrival_ns)
        except ShoalError as error:
            self._refuse(call, error, arrival_ns)

    def _refuse(self, call: GrpcCall, error: ShoalError, arrival_ns: int) -> None:
        call.finish(error.status.grpc, error.message, 1000 * error.retry_after_s)
        if self.access_log:
            log_grpc(call, error.status.grpc, 0, arrival_ns)

    def half_closed(self, call: GrpcCall) -> None:
        """A stream's client sends no more requests."""
        if isinstance(call.context, InferStream):
            call.context.half_closed()

    def drained(self, call: GrpcCall) -> None:
        """A stream's client has read what it had left unread."""
        if isinstance(call.context, InferStream):
            call.context.drained()

    def cancelled(self, call: GrpcCall) -> None:
        """The client is gone: what it asked for is taken out of the queue, or marked when it runs."""
        context, call.context = call.context, None
        if isinstance(context, InferRequest):
            context.plan.sink.cancel(context)
        elif isinstance(context, InferStream):
            context.cancelled()

    def forget(self, stream: InferStream) -> None:
        """A stream has ended."""
        self._streams.discard(stream)

    def end_streams(self) -> None:
        """End every inference stream as soon as its requests are answered, for the server stops."""
        for stream in tuple(self._streams):
            stream.end()

    # --- inference --------------------------------------------------------------------------------------------------

    def plan(self, call: GrpcCall, message: Buffer) -> tuple[RequestPlan, Sequence[Buffer]]:
        """The plan of a ``ModelInferRequest`` and its tensors' bytes.

        Raises:
            ShoalError: the message is malformed, or does not fit its model.
        """
        if self._forward is None:
            known = self._memo.find(message)
            if known is not None:
                return known
        parts = grpc_infer.split(message)
        head = grpc_infer.decode_head(parts.prefix, parts.raw_nbytes())
        if self._forward is not None:
            head = self._with_metadata(head, call)
        payload = parts.payload(message if isinstance(message, bytes) else memoryview(message), head)
        if call.path == INFER:
            self._server.check_single_answer(head.model_name, head.model_version, DECOUPLED)
        plan = self._server.plan(head)
        if self._forward is None:
            self._memo.put(message, parts, len(payload), plan)
        return plan, payload

    def _with_metadata(self, head: InferHead, call: GrpcCall) -> InferHead:
        """The head with the forwarded metadata among its parameters (rule 21)."""
        assert self._forward is not None
        forwarded: dict[str, Parameter] = {}
        for name, value in call.metadata.items():
            if isinstance(value, str) and self._forward.search(name):
                parameters.check_forwarded(name)
                forwarded[name] = value
        return replace(head, parameters={**head.parameters, **forwarded}) if forwarded else head

    def completed(self, request: InferRequest, response: InferResponse) -> None:
        """Send the answer of a unary call."""
        call: GrpcCall = request.context  # type: ignore[assignment] # set in ``message``
        if call.context is not request:  # the client went away meanwhile
            return
        plan = request.plan
        try:
            message = grpc_infer.encode_response(plan.head, response, plan.labels, batched=plan.batched)
        except ShoalError as error:
            self.failed(request, error)
            return
        call.context = None
        call.respond(message)
        if self.access_log:
            nbytes = sum(memoryview(part).nbytes for part in message)
            log_grpc(call, 0, nbytes, request.arrival_ns, plan.head)

    def failed(self, request: InferRequest, error: ShoalError) -> None:
        """Send the error of a unary call."""
        call: GrpcCall = request.context  # type: ignore[assignment] # set in ``message``
        if call.context is not request:
            return
        call.context = None
        call.finish(error.status.grpc, error.message, 1000 * error.retry_after_s)
        if self.access_log:
            log_grpc(call, error.status.grpc, 0, request.arrival_ns, request.plan.head)

    def responded(self, request: InferRequest, answer: InferResponse | ShoalError | None, *, final: bool) -> None:
        """Give the refusal of a decoupled model: such requests are refused before they are submitted."""
        del answer
        if final:
            self.failed(request, UnsupportedError(DECOUPLED))

    # --- everything else --------------------------------------------------------------------------------------------

    def _server_live(self, message: Buffer) -> Sequence[Buffer]:
        del message
        return [grpc_messages.encode_response("ServerLive", {"live": self._server.live})]

    def _server_ready(self, message: Buffer) -> Sequence[Buffer]:
        del message
        return [grpc_messages.encode_response("ServerReady", {"ready": self._server.ready})]

    def _health_check(self, message: Buffer) -> Sequence[Buffer]:
        grpc_messages.decode_health_request(message)
        return [grpc_messages.encode_health(ready=self._server.ready)]

    def _server_metadata(self, message: Buffer) -> Sequence[Buffer]:
        del message
        self._server.check_live()
        return [grpc_messages.encode_response("ServerMetadata", self._server.metadata())]

    def _model_ready(self, message: Buffer) -> Sequence[Buffer]:
        name, version = self._model("ModelReady", message)
        return [grpc_messages.encode_response("ModelReady", {"ready": self._server.model_ready(name, version)})]

    def _model_metadata(self, message: Buffer) -> Sequence[Buffer]:
        name, version = self._model("ModelMetadata", message)
        return [grpc_messages.encode_response("ModelMetadata", self._server.model_metadata(name, version))]

    def _model_config(self, message: Buffer) -> Sequence[Buffer]:
        name, version = self._model("ModelConfig", message)
        return [grpc_messages.encode_model_config(self._server.model_config(name, version).SerializeToString())]

    def _model_statistics(self, message: Buffer) -> Sequence[Buffer]:
        name, version = self._model("ModelStatistics", message)
        return [grpc_messages.encode_response("ModelStatistics", self._server.statistics(name, version))]

    @staticmethod
    def _model(method: str, message: Buffer) -> tuple[str, int]:
        request = grpc_messages.decode_request(method, message)
        return request["name"], grpc_infer.parse_version(request["version"])
