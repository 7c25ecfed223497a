"""The parts of error messages that Triton words alike in many places."""

from __future__ import annotations

from shoal.requests import InferHead, Shape


def request_prefix(head: InferHead) -> str:
    """The beginning of every message about one request (Triton ``infer_request.h:322-330``)."""
    return f"[request id: {head.request_id or '<id_unknown>'}] "


def shape_text(shape: Shape) -> str:
    """A shape as Triton writes it, such as ``[-1,16]``."""
    return f"[{','.join(map(str, shape))}]"
