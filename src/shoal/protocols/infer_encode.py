"""What the encoders of both protocols share: which outputs become classes, and what was encoded before."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from shoal.errors import InternalError
from shoal.protocols.classification import classify
from shoal.requests import Buffer, InferHead, OutputHead, ResponseLayout, TensorHead

Labels = Callable[[str], tuple[str, ...]]
"""An output's class labels, by its name."""

_REMEMBERED = 64
"""How many requests' encodings a layout remembers; a client that changes its head each time must not fill memory."""


def remember(layout: ResponseLayout, key: object, encoding: object) -> None:
    """Keep what an encoder made of a layout for a request's head.

    The key is made of the head's identity, so the encoding must hold the head and its reader must compare it.
    """
    if len(layout.encoded) >= _REMEMBERED:
        layout.encoded.clear()
    layout.encoded[key] = encoding


def requested(head: InferHead, layout: ResponseLayout) -> tuple[OutputHead, ...]:
    """For each output of a layout what the request says of it; of one that it does not list, its defaults."""
    listed = {output.name: output for output in head.outputs}
    return tuple(
        listed.get(tensor.name) or OutputHead(tensor.name, head.binary_outputs or head.raw) for tensor in layout.outputs
    )


def classified(
    tensors: Sequence[TensorHead],
    data: Sequence[Buffer],
    wanted: Sequence[OutputHead],
    labels: Labels,
    *,
    batched: bool,
) -> tuple[Sequence[TensorHead], Sequence[Buffer]]:
    """The tensors and their data with classes in place of those outputs for which classes were asked.

    Where no classes were asked for, both come back as they are.

    Raises:
        InvalidArgumentError: an output's type has no classes.
    """
    if not any(output.classification for output in wanted):
        return tensors, data
    new_tensors: list[TensorHead] = list(tensors)
    new_data: list[Buffer] = list(data)
    for index, output in enumerate(wanted):
        if output.classification:
            new_tensors[index], new_data[index] = classify(
                tensors[index], data[index], output.classification, labels(output.name), batched=batched
            )
    return new_tensors, new_data


def check_count(layout: ResponseLayout, data: Sequence[Buffer]) -> None:
    """Check that a response has one buffer per output.

    Raises:
        InternalError: it has not.
    """
    if len(data) != len(layout.outputs):
        raise InternalError(f"response output count mismatch: {len(data)} buffers for {len(layout.outputs)} outputs")
