"""From a finished batch to one response per request: rows cut out of the gathered outputs, each to its owner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shoal.config.spec import ModelSpec, TensorSpec
from shoal.errors import InternalError, ModelError, ShoalError, Status
from shoal.execution.blocks import LARGE_NBYTES, InstanceBlocks
from shoal.execution.cut_outputs import OutputCutter, Piece
from shoal.execution.messages import BatchDone, Outcome, Place
from shoal.execution.padded_lengths import BatchLength
from shoal.requests import Buffer, InferRequest, InferResponse, Parameter, ResponseLayout, Shape, TensorHead
from shoal.scheduling.contract import Batch

KEPT_LAYOUTS = 1024

Answer = InferResponse | ShoalError


class Scatterer:
    """Makes responses for one model version."""

    def __init__(self, spec: ModelSpec, *, takes_pieces: bool = False) -> None:
        self._spec = spec
        cutter = OutputCutter(spec, scatters=not takes_pieces)
        self._cutter = cutter if cutter.needed else None
        self._lengths: list[BatchLength] = []
        self._batched = spec.max_batch_size > 0
        self._layouts: dict[tuple[object, ...], tuple[ResponseLayout, tuple[int, ...]]] = {}

    def answers(self, batch: Batch, done: BatchDone, blocks: InstanceBlocks) -> list[Answer]:
        """One answer per request of the batch, in its order."""
        if done.status:
            error = ModelError(done.message, Status[done.status])
            return [error] * len(batch.requests)
        try:
            if self._cutter is not None:
                self._lengths = self._cutter.lengths(batch)
            if done.outcomes is not None:
                return [self._outcome(*pair, blocks) for pair in zip(batch.requests, done.outcomes, strict=True)]
            if self._cutter is not None:
                return self._cut_gathered(batch, done, blocks, self._cutter)
            if len(batch.requests) == 1:
                return [self._whole(batch.requests[0], done.gathered, None, blocks)]
            return self._gathered(batch, done, blocks)
        except ShoalError as error:
            return [error] * len(batch.requests)

    def _gathered(self, batch: Batch, done: BatchDone, blocks: InstanceBlocks) -> list[Answer]:
        """The responses of several requests whose rows lie behind each other."""
        requests, splits = batch.requests, done.splits or {}
        rows = [request.plan.rows for request in requests]
        columns = {
            place[0]: self._column(place, batch.rows, rows, splits.get(place[0]), blocks) for place in done.gathered
        }
        answers: list[Answer] = []
        plan = None
        for position, request in enumerate(requests):
            if request.plan is not plan:
                plan = request.plan
                shapes = tuple([(index, (plan.rows, *shape[1:])) for index, _, _, shape in done.gathered])
                layout, produced = self._layout(plan.outputs, shapes)
            answers.append(InferResponse(layout, [columns[index][position] for index in produced]))
        return answers

    def _cut_gathered(
        self, batch: Batch, done: BatchDone, blocks: InstanceBlocks, cutter: OutputCutter
    ) -> list[Answer]:
        """The responses of requests that differ in the shapes of their outputs."""
        requests, splits = batch.requests, done.splits or {}
        rows = [request.plan.rows for request in requests]
        columns: list[Sequence[Piece]] = []
        for place in done.gathered:
            index, split, dims = place[0], splits.get(place[0]), place[3][1:]
            if cutter.cuts(index):
                columns.append(cutter.gathered(place, batch, self._lengths, split, blocks))
            else:
                column = self._column(place, batch.rows, rows, split, blocks)
                columns.append([(data, (count, *dims)) for data, count in zip(column, rows, strict=True)])
        indices = [place[0] for place in done.gathered]
        return [
            self._response(request, dict(zip(indices, pieces, strict=True)), None)
            for request, *pieces in zip(requests, *columns, strict=True)
        ]

    def _response(
        self, request: InferRequest, pieces: Mapping[int, Piece], parameters: Mapping[str, Parameter] | None
    ) -> InferResponse:
        """The response of a request with these outputs."""
        shapes = tuple([(index, shape) for index, (_, shape) in pieces.items()])
        layout, produced = self._layout(request.plan.outputs, shapes)
        return InferResponse(layout, [pieces[index][0] for index in produced], parameters)

    def _column(
        self, place: Place, total_rows: int, rows: list[int], split: list[int] | None, blocks: InstanceBlocks
    ) -> Sequence[Buffer]:
        """One output's bytes for each request."""
        index, offset, nbytes, shape = place
        if not shape or shape[0] != total_rows:
            name = self._spec.outputs[index].name
            raise InternalError(
                f"model '{self._spec.name}' gave output '{name}' the shape {list(shape)} for a batch of "
                f"{total_rows} rows; the first dimension must be the batch"
            )
        row_nbytes = nbytes // total_rows
        sizes = split if split is not None else [row_nbytes * count for count in rows]
        if nbytes >= LARGE_NBYTES and max(sizes) >= LARGE_NBYTES:
            return _cut_views(offset, sizes, blocks)
        data = blocks.read(offset, nbytes)
        if split is None and row_nbytes and len(rows) == total_rows:
            return [data[start : start + row_nbytes] for start in range(0, nbytes, row_nbytes)]
        return _cut(data, sizes)

    def _outcome(self, request: InferRequest, outcome: Outcome, blocks: InstanceBlocks) -> Answer:
        if outcome.status:
            return ModelError(outcome.message, Status[outcome.status])
        return self._whole(request, outcome.outputs, outcome.parameters, blocks)

    def streamed(self, request: InferRequest, outcome: Outcome, data: memoryview) -> Answer:
        """The answer in one of the messages of a request that is answered response by response."""
        if outcome.status:
            return ModelError(outcome.message, Status[outcome.status])
        pieces = {index: (data[offset : offset + nbytes], shape) for index, offset, nbytes, shape in outcome.outputs}
        return self._response(request, pieces, outcome.parameters)

    def _whole(
        self,
        request: InferRequest,
        places: list[Place],
        parameters: Mapping[str, Parameter] | None,
        blocks: InstanceBlocks,
    ) -> InferResponse:
        """The response of a request whose outputs are not mixed with those of others."""
        if self._cutter is not None:
            own = {place[0]: self._cutter.own(place, request, self._lengths, blocks) for place in places}
            return self._response(request, own, parameters)
        data: dict[int, Buffer] = {}
        for index, offset, nbytes, _ in places:
            data[index] = blocks.view(offset, nbytes) if nbytes >= LARGE_NBYTES else blocks.read(offset, nbytes)
        shapes = tuple([(index, shape) for index, _, _, shape in places])
        layout, produced = self._layout(request.plan.outputs, shapes)
        return InferResponse(layout, [data[index] for index in produced], parameters)

    def _layout(
        self, wanted: tuple[int, ...], shapes: tuple[tuple[int, Shape], ...]
    ) -> tuple[ResponseLayout, tuple[int, ...]]:
        """The layout of a response with these outputs, and which of the produced outputs it holds."""
        key = (wanted, shapes)
        found = self._layouts.get(key)
        if found is None:
            if len(self._layouts) >= KEPT_LAYOUTS:
                self._layouts.clear()
            found = self._layouts[key] = self._make_layout(wanted, dict(shapes))
        return found

    def _make_layout(self, wanted: tuple[int, ...], shapes: dict[int, Shape]) -> tuple[ResponseLayout, tuple[int, ...]]:
        produced = tuple(index for index in shapes if index in wanted)  # in the model's own order, as in Triton
        heads = []
        for index in produced:
            tensor = self._spec.outputs[index]
            heads.append(TensorHead(tensor.name, tensor.datatype, client_shape(tensor, shapes[index], self._batched)))
        return ResponseLayout(self._spec.name, self._spec.version, tuple(heads)), produced


def client_shape(tensor: TensorSpec, shape: Shape, batched: bool) -> Shape:
    """An output's shape as clients see it: ``reshape`` undone, variable dimensions taken over in order (rule 33)."""
    if tensor.reshape is None:
        return shape
    batch, dims = (shape[:1], shape[1:]) if batched else ((), shape)
    variable = iter([found for declared, found in zip(tensor.reshape, dims, strict=False) if declared == -1])
    return batch + tuple(next(variable, 1) if declared == -1 else declared for declared in tensor.dims)


def _cut(data: bytes, sizes: list[int]) -> list[Buffer]:
    pieces: list[Buffer] = []
    start = 0
    for size in sizes:
        pieces.append(data[start : start + size])
        start += size
    return pieces


def _cut_views(offset: int, sizes: list[int], blocks: InstanceBlocks) -> list[Buffer]:
    pieces = []
    for size in sizes:
        pieces.append(blocks.view(offset, size))
        offset += size
    return pieces
