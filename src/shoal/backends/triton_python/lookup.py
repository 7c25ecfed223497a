"""Finding tensors in requests and responses, and their properties in a model's configuration."""

from __future__ import annotations

from typing import Any

from shoal.backends.triton_python.request import InferenceRequest
from shoal.backends.triton_python.response import InferenceResponse
from shoal.backends.triton_python.tensor import Tensor


def get_input_tensor_by_name(inference_request: InferenceRequest, name: str) -> Tensor | None:
    """The request's input of this name, None when it has none (an optional input that was left out)."""
    return inference_request.find_input(name)


def get_output_tensor_by_name(inference_response: InferenceResponse, name: str) -> Tensor | None:
    """The response's output of this name, None when it has none."""
    return next((tensor for tensor in inference_response.output_tensors() if tensor.name() == name), None)


def get_input_config_by_name(model_config: dict[str, Any], name: str) -> dict[str, Any] | None:
    """The properties of the input of this name in a model's configuration, None when there is none."""
    return _find(model_config.get("input", ()), name)


def get_output_config_by_name(model_config: dict[str, Any], name: str) -> dict[str, Any] | None:
    """The properties of the output of this name in a model's configuration, None when there is none."""
    return _find(model_config.get("output", ()), name)


def using_decoupled_model_transaction_policy(model_config: dict[str, Any]) -> bool:
    """Whether the configuration says that the model answers decoupled from its requests."""
    return bool(model_config.get("model_transaction_policy", {}).get("decoupled", False))


def _find(tensors: Any, name: str) -> dict[str, Any] | None:
    return next((properties for properties in tensors if properties["name"] == name), None)
