"""Which of ONNX Runtime's execution providers run a model: configured accelerators, and CUDA for GPU instances."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from shoal.backends.onnx_options import OnnxOptions
from shoal.config.spec import InstanceKind, InstanceSpec
from shoal.errors import UnsupportedError, nearest

Provider = tuple[str, dict[str, str]]

_SUFFIX = "executionprovider"
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def choose_providers(
    model: str, instance: InstanceSpec, optimization: Mapping[str, Any], options: OnnxOptions, available: Sequence[str]
) -> list[Provider]:
    """The providers for the sessions of an instance, the one to be asked first coming first.

    Args:
        model: the model's name.
        instance: the instance.
        optimization: the configuration's ``optimization`` as JSON.
        options: the model's options.
        available: ONNX Runtime's available providers.

    Raises:
        UnsupportedError: the installed ONNX Runtime does not have a provider that the configuration asks for.
    """
    accelerators = optimization.get("execution_accelerators", {})
    if instance.kind is not InstanceKind.GPU:
        wanted = accelerators.get("cpu_execution_accelerator", ())
        return [*_accelerators(model, wanted, available, {}), (_CPU, {})]
    device = {"device_id": str(instance.device_id)}
    if _CUDA not in available:
        raise UnsupportedError(
            f"model '{model}': instance '{instance.name}' is KIND_GPU, but the installed ONNX Runtime cannot use CUDA "
            f"(it has {', '.join(available)}); install onnxruntime-gpu in place of onnxruntime, or set kind: KIND_CPU"
        )
    cuda = {**device, **options.cuda}
    providers: list[Provider] = []
    for name, parameters in _accelerators(model, accelerators.get("gpu_execution_accelerator", ()), available, device):
        if name == _CUDA:
            cuda |= parameters
        else:
            providers.append((name, parameters))
    return [*providers, (_CUDA, cuda), (_CPU, {})]


def _accelerators(
    model: str, wanted: Sequence[Mapping[str, Any]], available: Sequence[str], common: Mapping[str, str]
) -> Iterator[Provider]:
    by_name = {provider.lower().removesuffix(_SUFFIX): provider for provider in available}
    for accelerator in wanted:
        name = accelerator["name"]
        provider = by_name.get(name.lower())
        if provider is None:
            raise UnsupportedError(
                f"model '{model}': execution accelerator '{name}' is not in the installed ONNX Runtime"
                f"{nearest(name, by_name)}; it has {', '.join(sorted(by_name))}"
            )
        yield provider, {**common, **accelerator.get("parameters", {})}
