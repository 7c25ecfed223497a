"""Completes a configuration from an ONNX model: batch size, inputs and outputs (Triton's auto-complete)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from shoal.backends.onnx_sequences import sequence_tensors
from shoal.backends.onnx_signature import OnnxTensor, Signature, unknown_tensor
from shoal.errors import ConfigError

_log = logging.getLogger(__name__)


def is_complete(config: Any) -> bool:
    """Whether the configuration tells all about its tensors; then the model need not be asked, as in Triton."""
    tensors = [*config.input, *config.output]
    return bool(config.input and config.output) and all(tensor.data_type and tensor.dims for tensor in tensors)


def complete_from(config: Any, signature: Signature, default_max_batch_size: int) -> None:
    """Fill in what the configuration leaves out; in place.

    Args:
        config: the ``ModelConfig`` message.
        signature: the model's.
        default_max_batch_size: for a model that can take batches and a configuration without ``max_batch_size``.

    Raises:
        ConfigError: the configuration names a tensor that the model does not have, or batches that it cannot take.
    """
    inputs, outputs = signature.inputs, _tensors_only(config.name, signature.outputs)
    if not outputs:
        raise ConfigError(
            [f"model '{config.name}': no output of the model is a tensor: {[t.onnx_type for t in signature.outputs]}"]
        )
    _complete_batching(config, (*inputs, *outputs), default_max_batch_size)
    batched = config.max_batch_size > 0
    made, kept = sequence_tensors(config)
    made |= frozenset(name for entry in config.batch_input for name in entry.target_name)
    _complete_tensors(
        config.name, "input", config.input, inputs, (*inputs, *signature.optional_inputs), batched=batched, made=made
    )
    _complete_tensors(config.name, "output", config.output, outputs, signature.outputs, batched=batched, made=kept)


def _tensors_only(model: str, outputs: Sequence[OnnxTensor]) -> list[OnnxTensor]:
    """The outputs that can be served; scikit-learn's classifiers have one more, a sequence of maps."""
    for tensor in outputs:
        if tensor.datatype is None:
            _log.warning("model '%s': output '%s' is left out: its type is %s", model, tensor.name, tensor.onnx_type)
    return [tensor for tensor in outputs if tensor.datatype is not None]


def _complete_batching(config: Any, tensors: Sequence[OnnxTensor], default_max_batch_size: int) -> None:
    """A model whose tensors all begin with a variable dimension takes batches (``AutoCompleteMaxBatch``)."""
    if not all(tensor.batchable for tensor in tensors):
        if config.max_batch_size > 0:
            fixed = [f"'{tensor.name}' {list(tensor.sizes)}" for tensor in tensors if not tensor.batchable]
            problem = (
                f"model '{config.name}': max_batch_size is {config.max_batch_size}, but the model does not support "
                f"batching: the first dimension is not variable in {', '.join(fixed)}; set max_batch_size: 0"
            )
            raise ConfigError([problem])
        return
    if config.max_batch_size == 0:
        config.max_batch_size = default_max_batch_size
    if config.max_batch_size > 1 and config.WhichOneof("scheduling_choice") is None:
        config.dynamic_batching.SetInParent()


def _complete_tensors(
    model: str,
    kind: str,
    configured: Any,
    default: Sequence[OnnxTensor],
    provided: Sequence[OnnxTensor],
    *,
    batched: bool,
    made: frozenset[str] = frozenset(),
) -> None:
    if not configured:
        for tensor in default:
            if tensor.name not in made:
                configured.add(name=tensor.name)
    by_name = {tensor.name: tensor for tensor in provided}
    unknown = [tensor.name for tensor in configured if tensor.name not in by_name]
    if unknown:
        raise ConfigError([unknown_tensor(model, kind, name, provided) for name in unknown])
    for tensor in configured:
        _complete_tensor(model, kind, tensor, by_name[tensor.name], batched)


def _complete_tensor(model: str, kind: str, tensor: Any, found: OnnxTensor, batched: bool) -> None:
    if found.datatype is None:
        raise ConfigError(
            [f"model '{model}', {kind} '{found.name}' has type {found.onnx_type}, which cannot be served"]
        )
    if not tensor.data_type:
        tensor.data_type = found.datatype.number
    if not tensor.dims and not getattr(tensor, "allow_ragged_batch", False):  # a ragged one has lost its dims
        dims = found.sizes[1:] if batched else found.sizes
        tensor.dims.extend(dims or (1,))  # a configuration has no empty dims: a scalar is one element for clients
        if batched and not dims:
            tensor.reshape.SetInParent()
