"""The HTTP frontend: v2 requests in, Server calls, v2 responses out.

The infer path is made for clients that repeat themselves. The transport finds a repeated request head by its bytes and
keeps our route in it; here the JSON header of a repeated body is found by its bytes and gives the checked plan. What is
left per request is to cut the payload, queue it, and later join the response.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from shoal.errors import ShoalError, UnsupportedError
from shoal.frontends.access import log_http
from shoal.frontends.compressing import ResponseCompressor
from shoal.frontends.http_routes import Operation, Target, WrongVerbError, find_target
from shoal.protocols import compression, parameters, rest
from shoal.protocols.rest_json import dump as _json
from shoal.requests import Buffer, InferRequest, InferResponse, Parameter, RequestPlan
from shoal.server import Server
from shoal.transport.handler import HttpExchange, RequestHead

JSON_HEADERS = b"Content-Type: application/json\r\n"
TEXT_HEADERS = b"Content-Type: text/plain\r\n"
DECOUPLED = "HTTP end point doesn't support models with decoupled transaction policy"
HEADER_LENGTH = "inference-header-content-length"
DEADLINE_HEADER = "shoal-deadline-us"
"""The request header that says what the parameter ``deadline_us`` does."""
KEPT_PLANS = 4096
LARGEST_KEPT_HEADER_NBYTES = 8192
_DECIMAL = re.compile(r"[0-9]{1,18}")

Plans = dict[bytes, RequestPlan]


class _NoPlans(Plans):
    """Keeps nothing: for the heads beyond those whose plans can be forgotten when models change."""

    def __setitem__(self, header: bytes, plan: RequestPlan) -> None:
        """Do nothing."""


class Route:
    """What a request head asks for, derived once and kept in the head.

    Attributes:
        target: the operation, the model and its version.
        header_nbytes: length of the body's JSON part as the head says it; None when it does not.
        encoding: the body's content encoding, None for none.
        accept: the encoding to answer with, None for none.
        forwarded: request headers that become parameters.
        plans: plans by JSON header, shared by all heads with the same target and forwarded headers.
        serve: answers an exchange with this head.
    """

    __slots__ = ("accept", "encoding", "forwarded", "header_nbytes", "plans", "serve", "target")

    def __init__(self, target: Target, head: RequestHead, serve: Callable[[HttpExchange, Route], None]) -> None:
        length = head.headers.get(HEADER_LENGTH, "")
        self.target = target
        self.header_nbytes = int(length) if _DECIMAL.fullmatch(length) else None
        self.encoding = head.headers.get("content-encoding")
        self.accept = compression.response_encoding(head.headers.get("accept-encoding"))
        self.forwarded: dict[str, Parameter] = {}
        self.plans: Plans = _NoPlans()
        self.serve = serve


class HttpFrontend:
    """Serves the v2 protocol over HTTP (a ``transport.handler.HttpHandler`` and a ``requests.Responder``).

    Args:
        server: what answers.
        max_body_nbytes: longest body, after decompression too.
        forward_pattern: headers whose names match become request parameters; "" for none.
        access_log: whether every request is logged.
    """

    def __init__(
        self, server: Server, max_body_nbytes: int, forward_pattern: str = "", *, access_log: bool = False
    ) -> None:
        self._server = server
        self._max_body_nbytes = max_body_nbytes
        self._forward = re.compile(forward_pattern, re.IGNORECASE) if forward_pattern else None
        self._access_log = access_log
        self._arrival_ns = 0
        self._plans: dict[tuple[object, ...], Plans] = {}
        self._octet_headers: dict[int, bytes] = {}
        self._compressor = ResponseCompressor()
        self._serve: dict[Operation, Callable[[HttpExchange, Route], None]] = {
            Operation.SERVER_METADATA: self._server_metadata,
            Operation.SERVER_LIVE: self._server_live,
            Operation.SERVER_READY: self._server_ready,
            Operation.MODEL_METADATA: self._model_metadata,
            Operation.MODEL_READY: self._model_ready,
            Operation.MODEL_CONFIG: self._model_config,
            Operation.MODEL_STATISTICS: self._model_statistics,
            Operation.MODEL_EXPLANATION: self._model_explanation,
            Operation.MODEL_INFER: self._infer,
        }
        server.on_models_changed(self._forget_plans)

    # --- the transport's calls --------------------------------------------------------------------------------------

    def request(self, exchange: HttpExchange) -> None:
        """Answer a request, now or when its model has run."""
        route = exchange.head.memo
        if self._access_log:
            self._arrival_ns = time.monotonic_ns()
        try:
            if type(route) is not Route:
                route = self._route(exchange.head)
                if route is None:
                    self._respond(exchange, 404, JSON_HEADERS, [_json({"error": "Not Found"})])
                    return
            route.serve(exchange, route)
        except WrongVerbError as error:
            headers = JSON_HEADERS + b"Allow: %s\r\n" % error.allowed.encode()  # a must of RFC 9110 section 15.5.6
            self._respond(exchange, 405, headers, [_json({"error": "Method Not Allowed"})])
        except ShoalError as error:
            self._respond_error(exchange, error)

    def body_buffer(self, head: RequestHead, nbytes: int) -> memoryview | None:
        """Memory that the model's workers share, so that a large tensor is received where it will be read."""
        try:
            route = self._route(head) if type(head.memo) is not Route else head.memo
        except (WrongVerbError, ShoalError):
            return None
        if route is None or route.target.operation is not Operation.MODEL_INFER or route.encoding:
            return None
        target = route.target
        return self._server.receive_buffer(target.model, target.version, nbytes, route.header_nbytes or 0)

    def disconnected(self, exchange: HttpExchange) -> None:
        """The client is gone: what it asked for is taken out of the queue, or marked when it runs."""
        request = exchange.context
        if isinstance(request, InferRequest):
            exchange.context = None
            request.plan.sink.cancel(request)

    def _route(self, head: RequestHead) -> Route | None:
        target = find_target(head.method, head.path)
        if target is None:
            return None
        route = Route(target, head, self._serve[target.operation])
        if self._forward is not None:
            route.forwarded = self._forwarded(head)
        deadline_us = head.headers.get(DEADLINE_HEADER)
        if deadline_us is not None:
            whole = _DECIMAL.fullmatch(deadline_us) is not None
            route.forwarded[parameters.DEADLINE] = int(deadline_us) if whole else deadline_us
        key = (target.model, target.version, *sorted(route.forwarded.items()))
        if key in self._plans or len(self._plans) < KEPT_PLANS:
            route.plans = self._plans.setdefault(key, {})
        head.memo = route
        return route

    def _forwarded(self, head: RequestHead) -> dict[str, Parameter]:
        """The headers that become parameters (rule 21)."""
        assert self._forward is not None
        search = self._forward.search
        found: dict[str, Parameter] = {name: value for name, value in head.headers.items() if search(name)}
        for name in found:
            parameters.check_forwarded(name)
        return found

    def _forget_plans(self) -> None:
        for plans in self._plans.values():
            plans.clear()

    # --- inference --------------------------------------------------------------------------------------------------

    def _infer(self, exchange: HttpExchange, route: Route) -> None:
        arrival_ns = time.monotonic_ns()
        body = exchange.body
        if route.encoding is not None:
            body = compression.decompress(route.encoding, body, self._max_body_nbytes)
        nbytes = route.header_nbytes
        plan = None
        if nbytes is not None and nbytes <= LARGEST_KEPT_HEADER_NBYTES:
            plan = route.plans.get(bytes(body[:nbytes]))
        if plan is None:
            plan, payload = self._decode(exchange.head, route, body)
        else:
            assert nbytes is not None
            payload = rest.split_payload(plan.head, body, nbytes)
        request = InferRequest(plan, payload, self, exchange, arrival_ns)
        exchange.context = request
        plan.sink.submit(request)

    def _decode(self, head: RequestHead, route: Route, body: Buffer) -> tuple[RequestPlan, Sequence[Buffer]]:
        """The long way: decode the JSON header, check it against the model, keep the plan for the next time."""
        self._server.check_single_answer(route.target.model, route.target.version, DECOUPLED)
        length = head.headers.get(HEADER_LENGTH)
        nbytes = rest.header_nbytes(length, len(body))
        header = bytes(body[:nbytes])
        decoded = rest.decode_head(header, route.target.model, route.target.version)
        if route.forwarded:
            decoded = replace(decoded, parameters={**decoded.parameters, **route.forwarded})
        if decoded.raw:
            return self._server.plan_raw(decoded, body)
        payload = rest.split_payload(decoded, body, nbytes)
        plan = self._server.plan(decoded)
        if length is not None and nbytes <= LARGEST_KEPT_HEADER_NBYTES and rest.is_repeatable(decoded):
            if len(route.plans) >= KEPT_PLANS:
                route.plans.clear()
            route.plans[header] = plan
        return plan, payload

    def completed(self, request: InferRequest, response: InferResponse) -> None:
        """Send the answer."""
        exchange: HttpExchange = request.context  # type: ignore[assignment] # this frontend set it
        if exchange.context is not request:  # the client went away meanwhile
            return
        exchange.context = None
        plan = request.plan
        try:
            json_nbytes, parts = rest.encode_response(plan.head, response, plan.labels, batched=plan.batched)
        except ShoalError as error:
            self._respond_error(exchange, error, request)
            return
        headers = JSON_HEADERS if json_nbytes is None else self._octet(json_nbytes)
        route: Route = exchange.head.memo  # type: ignore[assignment] # likewise
        if route.accept is None:
            self._respond(exchange, 200, headers, parts, request)
            return

        def respond(encoding: str | None, body: Sequence[Buffer]) -> None:
            coded = b"" if encoding is None else b"Content-Encoding: %s\r\n" % encoding.encode()
            self._respond(exchange, 200, headers + coded, body, request)

        self._compressor.send(route.accept, parts, respond)

    def failed(self, request: InferRequest, error: ShoalError) -> None:
        """Send the error."""
        exchange: HttpExchange = request.context  # type: ignore[assignment] # this frontend set it
        if exchange.context is not request:
            return
        exchange.context = None
        self._respond_error(exchange, error, request)

    def responded(self, request: InferRequest, answer: InferResponse | ShoalError | None, *, final: bool) -> None:
        """Give the refusal of a decoupled model: such requests are refused before they are submitted."""
        del answer
        if final:
            self.failed(request, UnsupportedError(DECOUPLED))

    def _octet(self, json_nbytes: int) -> bytes:
        """The header lines of a response with binary data, whose JSON part is so long."""
        headers = self._octet_headers.get(json_nbytes)
        if headers is None:
            headers = self._octet_headers[json_nbytes] = (
                b"Content-Type: application/octet-stream\r\nInference-Header-Content-Length: %d\r\n" % json_nbytes
            )
            if len(self._octet_headers) > KEPT_PLANS:
                self._octet_headers.clear()
        return headers

    # --- everything else --------------------------------------------------------------------------------------------

    def _server_metadata(self, exchange: HttpExchange, route: Route) -> None:
        del route
        self._server.check_live()
        self._respond_json(exchange, self._server.metadata())

    def _server_live(self, exchange: HttpExchange, route: Route) -> None:
        del route
        self._respond_health(exchange, self._server.live)

    def _server_ready(self, exchange: HttpExchange, route: Route) -> None:
        del route
        self._respond_health(exchange, self._server.ready)

    def _respond_health(self, exchange: HttpExchange, well: bool) -> None:
        """200 or 400 with an empty body; 503 while the server stops (Triton's codes, section 1.10)."""
        status = 200 if well else 503 if self._server.stopping else 400
        self._respond(exchange, status, TEXT_HEADERS, [])

    def _model_metadata(self, exchange: HttpExchange, route: Route) -> None:
        self._respond_json(exchange, self._server.model_metadata(route.target.model, route.target.version))

    def _model_ready(self, exchange: HttpExchange, route: Route) -> None:
        if self._server.model_ready(route.target.model, route.target.version):
            self._respond(exchange, 200, TEXT_HEADERS, [])
        else:
            self._respond(exchange, 400, JSON_HEADERS, [_json({"error": "Model version not ready"})])

    def _model_config(self, exchange: HttpExchange, route: Route) -> None:
        config = self._server.model_config_dict(route.target.model, route.target.version)
        self._respond_json(exchange, config)

    def _model_statistics(self, exchange: HttpExchange, route: Route) -> None:
        statistics = self._server.statistics(route.target.model, route.target.version)
        for model in statistics["model_stats"]:
            model["batching"] = self._server.batching(model["name"], int(model["version"]))
        self._respond_json(exchange, statistics)

    def _model_explanation(self, exchange: HttpExchange, route: Route) -> None:
        self._respond_json(exchange, self._server.explanation(route.target.model, route.target.version))

    # --- answers ----------------------------------------------------------------------------------------------------

    def _respond_json(self, exchange: HttpExchange, value: Mapping[str, object]) -> None:
        self._respond(exchange, 200, JSON_HEADERS, [_json(value)])

    def _respond_error(self, exchange: HttpExchange, error: ShoalError, request: InferRequest | None = None) -> None:
        headers = JSON_HEADERS
        if error.retry_after_s:
            self._respond(exchange, error.status.http, *_refusal(error.message, error.retry_after_s), request)
            return
        if isinstance(error, UnsupportedError) and exchange.head.headers.get("content-encoding"):
            headers += b"Accept-Encoding: %s\r\n" % compression.ACCEPTED.encode()
        self._respond(exchange, error.status.http, headers, [_json({"error": error.message})], request)

    def _respond(
        self,
        exchange: HttpExchange,
        status: int,
        headers: bytes,
        body: Sequence[Buffer],
        request: InferRequest | None = None,
    ) -> None:
        """Send an answer and log it; without ``request`` it is that to what arrived last."""
        exchange.respond(status, headers, body)
        if not self._access_log:
            return
        route = exchange.head.memo
        model = route.target.model if type(route) is Route else ""
        arrival_ns, request_id = self._arrival_ns, ""
        if request is not None:
            arrival_ns, request_id = request.arrival_ns, request.plan.head.request_id
        nbytes = sum(memoryview(part).nbytes for part in body)
        log_http(exchange, status, nbytes, arrival_ns, model=model, request_id=request_id)


@lru_cache(maxsize=256)
def _refusal(message: str, retry_after_s: int) -> tuple[bytes, list[bytes]]:
    """The headers and the body for those who are to come back later: many get the same, and it must cost little."""
    return JSON_HEADERS + b"Retry-After: %d\r\n" % retry_after_s, [_json({"error": message})]
