"""What a sequence model is told of each request: control inputs, correlation ids and flags (rules 44 to 46)."""

from __future__ import annotations

from collections.abc import Sequence
from struct import pack

from shoal.config.spec import ControlKind, ControlSpec, ModelSpec
from shoal.datatypes import DataType
from shoal.execution.messages import Info, encodable
from shoal.requests import InferHead, Shape
from shoal.scheduling.contract import Batch, MadeInput, SequenceTurn

START_FLAG, END_FLAG = 1, 2
"""``TRITONSERVER_REQUEST_FLAG_SEQUENCE_START`` and ``..._END``."""

_LENGTH_NBYTES = 4
_FORMATS = {DataType.FP32: "<f", DataType.INT32: "<i", DataType.BOOL: "?"}
_FIELDS = {ControlKind.START: 1, ControlKind.END: 2, ControlKind.READY: 3}
"""Where in a ``SequenceTurn`` the answer to a control's question stands."""


class SequenceInputs:
    """Makes the control inputs of a sequence model's batches (a ``gather.MakeInputs``).

    Args:
        spec: the model, which has ``sequence``.
    """

    __slots__ = ("_batched", "_ids", "_yes_or_no")

    def __init__(self, spec: ModelSpec) -> None:
        assert spec.sequence is not None
        first = len(spec.inputs)
        self._batched = spec.max_batch_size > 0
        self._ids: list[tuple[int, DataType]] = []
        self._yes_or_no: list[tuple[int, int, tuple[bytes, bytes]]] = []
        for control in spec.sequence.controls:
            if control.false_true is None:
                self._ids.append((first + control.input, control.datatype))
            else:
                self._yes_or_no.append((first + control.input, _FIELDS[control.kind], _encoded(control)))

    def __call__(self, batch: Batch) -> list[MadeInput]:
        """The control inputs of a batch."""
        turns = batch.turns
        assert turns is not None
        shape: Shape = (len(turns), 1) if self._batched else (1,)
        made = [
            MadeInput(index, b"", shape, [values[turn[field]] for turn in turns])  # type: ignore[index]
            for index, field, values in self._yes_or_no
        ]
        made += [MadeInput(index, b"", shape, _correlation_ids(turns, datatype)) for index, datatype in self._ids]
        return made


def _encoded(control: ControlSpec) -> tuple[bytes, bytes]:
    """The wire bytes that stand for no and for yes."""
    assert control.false_true is not None
    kind, as_type = _FORMATS[control.datatype], float if control.datatype is DataType.FP32 else int
    no, yes = control.false_true
    return pack(kind, as_type(no)), pack(kind, as_type(yes))


def _correlation_ids(turns: Sequence[SequenceTurn], datatype: DataType) -> list[bytes]:
    """The correlation ids of a batch on the wire; a number that is too long loses its upper bits, as in Triton."""
    if datatype is DataType.BYTES:
        return [_element(turn.correlation_id) for turn in turns]
    bits = datatype.itemsize * 8
    kept = (1 << bits) - 1
    return [(_number(turn) & kept).to_bytes(datatype.itemsize, "little") for turn in turns]


def _number(turn: SequenceTurn) -> int:
    return turn.correlation_id if isinstance(turn.correlation_id, int) else 0


def _element(correlation_id: int | str) -> bytes:
    """One element of a BYTES tensor; an empty slot's id is the empty string."""
    text = str(correlation_id).encode("utf-8", "replace") if correlation_id else b""
    return len(text).to_bytes(_LENGTH_NBYTES, "little") + text


def sequence_info(info: Info | None, turn: SequenceTurn) -> Info:
    """What a model may ask about a request of a sequence.

    Args:
        info: what it may ask about every request with the same plan; None for nothing.
        turn: what is special about this one.
    """
    if not turn.ready:
        return Info(ready=False)
    known = info or _NOTHING
    correlation_id = turn.correlation_id
    return Info(
        known.request_id,
        known.parameters,
        known.outputs,
        known.priority,
        known.timeout_us,
        encodable(correlation_id) if isinstance(correlation_id, str) else correlation_id,
        START_FLAG * turn.start + END_FLAG * turn.end,
    )


def asked_sequence(head: InferHead) -> tuple[int | str, int]:
    """The correlation id and the flags that a request has, for a model without sequences: it may ask, as in Triton.

    What is no id is 0, for such a model does not check it.
    """
    given = head.parameters.get("sequence_id", 0)
    if isinstance(given, str):
        given = encodable(given)
    elif isinstance(given, bool) or not isinstance(given, int) or not 0 <= given < _UINT64_END:
        given = 0
    start, end = (head.parameters.get(name) is True for name in ("sequence_start", "sequence_end"))
    return given, START_FLAG * start + END_FLAG * end


_UINT64_END = 2**64
_NOTHING = Info()
