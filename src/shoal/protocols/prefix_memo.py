"""A memory of ``ModelInferRequest`` prefixes: what was decoded once is found again by its bytes.

A client repeats all of a message but its raw contents byte for byte. A message is found by its length, by the bytes up
to the first raw content, and by the tag and length before each further one. If all of these are equal, the walk of
``grpc_infer_decode.split`` would end at the same places and yield the same prefix, so the answer is the same too.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from shoal.protocols.grpc_infer_decode import Split
from shoal.requests import Buffer

Value = TypeVar("Value")

LARGE_NBYTES = 64 * 1024
"""From this length on a message's raw contents are views of it."""

_MAX_ENTRIES = 1024
_MAX_PREFIX_NBYTES = 16 * 1024
_MAX_LAYOUTS = 8


class _Layout(Generic[Value]):
    """Where the raw contents of messages of one length lie, and the values of those that lie so.

    Attributes:
        head_nbytes: where the first raw content begins.
        markers: begin, end and bytes of what stands between the raw contents: tag and length of the next.
        spans: begin and end of the raw contents that are inputs.
        values: by the bytes before the first raw content.
    """

    __slots__ = ("head_nbytes", "markers", "spans", "values")

    def __init__(
        self, head_nbytes: int, markers: list[tuple[int, int, bytes]], spans: tuple[tuple[int, int], ...]
    ) -> None:
        self.head_nbytes = head_nbytes
        self.markers = markers
        self.spans = spans
        self.values: dict[bytes, Value] = {}


class PrefixMemo(Generic[Value]):
    """Values, which are never None, by the repeated part of a message; bounded. Its length is how many it holds."""

    __slots__ = ("_entries", "_layouts")

    def __init__(self) -> None:
        self._layouts: dict[int, list[_Layout[Value]]] = {}
        self._entries = 0

    def __len__(self) -> int:
        return self._entries

    def find(self, message: Buffer) -> tuple[Value, list[Buffer]] | None:
        """The value of a message like one put in before, and its inputs' raw contents; None when there is none."""
        layouts = self._layouts.get(len(message))
        if layouts is None:
            return None
        is_bytes = message.__class__ is bytes
        for layout in layouts:
            start = message[: layout.head_nbytes]
            value = layout.values.get(start if is_bytes else bytes(start))  # type: ignore[arg-type]
            if value is None:
                continue
            for begin, end, marker in layout.markers:
                if message[begin:end] != marker:
                    break
            else:
                if is_bytes and len(message) >= LARGE_NBYTES:
                    message = memoryview(message)
                return value, [message[begin:end] for begin, end in layout.spans]
        return None

    def put(self, message: Buffer, parts: Split, inputs: int, value: Value) -> None:
        """Remember a message's value, if the message is one that can be found again.

        Args:
            message: the message.
            parts: the message taken apart.
            inputs: how many of its raw contents are inputs; Triton ignores surplus ones.
            value: what to find.
        """
        if not parts.raws or not parts.raws_last or parts.raws[0][0] > _MAX_PREFIX_NBYTES:
            return
        if self._entries >= _MAX_ENTRIES:
            # Starting again costs each client one slow decode; picking a victim would cost every request.
            self.clear()
        layout = self._layout(message, parts, inputs)
        if layout is not None:
            known = len(layout.values)
            layout.values[bytes(message[: layout.head_nbytes])] = value
            self._entries += len(layout.values) - known

    def clear(self) -> None:
        """Forget everything, because what the values say no longer holds (a model was loaded or unloaded)."""
        self._layouts.clear()
        self._entries = 0

    def _layout(self, message: Buffer, parts: Split, inputs: int) -> _Layout[Value] | None:
        markers = [
            (end, begin, bytes(message[end:begin]))
            for (_, end), (begin, _) in zip(parts.raws, parts.raws[1:], strict=False)
        ]
        new: _Layout[Value] = _Layout(parts.raws[0][0], markers, parts.raws[:inputs])
        layouts = self._layouts.setdefault(len(message), [])
        for layout in layouts:
            if layout.head_nbytes == new.head_nbytes and layout.markers == markers and layout.spans == new.spans:
                return layout
        if len(layouts) >= _MAX_LAYOUTS:
            return None
        layouts.append(new)
        return new
