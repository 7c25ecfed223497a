"""From a batch of requests to the message for its instance: rows gathered into shared memory, outputs given room."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

from shoal.config.spec import ModelSpec
from shoal.datatypes import element_count
from shoal.execution.arena import ALIGNMENT, Block, Mapping, align
from shoal.execution.batch_inputs import BatchInputs
from shoal.execution.blocks import LARGE_NBYTES, InstanceBlocks
from shoal.execution.messages import BatchDone, Info, Place, RunBatch, encodable, frame
from shoal.execution.sequence_inputs import asked_sequence, sequence_info
from shoal.execution.unequal_inputs import UnequalInputs
from shoal.protocols.parameters import SCHEDULING
from shoal.requests import Buffer, InferRequest, RequestPlan, Shape
from shoal.scheduling.contract import Batch, MadeInput

LEAST_ROOM_NBYTES = 4096
LARGEST_GUESS_NBYTES = 1 << 26
FADING_BITS = 6
"""Each batch takes one part in 64 off what was learned, unless it needs as much itself."""
KEPT_FRAMES = 64


MakeInputs = Callable[[Batch], list[MadeInput]]
"""Makes inputs for a batch that no client sent."""

Tensor = tuple[int, Shape, Sequence[Buffer]]
"""What is to be written: which input, its shape, its bytes piece by piece."""


class OutputSizes:
    """How much room the outputs of a batch will need: known where dims are fixed, learned where they are not."""

    def __init__(self, spec: ModelSpec) -> None:
        self._row_nbytes = 0
        self._learned_row_nbytes = 0
        self._padding_nbytes = LEAST_ROOM_NBYTES + ALIGNMENT * len(spec.all_outputs)
        for tensor in spec.all_outputs:
            dims = tensor.dims if tensor.reshape is None else tensor.reshape
            if -1 not in dims:
                self._row_nbytes += element_count(dims) * tensor.datatype.itemsize

    def estimate_nbytes(self, rows: int) -> int:
        """Room for a batch of so many rows; a guess that proves too small costs a message, no failure."""
        learned_nbytes = min(rows * self._learned_row_nbytes, LARGEST_GUESS_NBYTES)
        return self._padding_nbytes + max(rows * self._row_nbytes, learned_nbytes)

    def learn(self, done: BatchDone, rows: int) -> None:
        """What the outputs of a batch took is what the next batch gets; a single large batch is forgotten in time."""
        nbytes = sum([place[2] for place in done.gathered])
        for outcome in done.outcomes or ():
            nbytes += sum([place[2] for place in outcome.outputs])
        faded = self._learned_row_nbytes - (self._learned_row_nbytes >> FADING_BITS)
        self._learned_row_nbytes = max(faded, nbytes // rows + 1)


class Prepared:
    """What gathering needs of a plan, worked out at its first request and kept in the plan.

    Attributes:
        info: what the model may ask about a request with this plan; None when there is nothing to tell.
        direct: the inputs that are long enough to be left where they arrived.
        frames: messages for batches of this plan alone, by their number of requests and their places.
    """

    __slots__ = ("direct", "frames", "info")

    def __init__(self, info: Info | None, direct: list[int]) -> None:
        self.info = info
        self.direct = direct
        self.frames: dict[tuple[int, int, int, int], bytes] = {}


class Gatherer:
    """Makes ``RunBatch`` messages for one model version.

    Args:
        spec: the model.
        mapping: the shared memory.
        takes_pieces: whether large inputs may stay ungathered.
        makers: make the inputs that no client sends.
    """

    def __init__(
        self, spec: ModelSpec, mapping: Mapping, *, takes_pieces: bool, makers: Sequence[MakeInputs] = ()
    ) -> None:
        self.sizes = OutputSizes(spec)
        self._makers: list[MakeInputs] = list(makers)
        if spec.batch_inputs and not takes_pieces:
            self._makers.append(BatchInputs(spec))
        self._takes_pieces = takes_pieces
        ragged = any(tensor.allow_ragged_batch for tensor in spec.inputs)
        self._in_pieces = ragged and takes_pieces
        self._unequal: UnequalInputs | None = None
        if spec.padding is not None or (ragged and not takes_pieces):
            self._unequal = UnequalInputs(spec, mapping)
        self._special = bool(self._makers or self._in_pieces or self._unequal is not None)
        self._mapping = mapping
        self._batched = spec.max_batch_size > 0
        self._itemsizes = [tensor.datatype.itemsize or 1 for tensor in spec.all_inputs]
        self._all_outputs = tuple(range(len(spec.outputs)))
        self._output_names = [tensor.name for tensor in spec.outputs]
        self._public = len(spec.inputs)

    def message(self, batch: Batch, blocks: InstanceBlocks) -> bytes:
        """Gather the batch's inputs into the instance's blocks, and frame the message that says where they are.

        Requests with the same plan, which is what a client that repeats itself sends, differ in nothing but their
        bytes: their message is made once.

        Raises:
            UnavailableError: shared memory is used up.
        """
        requests = batch.requests
        plan = requests[0].plan
        if self._special or batch.turns is not None:
            return frame(self._special_message(batch, blocks))
        prepared = self._prepared(plan)
        if prepared.direct and (self._takes_pieces or len(requests) == 1):
            return frame(self._left_in_place(batch, blocks))
        columns = self._columns(requests)
        sizes = [sum(map(len, column)) for column in columns]
        start = blocks.input_room(sum(map(align, sizes)) or 1).offset
        offset = start
        for column, nbytes in zip(columns, sizes, strict=True):
            self._write(column, offset, nbytes)
            offset += align(nbytes)
        room = self._room(batch, blocks)
        if any(request.plan is not plan for request in requests):
            return frame(self._message(batch, self._places(batch, start, sizes), room))
        key = (len(requests), start, room.offset, room.nbytes)
        known = prepared.frames.get(key)
        if known is None:
            if len(prepared.frames) >= KEPT_FRAMES:
                prepared.frames.clear()
            known = prepared.frames[key] = frame(self._message(batch, self._places(batch, start, sizes), room))
        return known

    def _special_message(self, batch: Batch, blocks: InstanceBlocks) -> RunBatch:
        """The message of a batch with inputs of unequal lengths, or with inputs that the server makes."""
        if self._unequal is not None:
            return self._with_unequal(batch, blocks, self._unequal)
        if self._makers or batch.turns is not None:
            return (self._made_in_pieces if self._in_pieces else self._with_made)(batch, blocks)
        return self._left_in_place(batch, blocks)

    def _with_unequal(self, batch: Batch, blocks: InstanceBlocks, unequal: UnequalInputs) -> RunBatch:
        """The message of a batch whose requests differ in length."""
        made = [_joined(tensor) for make in self._makers for tensor in make(batch)]
        places = unequal.places(batch, made, blocks)
        return self._message(batch, places, self._room(batch, blocks))

    def _with_made(self, batch: Batch, blocks: InstanceBlocks) -> RunBatch:
        """The message of a batch whose model gets inputs that the server makes."""
        columns = self._columns(batch.requests)
        given = self._places(batch, 0, [0] * len(columns))
        tensors: list[Tensor] = [(place[0], place[3], column) for place, column in zip(given, columns, strict=True)]
        tensors += [
            (tensor.input, tensor.shape, (tensor.data,) if tensor.rows is None else tensor.rows)
            for make in self._makers
            for tensor in make(batch)
        ]
        return self._message(batch, self._placed(tensors, blocks), self._room(batch, blocks))

    def _made_in_pieces(self, batch: Batch, blocks: InstanceBlocks) -> RunBatch:
        """The same for a backend that takes requests one by one, and requests that differ in length."""
        made = [tensor for make in self._makers for tensor in make(batch)]
        tensors: list[Tensor] = []
        for row, request in enumerate(batch.requests):
            for slot, planned in enumerate(request.plan.inputs):
                tensors.append((planned.index, planned.shape, (_data(request, slot),)))
            tensors += [_one_row(tensor, row) for tensor in made]
        places = iter(self._placed(tensors, blocks))
        message = self._message(batch, [], self._room(batch, blocks))
        message.pieces = [list(islice(places, len(each.plan.inputs) + len(made))) for each in batch.requests]
        return message

    def _placed(self, tensors: list[Tensor], blocks: InstanceBlocks) -> list[Place]:
        """Write tensors one after the other, but for those that can be read where they are."""
        places: list[Place] = []
        copied_nbytes = 0
        for index, shape, column in tensors:
            nbytes = sum(map(len, column))
            offset = self._found(index, column[0]) if nbytes >= LARGE_NBYTES and len(column) == 1 else -1
            if offset < 0:
                copied_nbytes += align(nbytes)
            places.append((index, offset, nbytes, shape))
        free = blocks.input_room(copied_nbytes or 1).offset
        for slot, (index, offset, nbytes, shape) in enumerate(places):
            if offset < 0:
                self._write(tensors[slot][2], free, nbytes)
                places[slot] = (index, free, nbytes, shape)
                free += align(nbytes)
        return places

    def _found(self, index: int, data: Buffer) -> int:
        """Where a large tensor lies that can be read there; -1 for what must be copied.

        A state is not read where it lies by a backend that might hold on to it or change it.
        """
        if self._takes_pieces and index >= self._public:
            return -1
        offset = self._mapping.offset_of(data)
        return -1 if offset % self._itemsizes[index] else offset

    def _room(self, batch: Batch, blocks: InstanceBlocks) -> Block:
        return blocks.output_room(self.sizes.estimate_nbytes(batch.rows))

    def _message(self, batch: Batch, inputs: list[Place], room: Block) -> RunBatch:
        rows = [request.plan.rows for request in batch.requests]
        infos = [self._prepared(request.plan).info for request in batch.requests]
        if batch.turns is not None:
            infos = list(map(sequence_info, infos, batch.turns))
        told = None if infos.count(None) == len(infos) else [info or Info() for info in infos]
        return RunBatch(rows, inputs, room.offset, room.nbytes, told)

    def _columns(self, requests: list[InferRequest]) -> list[Sequence[Buffer]]:
        """For every input the bytes of every request."""
        return [[_data(request, slot) for request in requests] for slot in range(len(requests[0].plan.inputs))]

    def _places(self, batch: Batch, offset: int, sizes: list[int]) -> list[Place]:
        places: list[Place] = []
        for planned, nbytes in zip(batch.requests[0].plan.inputs, sizes, strict=True):
            shape = (batch.rows, *planned.shape[1:]) if self._batched else planned.shape
            places.append((planned.index, offset, nbytes, shape))
            offset += align(nbytes)
        return places

    def _write(self, column: Sequence[Buffer], offset: int, nbytes: int) -> None:
        """Write the rows of one request after those of another."""
        view = self._mapping.view
        if len(column) == 1:
            view[offset : offset + nbytes] = column[0]
        elif nbytes < LARGE_NBYTES:
            view[offset : offset + nbytes] = b"".join(column)
        else:
            for data in column:
                end = offset + len(data)
                view[offset:end] = data
                offset = end

    def _left_in_place(self, batch: Batch, blocks: InstanceBlocks) -> RunBatch:
        """Large tensors that arrived in shared memory, aligned, stay where they are; the others are copied there."""
        pieces = [self._find(request) for request in batch.requests]
        missing = [(piece, slot) for piece in pieces for slot in range(len(piece)) if piece[slot][1] < 0]
        if missing:
            offset = blocks.input_room(sum(align(piece[slot][2]) for piece, slot in missing) or 1).offset
        for request, piece in zip(batch.requests, pieces, strict=True):
            for slot, (index, found, nbytes, shape) in enumerate(piece):
                if found < 0:
                    self._write([_data(request, slot)], offset, nbytes)
                    piece[slot] = (index, offset, nbytes, shape)
                    offset += align(nbytes)
        room = self._room(batch, blocks)
        if len(pieces) == 1:
            return self._message(batch, pieces[0], room)
        message = self._message(batch, [], room)
        message.pieces = pieces
        return message

    def _find(self, request: InferRequest) -> list[Place]:
        """Where a request's tensors lie; the offset is -1 for those that cannot be read where they are."""
        plan, places = request.plan, []
        direct = self._prepared(plan).direct
        for slot, planned in enumerate(plan.inputs):
            data = _data(request, slot)
            offset = self._mapping.offset_of(data) if slot in direct else -1
            if offset % self._itemsizes[planned.index]:
                offset = -1
            places.append((planned.index, offset, len(data), planned.shape))
        return places

    def _prepared(self, plan: RequestPlan) -> Prepared:
        prepared = plan.prepared
        if type(prepared) is not Prepared:
            prepared = plan.prepared = self._prepare(plan)
        return prepared

    def _prepare(self, plan: RequestPlan) -> Prepared:
        head, info = plan.head, None
        if head.request_id or head.parameters or plan.outputs != self._all_outputs:
            parameters = {
                encodable(name): encodable(value) if isinstance(value, str) else value
                for name, value in head.parameters.items()
                if name not in SCHEDULING
            }
            names = tuple(self._output_names[index] for index in plan.outputs)
            request_id = encodable(head.request_id)
            info = Info(request_id, parameters, names, plan.priority, plan.timeout_us, *asked_sequence(head))
        direct = [
            slot
            for slot, planned in enumerate(plan.inputs)
            if planned.data is None and plan.payload_nbytes[planned.position] >= LARGE_NBYTES
        ]
        return Prepared(info, direct)


def _one_row(tensor: MadeInput, row: int) -> Tensor:
    """One row of an input that was made row by row."""
    assert tensor.rows is not None, "inputs that are made of a whole batch are not for such backends"
    shape = (1, *tensor.shape[1:]) if len(tensor.rows) > 1 else tensor.shape
    return tensor.input, shape, (tensor.rows[row],)


def _joined(tensor: MadeInput) -> MadeInput:
    return tensor if tensor.rows is None else MadeInput(tensor.input, b"".join(tensor.rows), tensor.shape)


def _data(request: InferRequest, slot: int) -> Buffer:
    planned = request.plan.inputs[slot]
    return request.payload[planned.position] if planned.data is None else planned.data
