"""The messages between the server, the fork server and the workers.

All are msgpack arrays behind a 4-byte little-endian length. There are three conversations, two of them over Unix
sockets because descriptors travel along, and the one that every batch needs over pipes because those are faster:

* server and fork server: ``Spawn`` -> ``Spawned``; ``Exited`` whenever a child is gone.
* server and worker, on the worker's control socket, while it loads: ``LoadModel`` -> ``Completed`` ->
  ``StartInstances`` -> ``Ready``, with ``LoadFailed`` in place of either answer.
* server and instance, on a channel of its own (two pipes): ``RunBatch`` -> ``BatchDone``, one message each way per
  batch, whatever the number of requests. When the outputs outgrow the room that the server guessed: ``RoomNeeded``
  -> ``RoomGranted``. Of a decoupled model besides: ``NumberRequests`` before its ``RunBatch``, and ``Streamed`` for
  every response, whenever it comes and from whatever thread.

Tensors never travel here, those of ``Streamed`` aside: a message holds their places in the arena.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import suppress
from typing import Generic, TypeVar

import msgspec

PREFIX_NBYTES = 4
RECEIVE_NBYTES = 256 * 1024

MAX_INSTANCES = 126
"""Instances of one worker: the kernel passes at most 253 descriptors with a message (SCM_MAX_FD), two for each."""

Place = tuple[int, int, int, tuple[int, ...]]
"""A tensor in the arena: which input or output, offset, nbytes, shape."""


class Spawn(msgspec.Struct, array_like=True, tag=1):
    """Fork a worker that has imported ``modules``; its control socket, log pipe and arena come along as descriptors."""

    worker: int
    modules: list[str]


class Spawned(msgspec.Struct, array_like=True, tag=2):
    """The worker runs under this process id."""

    worker: int
    pid: int


class Exited(msgspec.Struct, array_like=True, tag=3):
    """A worker is gone; ``status`` is its exit code, or minus the signal that killed it."""

    worker: int
    status: int


class LoadModel(msgspec.Struct, array_like=True, tag=4):
    """Load this model version.

    Attributes:
        backend: the backend's name, "" to be found from the completed configuration.
        config: the serialized ``ModelConfig``.
        complete: whether the model is to complete the configuration.
        repository: the repository's folder.
        model_dir: the model's folder.
        version: the version to load.
        gpu_count: GPUs that the server sees.
        arena_nbytes: length of the arena to map.
        options: the ``--backend-config`` settings for this backend.
    """

    backend: str
    config: bytes
    complete: bool
    repository: str
    model_dir: str
    version: int
    gpu_count: int
    arena_nbytes: int
    options: dict[str, str]


class Completed(msgspec.Struct, array_like=True, tag=5):
    """The configuration, completed by the model."""

    config: bytes


class StartInstances(msgspec.Struct, array_like=True, tag=6):
    """Load the model and start these instances, by their place in the spec; a channel comes along for each.

    Attributes:
        config: the serialized ``ModelConfig``.
        numbers: the instances.
        marks: where in the arena each one's marks are (``execution.marks``).
    """

    config: bytes
    numbers: list[int]
    marks: list[int]


class Ready(msgspec.Struct, array_like=True, tag=7):
    """Every instance waits for batches."""


class LoadFailed(msgspec.Struct, array_like=True, tag=8):
    """The model cannot be loaded: a status name and a message."""

    status: str
    message: str


class Info(msgspec.Struct, array_like=True, omit_defaults=True):
    """What a model may ask about one request; see ``backends.contract.RequestInfo``.

    ``ready`` is False for a row that only fills the batch: nobody wants its outputs.
    """

    request_id: str = ""
    parameters: dict[str, bool | int | float | str] = {}
    outputs: tuple[str, ...] = ()
    priority: int = 0
    timeout_us: int = 0
    correlation_id: int | str = 0
    flags: int = 0
    ready: bool = True


class RunBatch(msgspec.Struct, array_like=True, tag=9):
    """Run a batch.

    Attributes:
        rows: rows of each request.
        inputs: the gathered inputs; empty when there are ``pieces``.
        room_offset: where outputs may be written.
        room_nbytes: how many bytes they may take.
        infos: one per request, or None when none has anything to tell.
        pieces: the inputs of each request by itself, when they are not gathered.
    """

    rows: list[int]
    inputs: list[Place]
    room_offset: int
    room_nbytes: int
    infos: list[Info] | None
    pieces: list[list[Place]] | None = None


class Outcome(msgspec.Struct, array_like=True, omit_defaults=True):
    """One request's own outcome: its outputs, or a status name and a message.

    With ``rescheduled`` it is no answer: the model wants to see the request again, and the outputs are states.
    """

    outputs: list[Place]
    status: str = ""
    message: str = ""
    parameters: dict[str, bool | int | float | str] | None = None
    rescheduled: bool = False


class BatchDone(msgspec.Struct, array_like=True, tag=10):
    """A batch is done.

    Attributes:
        input_ns: when its inputs were in place (monotonic).
        infer_ns: when the model was done.
        output_ns: when its outputs were in place.
        gathered: the outputs of all rows, one after the other.
        splits: for each gathered BYTES output, by its index, the bytes of each request.
        outcomes: one per request when the model answered request by request; None otherwise.
        status: not empty when the whole batch failed.
        message: why it failed.
        kept: offsets of inputs that the model still holds: their memory must not be used again.
        released: offsets of inputs of earlier batches that it holds no longer.
        later: of a model that is not decoupled, by the place of a request whose response comes as ``Streamed``, the
            number that it will have; its outcome is empty.
    """

    input_ns: int
    infer_ns: int
    output_ns: int
    gathered: list[Place]
    splits: dict[int, list[int]] | None = None
    outcomes: list[Outcome] | None = None
    status: str = ""
    message: str = ""
    kept: list[int] | None = None
    released: list[int] | None = None
    later: dict[int, int] | None = None


class RoomNeeded(msgspec.Struct, array_like=True, tag=11):
    """The outputs need more room."""

    nbytes: int


class RoomGranted(msgspec.Struct, array_like=True, tag=12):
    """More room for the outputs of the batch that runs; nbytes 0 when there is none to give."""

    offset: int
    nbytes: int


class NumberRequests(msgspec.Struct, array_like=True, tag=13):
    """The numbers of the requests of the batch that comes next, for a decoupled model."""

    numbers: list[int]


class Streamed(msgspec.Struct, array_like=True, tag=14):
    """One response of a request that is answered response by response.

    Attributes:
        number: the request.
        outcome: the response, the places of its outputs counted from the start of ``data``; None for none.
        data: the bytes of its outputs.
        final: whether it is the request's last message.
        times: in monotonic nanoseconds: when the request's batch lay before the model, when the model gave this
            response, and when it was ready to be sent.
    """

    number: int
    outcome: Outcome | None
    data: memoryview
    final: bool
    times: tuple[int, int, int]


class Released(msgspec.Struct, array_like=True, tag=15):
    """Offsets of inputs of earlier batches that the model holds no longer; sent while no batch runs to tell it with."""

    offsets: list[int]


FromForkServer = Spawned | Exited
FromControl = Completed | Ready | LoadFailed
FromInstance = BatchDone | RoomNeeded | Streamed | Released
ToInstance = RunBatch | RoomGranted | NumberRequests
ToControl = LoadModel | StartInstances

Message = TypeVar("Message")
_encode = msgspec.msgpack.Encoder().encode


def frame(message: msgspec.Struct) -> bytes:
    """A message as it goes over the wire."""
    data = _encode(message)
    return len(data).to_bytes(PREFIX_NBYTES, "little") + data


def encodable(text: str) -> str:
    """Text that msgpack can carry: what a client sent as broken UTF-8 holds lone surrogates, which become ``?``."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


class FrameReader:
    """Cuts received bytes into messages' bytes."""

    __slots__ = ("_held", "_missing", "_parts")

    def __init__(self) -> None:
        self._held = b""
        self._parts: list[bytes] = []
        self._missing = 0

    def split(self, received: bytes) -> list[bytes]:
        """The whole messages in what was received so far; a part of one is held back."""
        if not self._held and len(received) == int.from_bytes(received[:PREFIX_NBYTES], "little") + PREFIX_NBYTES:
            return [received[PREFIX_NBYTES:]]
        if self._missing > len(received):  # of a long message: nothing is joined before it is whole
            self._parts.append(received)
            self._missing -= len(received)
            return []
        data = b"".join((self._held, *self._parts, received))
        self._parts.clear()
        messages, start, end = [], 0, 0
        while len(data) - start >= PREFIX_NBYTES:
            end = start + PREFIX_NBYTES + int.from_bytes(data[start : start + PREFIX_NBYTES], "little")
            if end > len(data):
                break
            messages.append(data[start + PREFIX_NBYTES : end])
            start = end
        self._held = data[start:]
        self._missing = max(0, end - len(data))
        return messages


class BlockingChannel(Generic[Message]):
    """A worker's end of a channel: blocking. One thread receives, any thread sends."""

    __slots__ = ("_afterthoughts", "_decode", "_lock", "_reader", "_reads", "_waiting", "_writes")

    def __init__(self, reads: int, writes: int, decoder: msgspec.msgpack.Decoder[Message]) -> None:
        self._reads = reads
        self._writes = writes
        self._decode = decoder.decode
        self._reader = FrameReader()
        self._waiting: list[bytes] = []
        self._lock = threading.Lock()
        self._afterthoughts: deque[bytes] = deque()

    def receive(self) -> Message | None:
        """The next message; None when the other end is closed."""
        while not self._waiting:
            data = os.read(self._reads, RECEIVE_NBYTES)
            if not data:
                return None
            self._waiting = self._reader.split(data)
        return self._decode(self._waiting.pop(0))

    def send(self, message: msgspec.Struct) -> None:
        """Send a message.

        Raises:
            BrokenPipeError: the other end is closed.
        """
        data = frame(message)
        with self._lock:
            self._write(data)
        if self._afterthoughts:
            self._send_afterthoughts()

    def send_afterthought(self, message: msgspec.Struct) -> None:
        """Send a message from wherever an object is collected, which may be in the middle of another ``send``."""
        self._afterthoughts.append(frame(message))
        self._send_afterthoughts()

    def _send_afterthoughts(self) -> None:
        """Send what waits, unless a message is just being sent: whoever sends that one looks here afterwards."""
        while self._afterthoughts and self._lock.acquire(blocking=False):
            try:
                with suppress(OSError):  # the server is gone, and nobody is left to be told
                    while self._afterthoughts:
                        self._write(self._afterthoughts.popleft())
            finally:
                self._lock.release()

    def _write(self, data: bytes) -> None:
        written = os.write(self._writes, data)
        if written < len(data):
            rest = memoryview(data)[written:]
            while rest:
                rest = rest[os.write(self._writes, rest) :]
