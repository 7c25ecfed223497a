"""Walks the elements of BYTES tensors: each is a 4-byte length and that many bytes (rule 30).

This runs for every request that has such an input, so it is one tight loop; the messages, which need more bookkeeping,
are found by a second walk of what the first one refused.
"""

from __future__ import annotations

from struct import Struct, error

from shoal.errors import InvalidArgumentError
from shoal.requests import Buffer, InferHead
from shoal.scheduling.texts import request_prefix

_read_length = Struct("<I").unpack_from
LENGTH_NBYTES = 4
"""Length of the length in front of each element."""


def elements_fit(data: Buffer, count: int) -> bool:
    """Whether ``data`` is exactly ``count`` elements."""
    offset = 0
    try:
        for _ in range(count):
            offset += _read_length(data, offset)[0] + LENGTH_NBYTES
    except error:
        return False
    return offset == len(data)


def elements_error(head: InferHead, name: str, data: Buffer, count: int) -> InvalidArgumentError:
    """What is wrong with a tensor that is not exactly ``count`` elements, in Triton's words.

    Args:
        head: the request's head.
        name: the input's name.
        data: the tensor's wire bytes, which ``elements_fit`` refused.
        count: how many elements its shape has.
    """
    return InvalidArgumentError(_problem(head, name, data, count))


def _problem(head: InferHead, name: str, data: Buffer, count: int) -> str:
    """The message (``infer_request.cc:1324-1440``); Triton leaves the prefix and the model out of one of them."""
    prefix = request_prefix(head)
    of_input = f"for inference input '{name}'"
    of_model = f"{of_input} for model '{head.model_name}'"
    rest, found, cut_off = len(data), 0, ""
    while rest:
        if rest < LENGTH_NBYTES:
            return (
                f"{prefix}incomplete string length indicator {of_model}, expecting {LENGTH_NBYTES} bytes but only "
                f"{rest} bytes available. Please make sure the string length indicator is in one buffer."
            )
        (length,) = _read_length(data, len(data) - rest)
        rest -= LENGTH_NBYTES
        found += 1
        if found > count:
            return f"{prefix}unexpected number of string elements {found} {of_model}, expecting {count}"
        if length > rest:
            cut_off = f"expecting string of length {length} but only {rest} bytes available"
        rest -= min(length, rest)
    if found != count:
        return f"{prefix}expected {count} string elements {of_model}, got {found}"
    return f"incomplete string data {of_input}, {cut_off}"
