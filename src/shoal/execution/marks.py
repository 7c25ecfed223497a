"""Marks: what the server has to say of the requests that an instance works on, one byte of shared memory for each.

The server writes, and the worker reads when a model asks or is about to send, so a mark costs no message and a request
without one nothing at all. In a batch a request's byte is that of its place. A request that is answered response by
response outlives its batch: it has a number of its own, and the byte of that.
"""

from __future__ import annotations

from shoal.execution.arena import Arena, Block

CANCELLED = 1
"""The client is gone, or its deadline has passed."""
HELD = 2
"""The client does not keep up: the next response is to wait."""

MOST_STREAMS = 8192
"""Requests of one instance that may be answered response by response at the same time."""
MOST_PLACES = 8192
"""Requests of one batch that can be marked; in a longer one, those further behind cannot."""


def byte_of_number(number: int) -> int:
    """The byte of a request with this number; numbers that are ``MOST_STREAMS`` apart share one."""
    return number % MOST_STREAMS


def byte_of_place(place: int) -> int:
    """The byte of the request at this place of the batch that runs."""
    return MOST_STREAMS + place


class Marks:
    """The server's side, for one instance.

    Attributes:
        offset: where in the arena they are.
        marked: the bytes that are not 0.
    """

    __slots__ = ("_arena", "_block", "_view", "marked", "offset")

    def __init__(self, arena: Arena) -> None:
        nbytes = MOST_STREAMS + MOST_PLACES
        self._arena = arena
        self._block: Block | None = arena.allocate(nbytes)
        self.offset = self._block.offset
        self._view = arena.mapping.view[self.offset : self.offset + nbytes]
        self._view[:] = bytes(nbytes)
        self.marked: set[int] = set()

    def set(self, byte: int, mark: int) -> None:
        """Mark a request."""
        if self._block is not None and byte < len(self._view):
            self._view[byte] |= mark
            self.marked.add(byte)

    def unset(self, byte: int, mark: int) -> None:
        """Take one mark off a request."""
        if self._block is not None:
            self._view[byte] &= ~mark

    def clear(self, byte: int) -> None:
        """A request has ended; its byte may become that of another."""
        if byte in self.marked:
            self.marked.discard(byte)
            self.unset(byte, CANCELLED | HELD)

    def clear_places(self, requests: int) -> None:
        """A batch of so many requests has ended."""
        if self.marked:
            for place in range(requests):
                self.clear(byte_of_place(place))

    def release(self) -> None:
        """Give the memory back; only after the worker is gone."""
        if self._block is not None:
            self._view.release()
            self._arena.free(self._block)
            self._block = None


class MarkReader:
    """The worker's side.

    Args:
        view: the arena.
        offset: where in it the instance's marks are.
    """

    __slots__ = ("_offset", "_view")

    def __init__(self, view: memoryview, offset: int) -> None:
        self._view = view
        self._offset = offset

    def place(self, place: int) -> int:
        """The marks of the request at this place of the batch that runs."""
        return self._view[self._offset + byte_of_place(place)] if place < MOST_PLACES else 0

    def number(self, number: int) -> int:
        """The marks of the request with this number."""
        return self._view[self._offset + byte_of_number(number)]
