"""Which operation an HTTP request asks for: Triton's paths and verbs (``http_server.cc:1184-1192``), and our own.

``explain`` is ours: why a model's batches are what they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from shoal.protocols.parameters import parse_version
from shoal.requests import LATEST


class Operation(Enum):
    """What a path asks for."""

    SERVER_METADATA = "server metadata"
    SERVER_LIVE = "server live"
    SERVER_READY = "server ready"
    MODEL_METADATA = "model metadata"
    MODEL_READY = "model ready"
    MODEL_CONFIG = "model config"
    MODEL_STATISTICS = "model statistics"
    MODEL_EXPLANATION = "model explanation"
    MODEL_INFER = "model infer"

    @property
    def verb(self) -> str:
        """The HTTP method that it takes."""
        return "POST" if self is Operation.MODEL_INFER else "GET"


@dataclass(frozen=True, slots=True)
class Target:
    """An operation and what it is about; ``model`` is "" for all models."""

    operation: Operation
    model: str = ""
    version: int = LATEST


class WrongVerbError(Exception):
    """The path exists, but not for this verb.

    Attributes:
        allowed: the verb that it takes.
    """

    def __init__(self, allowed: str) -> None:
        super().__init__(allowed)
        self.allowed = allowed


_MODEL = re.compile(r"/v2/models/([^/]+)(?:/versions/([0-9]+))?(?:/(infer|config|ready|stats|explain))?")
_MODEL_OPERATIONS = {
    None: Operation.MODEL_METADATA,
    "infer": Operation.MODEL_INFER,
    "config": Operation.MODEL_CONFIG,
    "ready": Operation.MODEL_READY,
    "stats": Operation.MODEL_STATISTICS,
    "explain": Operation.MODEL_EXPLANATION,
}
_SERVER_OPERATIONS = {
    "/v2": Operation.SERVER_METADATA,
    "/v2/health/live": Operation.SERVER_LIVE,
    "/v2/health/ready": Operation.SERVER_READY,
    "/v2/models/stats": Operation.MODEL_STATISTICS,
}


def find_target(method: str, path: str) -> Target | None:
    """The target of a request; None when there is no such path.

    Raises:
        WrongVerbError: the path takes another verb.
        InvalidArgumentError: the version in the path is no number that a version can have.
    """
    operation = _SERVER_OPERATIONS.get(path)
    target = _model_target(path) if operation is None else Target(operation)
    if target is not None and method != target.operation.verb:
        raise WrongVerbError(target.operation.verb)
    return target


def _model_target(path: str) -> Target | None:
    match = _MODEL.fullmatch(path)
    if match is None:
        return None
    model, version, operation = match.groups()
    return Target(_MODEL_OPERATIONS[operation], model, parse_version(version or ""))
