"""HTTP/2 SETTINGS: what we announce, and what a client's frame says (RFC 9113 section 6.5)."""

from __future__ import annotations

from struct import Struct

from shoal.transport.connection import Limits
from shoal.transport.http2_frames import (
    DEFAULT_FRAME_NBYTES,
    DEFAULT_WINDOW,
    MAX_WINDOW,
    SETTINGS,
    ErrorCode,
    Http2ConnectionError,
    frame,
    window_update,
)

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS = 1, 2, 3
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 4, 5, 6
ENABLE_CONNECT_PROTOCOL, NO_RFC7540_PRIORITIES = 8, 9

CONNECTION_WINDOW = 64 * 1024 * 1024
STREAM_WINDOW = 16 * 1024 * 1024
FRAME_NBYTES = 2 * 1024 * 1024
"""The longest frame we take; it holds a 1 MB tensor. DATA is used up as it arrives, so a long frame costs no memory."""

_SETTING = Struct(">HI")


def announcement(limits: Limits) -> bytes:
    """The server's first bytes: its SETTINGS, and the WINDOW_UPDATE that opens the connection's window."""
    values = (
        (MAX_CONCURRENT_STREAMS, limits.streams),
        (INITIAL_WINDOW_SIZE, STREAM_WINDOW),
        (MAX_FRAME_SIZE, FRAME_NBYTES),
        (MAX_HEADER_LIST_SIZE, limits.head_nbytes),
        (NO_RFC7540_PRIORITIES, 1),
    )
    payload = b"".join(_SETTING.pack(*value) for value in values)
    return frame(SETTINGS, 0, 0, payload) + window_update(0, CONNECTION_WINDOW - DEFAULT_WINDOW)


def parse(payload: bytes) -> list[tuple[int, int]]:
    """The settings of a client's frame in their order, checked.

    Raises:
        Http2ConnectionError: a value is not allowed, or the payload is not made of whole settings.
    """
    if len(payload) % 6:
        raise Http2ConnectionError(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS payload is not a multiple of 6 bytes")
    settings = list(_SETTING.iter_unpack(payload))
    for identifier, value in settings:
        _check(identifier, value)
    return settings


def _check(identifier: int, value: int) -> None:
    """Raise for a value that RFC 9113 section 6.5.2 forbids."""
    if identifier in {ENABLE_PUSH, ENABLE_CONNECT_PROTOCOL, NO_RFC7540_PRIORITIES} and value > 1:
        raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, f"setting {identifier} must be 0 or 1, not {value}")
    if identifier == INITIAL_WINDOW_SIZE and value > MAX_WINDOW:
        raise Http2ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE {value} is over 2^31-1")
    if identifier == MAX_FRAME_SIZE and not DEFAULT_FRAME_NBYTES <= value < 2**24:
        raise Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, f"MAX_FRAME_SIZE {value} is outside 2^14..2^24-1")
