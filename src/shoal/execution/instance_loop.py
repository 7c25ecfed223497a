"""The life of one instance in its worker: receive a batch, place its inputs, run it, place its outputs, answer.

One iteration touches each tensor's description once; the bytes stay where they are in shared memory.
"""

from __future__ import annotations

import os
import time
import traceback
from contextlib import suppress
from typing import Any

import msgspec
import numpy as np

from shoal.backends.contract import Array, BatchResult, Instance, ModelBatch, RequestInfo, RequestResult
from shoal.config.spec import ModelSpec
from shoal.datatypes import DataType
from shoal.errors import InternalError, ShoalError, Status
from shoal.execution.arena import Mapping
from shoal.execution.bytes_arrays import decode_bytes, encode_bytes
from shoal.execution.instance_streams import Control, InstanceStreams
from shoal.execution.kept_inputs import KeptInputs
from shoal.execution.marks import MarkReader
from shoal.execution.messages import (
    BatchDone,
    BlockingChannel,
    Info,
    NumberRequests,
    Outcome,
    Place,
    Released,
    RoomGranted,
    RoomNeeded,
    RunBatch,
    ToInstance,
    encodable,
)
from shoal.execution.room import InlineRoom, Room
from shoal.execution.single_buffers import add_single_buffers, single_buffers
from shoal.requests import Parameter

NOT_ITERATIVE = (
    "Request is released with TRITONSERVER_REQUEST_RELEASE_RESCHEDULE, while the model is not configured to handle "
    "such a flag; set sequence_batching {{ iterative_sequence: true }} in the configuration of model '{model}'"
)

NUMPY_TYPES = {datatype: np.dtype(datatype.numpy or "u2") for datatype in DataType}
"""NumPy's type for each datatype; BF16 travels as its raw 16 bits."""


class InstanceLoop:
    """Serves one instance's channel until the server closes it.

    Args:
        instance: runs the batches.
        channel: the descriptors to read from and to write to.
        spec: the model.
        mapping: the shared memory.
        marks: where in it the instance's marks are.
    """

    def __init__(
        self, instance: Instance, channel: tuple[int, int], spec: ModelSpec, mapping: Mapping, marks: int = 0
    ) -> None:
        self._instance = instance
        self._channel = BlockingChannel(*channel, msgspec.msgpack.Decoder(ToInstance))
        self._mapping = mapping
        self._room = Room(mapping, self._grow)
        self._kept = KeptInputs(self._report_released)
        self._streams = InstanceStreams(self._channel, MarkReader(mapping.view, marks), self._store_inline)
        self._control: Control | None = None
        self._batched = spec.max_batch_size > 0
        self._inputs = [(tensor.name, tensor.datatype, NUMPY_TYPES[tensor.datatype]) for tensor in spec.all_inputs]
        self._outputs = {
            tensor.name: (index, NUMPY_TYPES[tensor.datatype]) for index, tensor in enumerate(spec.all_outputs)
        }
        self._default_info = RequestInfo(outputs=tuple(tensor.name for tensor in spec.outputs))
        self._single_buffers = single_buffers(spec)
        self._name = spec.name
        self._iterative = spec.sequence is not None and spec.sequence.iterative
        self._input_ns = 0

    def run(self) -> None:
        """Run batches until the channel closes, then close the instance."""
        try:
            with suppress(BrokenPipeError):  # the server closed the channel while the last batch ran
                while (message := self._channel.receive()) is not None:
                    if type(message) is NumberRequests:
                        self._streams.numbers = message.numbers
                        continue
                    assert isinstance(message, RunBatch)
                    done = self._serve(message)
                    self._kept.report(done)
                    self._channel.send(done)
                    self._end_batch()
            self._end_batch()
            self._instance.close()
        except BaseException:  # nobody else sees a thread's end: the process ends loudly, and the server replaces it
            traceback.print_exc()
            os._exit(1)

    def _end_batch(self) -> None:
        """The server knows of the batch's end: from now on what happens is told by itself."""
        control, self._control = self._control, None
        if control is not None:
            control.batch_over()
        self._kept.batch_over()

    def _report_released(self, offsets: list[int]) -> None:
        self._channel.send_afterthought(Released(offsets))

    def _serve(self, message: RunBatch) -> BatchDone:
        self._input_ns = 0
        try:
            return self._execute(message)
        except ShoalError as error:
            status, text = error.status, error.message
        except (Exception, SystemExit) as error:  # a model may raise anything: its requests are told
            traceback.print_exc()
            status, text = Status.INTERNAL, f"{type(error).__name__}: {error}"
        now_ns = time.monotonic_ns()
        return BatchDone(self._input_ns or now_ns, now_ns, now_ns, [], status=status.name, message=encodable(text))

    def _execute(self, message: RunBatch) -> BatchDone:
        room = self._room
        room.reset(message.room_offset, message.room_nbytes)
        batch = ModelBatch(self._place_inputs(message.inputs), message.rows, self._infos(message), self._batched)
        if message.pieces is not None:
            batch.pieces = [self._place_inputs(places) for places in message.pieces]
        input_ns = self._input_ns = time.monotonic_ns()
        batch.control = self._control = self._streams.control(input_ns)
        result = self._instance.execute(batch, room)
        infer_ns = time.monotonic_ns()
        if self._single_buffers:
            add_single_buffers(result, batch, self._single_buffers)
        done = BatchDone(input_ns, infer_ns, 0, [])
        self._store(result, message.rows, done)
        done.output_ns = time.monotonic_ns()
        return done

    def _place_inputs(self, places: list[Place]) -> dict[str, Array]:
        memory, view = self._mapping.memory, self._mapping.view
        arrays: dict[str, Array] = {}
        for index, offset, nbytes, shape in places:
            name, datatype, dtype = self._inputs[index]
            if datatype is DataType.BYTES:
                arrays[name] = decode_bytes(view[offset : offset + nbytes], shape)
            else:
                array = arrays[name] = np.ndarray(shape, dtype, memory, offset)
                self._kept.place(offset, array)
        return arrays

    def _infos(self, message: RunBatch) -> list[RequestInfo]:
        if message.infos is None:
            return [self._default_info] * len(message.rows)
        return [self._info(info) for info in message.infos]

    def _info(self, info: Info) -> RequestInfo:
        outputs = info.outputs or (self._default_info.outputs if info.ready else ())
        return RequestInfo(
            info.request_id,
            info.parameters,
            outputs,
            info.priority,
            info.timeout_us,
            info.correlation_id,
            info.flags,
        )

    def _store(self, result: BatchResult, rows: list[int], done: BatchDone) -> None:
        if result.gathered is not None:
            for name, array in result.gathered.items():
                done.gathered.append(self._store_gathered(name, array, rows, done))
        else:
            assert result.per_request is not None
            done.outcomes = [self._store_outcome(one, self._room) for one in result.per_request]
            done.later = self._streams.later(result.per_request)

    def _store_gathered(self, name: str, array: Array, rows: list[int], done: BatchDone) -> Place:
        index, dtype = self._output(name, array)
        if not dtype.hasobject:
            return index, self._room.store(array), array.nbytes, array.shape
        pieces = self._encode_rows(array, rows) if self._batched else [encode_bytes(array)]
        done.splits = done.splits or {}
        done.splits[index] = [len(piece) for piece in pieces]
        data = b"".join(pieces)
        return index, self._room.store_bytes(data), len(data), array.shape

    @staticmethod
    def _encode_rows(array: Array, rows: list[int]) -> list[bytes]:
        ends = np.cumsum(rows).tolist()
        return [encode_bytes(array[end - count : end]) for end, count in zip(ends, rows, strict=True)]

    def _store_inline(self, result: RequestResult) -> tuple[Outcome, bytes | memoryview]:
        """A response that goes out by itself, on whatever thread: its outcome, and the bytes of its outputs."""
        room = InlineRoom()
        return self._store_outcome(result, room), room.data()

    def _store_outcome(self, result: RequestResult, room: Room | InlineRoom) -> Outcome:
        parameters = None
        if result.parameters:
            parameters = {encodable(str(name)): _plain(value) for name, value in result.parameters.items()}
        if result.rescheduled and not self._iterative:
            return Outcome([], Status.INTERNAL.name, NOT_ITERATIVE.format(model=self._name))
        if result.error is not None:
            return Outcome([], result.error.status.name, encodable(result.error.message), parameters)
        places = [self._store_one(name, array, room) for name, array in result.outputs.items()]
        return Outcome(places, parameters=parameters, rescheduled=result.rescheduled)

    def _store_one(self, name: str, array: Array, room: Room | InlineRoom) -> Place:
        index, dtype = self._output(name, array)
        if not dtype.hasobject:
            return index, room.store(array), array.nbytes, array.shape
        data = encode_bytes(array)
        return index, room.store_bytes(data), len(data), array.shape

    def _output(self, name: str, array: Array) -> tuple[int, np.dtype[Any]]:
        """Which output this is; the server trusts what a worker says of its outputs, so it is checked here."""
        found = self._outputs[name]
        dtype = found[1]
        if array.dtype != dtype and not dtype.hasobject:
            raise InternalError(f"output '{name}' has elements of type {array.dtype}, the configuration says {dtype}")
        return found

    def _grow(self, nbytes: int) -> tuple[int, int]:
        self._channel.send(RoomNeeded(nbytes))
        granted = self._channel.receive()
        assert isinstance(granted, RoomGranted)
        if granted.nbytes < nbytes:
            raise InternalError(f"no shared memory left for {nbytes} bytes of outputs")
        return granted.offset, granted.nbytes


def _plain(value: Parameter) -> Parameter:
    """A response parameter as a message can carry it.

    Raises:
        InternalError: it is a number that no protocol has room for.
    """
    if isinstance(value, str):
        return encodable(str(value))
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, float):
        return float(value)
    if not -(2**63) <= value < 2**63:
        raise InternalError(f"the response parameter {value} does not fit 64 bits")
    return int(value)
