"""Completes a configuration with a Python model's own ``auto_complete_config``."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf import json_format

from shoal.backends.contract import ModelFiles
from shoal.backends.python_failure import describe_load
from shoal.backends.python_module import load_model_class
from shoal.backends.triton_python.model_config import ModelConfig
from shoal.config.render import config_to_dict
from shoal.errors import ConfigError

_TENSOR_PROPERTIES = ("name", "data_type", "dims", "optional")


def auto_complete(config: Any, files: ModelFiles) -> None:
    """Run the model's ``auto_complete_config``, if it has one, and take over what it set; in place.

    Args:
        config: the ``ModelConfig`` message.
        files: where the model lies.

    Raises:
        ConfigError: the model's function failed, or what it set is no valid configuration.
        ShoalError: the model's module could not be imported.
    """
    model_class = load_model_class(config.name, files, config.default_model_filename)
    function = getattr(model_class, "auto_complete_config", None)
    if function is None:
        return
    given = ModelConfig(json.dumps(config_to_dict(config)))
    try:
        completed = function(given)
    except (Exception, SystemExit) as error:  # the model's own code may raise anything
        raise ConfigError([f"auto_complete_config of model '{config.name}' failed: {describe_load(error)}"]) from error
    if not isinstance(completed, ModelConfig):
        problem = f"auto_complete_config function in model '{config.name}' must return a valid pb.ModelConfig object"
        raise ConfigError([f"{problem}, not {type(completed).__name__}; return the one that it was given"])
    _take_over(config, completed.as_dict())


def _take_over(config: Any, completed: dict[str, Any]) -> None:
    """Copy what a model may set: batch size, inputs, outputs, dynamic batching and the transaction policy."""
    try:
        config.max_batch_size = completed.get("max_batch_size", 0)
        _take_over_tensors(config.input, completed.get("input", ()))
        _take_over_tensors(config.output, completed.get("output", ()))
        for name in ("dynamic_batching", "model_transaction_policy"):
            if name in completed and not config.HasField(name):
                getattr(config, name).SetInParent()
                json_format.ParseDict(completed[name], getattr(config, name))
    except (json_format.ParseError, TypeError, ValueError, KeyError) as error:
        raise ConfigError(
            [f"auto_complete_config of model '{config.name}' made an invalid configuration: {error}"]
        ) from error


def _take_over_tensors(tensors: Any, completed: Any) -> None:
    known = {tensor.name: tensor for tensor in tensors}
    for properties in completed:
        tensor = known.get(properties["name"])
        if tensor is None:
            tensor = tensors.add()
        del tensor.dims[:]
        json_format.ParseDict({key: properties[key] for key in _TENSOR_PROPERTIES if key in properties}, tensor)
