"""Which of a model's outputs a request gets (rules 15 and 34)."""

from __future__ import annotations

from shoal.config.spec import ModelSpec
from shoal.datatypes import DataType
from shoal.errors import InvalidArgumentError
from shoal.requests import InferHead

_UNCLASSIFIABLE = frozenset((DataType.FP16, DataType.BF16, DataType.BYTES, DataType.BOOL))


def requested_outputs(head: InferHead, spec: ModelSpec) -> tuple[int, ...]:
    """The indices of the outputs to return; the model decides in which order it answers with them.

    Raises:
        InvalidArgumentError: an output is unknown; of several, the first by name is reported.
    """
    if not head.outputs:
        return tuple(range(len(spec.outputs)))
    indices = {tensor.name: index for index, tensor in enumerate(spec.outputs)}
    names = sorted({output.name for output in head.outputs})
    for name in names:
        if name not in indices:
            raise InvalidArgumentError(f"unexpected inference output '{name}' for model '{spec.name}'")
    return tuple(sorted(indices[name] for name in names))


def check_classification(head: InferHead, spec: ModelSpec) -> None:
    """Refuse top classes of an output whose type has no order that Triton knows.

    Triton finds out when the model has run; the answer is the same. (Of a BYTES output the real server dies.)
    """
    types = {tensor.name: tensor.datatype for tensor in spec.outputs}
    for output in head.outputs:
        datatype = types[output.name]
        if output.classification and datatype in _UNCLASSIFIABLE:
            raise InvalidArgumentError(
                f"class result not available for output due to unsupported type '{datatype.wire}'"
            )
