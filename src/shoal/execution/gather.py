"""From a batch of requests to the message for its instance: rows gathered into shared memory, outputs given room."""

from __future__ import annotations

from collections.abc import Sequence

from shoal.config.spec import ModelSpec
from shoal.datatypes import element_count
from shoal.execution.arena import ALIGNMENT, Mapping, align
from shoal.execution.blocks import LARGE_NBYTES, InstanceBlocks
from shoal.execution.messages import Info, Place, RunBatch
from shoal.protocols.parameters import SCHEDULING
from shoal.requests import Buffer, InferRequest, RequestPlan
from shoal.scheduling.contract import Batch

LEAST_ROOM_NBYTES = 4096


class OutputSizes:
    """How much room the outputs of a batch will need: known where dims are fixed, learned where they are not."""

    def __init__(self, spec: ModelSpec) -> None:
        self._row_nbytes = 0
        self._learned_row_nbytes = 0
        self._padding_nbytes = LEAST_ROOM_NBYTES + ALIGNMENT * len(spec.outputs)
        for tensor in spec.outputs:
            dims = tensor.dims if tensor.reshape is None else tensor.reshape
            if -1 not in dims:
                self._row_nbytes += element_count(dims) * tensor.datatype.itemsize

    def estimate_nbytes(self, rows: int) -> int:
        """Room for a batch of so many rows."""
        return self._padding_nbytes + rows * max(self._row_nbytes, self._learned_row_nbytes)

    def learn(self, nbytes: int, rows: int) -> None:
        """The outputs of a batch took so many bytes: the largest seen is what the next batch gets."""
        self._learned_row_nbytes = max(self._learned_row_nbytes, nbytes // rows + 1)


class Gatherer:
    """Makes ``RunBatch`` messages for one model version."""

    def __init__(self, spec: ModelSpec, mapping: Mapping) -> None:
        self.sizes = OutputSizes(spec)
        self._mapping = mapping
        self._batched = spec.max_batch_size > 0
        self._itemsizes = [tensor.datatype.itemsize or 1 for tensor in spec.inputs]
        self._all_outputs = tuple(range(len(spec.outputs)))
        self._output_names = [tensor.name for tensor in spec.outputs]

    def message(self, number: int, batch: Batch, blocks: InstanceBlocks) -> RunBatch:
        """Gather the batch's inputs into the instance's blocks.

        Raises:
            UnavailableError: shared memory is used up.
        """
        requests = batch.requests
        inputs = self._single(requests[0], blocks) if len(requests) == 1 else self._gathered(batch, blocks)
        room = blocks.output_room(self.sizes.estimate_nbytes(batch.rows))
        rows = [request.plan.rows for request in requests]
        return RunBatch(number, rows, inputs, room.offset, room.nbytes, self._infos(requests))

    def _single(self, request: InferRequest, blocks: InstanceBlocks) -> list[Place]:
        """One request's tensors, left where they are when they arrived in shared memory and are aligned."""
        places: list[Place] = []
        copies: list[tuple[int, Buffer]] = []
        for slot, planned in enumerate(request.plan.inputs):
            data = request.payload[planned.position] if planned.data is None else planned.data
            nbytes = len(data)
            offset = self._mapping.offset_of(data) if nbytes >= LARGE_NBYTES else -1
            if offset < 0 or offset % self._itemsizes[planned.index]:
                copies.append((slot, data))
            places.append((planned.index, offset, nbytes, planned.shape))
        if copies:
            self._copy(copies, places, blocks)
        return places

    def _copy(self, copies: list[tuple[int, Buffer]], places: list[Place], blocks: InstanceBlocks) -> None:
        total = sum(align(len(data)) for _, data in copies)
        offset = blocks.input_room(total or 1).offset
        view = self._mapping.view
        for slot, data in copies:
            nbytes = len(data)
            view[offset : offset + nbytes] = data
            index, _, _, shape = places[slot]
            places[slot] = (index, offset, nbytes, shape)
            offset += align(nbytes)

    def _gathered(self, batch: Batch, blocks: InstanceBlocks) -> list[Place]:
        """Every input of every request, input by input, the rows of one request after those of another."""
        requests = batch.requests
        plans = [request.plan for request in requests]
        columns = [
            [_data(request, plan, slot) for request, plan in zip(requests, plans, strict=True)]
            for slot in range(len(plans[0].inputs))
        ]
        sizes = [sum(map(len, column)) for column in columns]
        offset = blocks.input_room(sum(map(align, sizes)) or 1).offset
        places: list[Place] = []
        for planned, column, nbytes in zip(plans[0].inputs, columns, sizes, strict=True):
            self._write(column, offset, nbytes)
            places.append((planned.index, offset, nbytes, (batch.rows, *planned.shape[1:])))
            offset += align(nbytes)
        return places

    def _write(self, column: Sequence[Buffer], offset: int, nbytes: int) -> None:
        view = self._mapping.view
        if nbytes < LARGE_NBYTES:
            view[offset : offset + nbytes] = b"".join(column)
            return
        for data in column:
            end = offset + len(data)
            view[offset:end] = data
            offset = end

    def _infos(self, requests: list[InferRequest]) -> list[Info] | None:
        infos = [self._info(request.plan) for request in requests]
        return None if infos.count(None) == len(infos) else [info or Info() for info in infos]

    def _info(self, plan: RequestPlan) -> Info | None:
        """What the model may ask about a request with this plan; None when there is nothing to tell. Made once."""
        if not plan.info_made:
            plan.info_made = True
            head = plan.head
            parameters = {name: value for name, value in head.parameters.items() if name not in SCHEDULING}
            if head.request_id or head.parameters or plan.outputs != self._all_outputs:
                names = tuple(self._output_names[index] for index in plan.outputs)
                plan.info = Info(head.request_id, parameters, names, plan.priority, plan.timeout_us)
        return plan.info  # type: ignore[return-value] # the plan's floor does not know the message


def _data(request: InferRequest, plan: RequestPlan, slot: int) -> Buffer:
    planned = plan.inputs[slot]
    return request.payload[planned.position] if planned.data is None else planned.data
