"""The ONNX Runtime backend: one session for each device, shared by the instances on it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from shoal.backends import registry
from shoal.backends.contract import LoadContext, ModelFiles
from shoal.backends.onnx_complete import complete_from, is_complete
from shoal.backends.onnx_instance import OnnxInstance, SessionPlan, make_plan
from shoal.backends.onnx_options import OnnxOptions, read_options, run_options, session_options
from shoal.backends.onnx_providers import Provider, choose_providers
from shoal.backends.onnx_session import find_model_file, open_session
from shoal.backends.onnx_signature import check_signature, read_signature
from shoal.config.spec import InstanceKind, InstanceSpec
from shoal.errors import ConfigError

_log = logging.getLogger(__name__)

_DEFAULT_MAX_BATCH_SIZE = "default-max-batch-size"


class OnnxRuntimeBackend:
    """Loads ONNX models.

    Args:
        settings: the backend's server-wide settings: ``default-max-batch-size`` (4).

    Raises:
        ConfigError: a setting has a value that it cannot have.
    """

    name = "onnxruntime"
    process_per_instance = registry.TRAITS["onnxruntime"].process_per_instance
    preload = registry.TRAITS["onnxruntime"].preload

    def __init__(self, settings: Mapping[str, str]) -> None:
        text = settings.get(_DEFAULT_MAX_BATCH_SIZE, "4")
        if not text.isdecimal():
            problem = f"setting '{_DEFAULT_MAX_BATCH_SIZE}' must be a number of 0 or more, not '{text}'"
            raise ConfigError([f"backend 'onnxruntime': {problem}"])
        self._default_max_batch_size = int(text)

    def complete(self, config: Any, files: ModelFiles) -> None:
        """Fill in inputs, outputs and batching from the model, unless the configuration has all tensors; in place.

        Raises:
            ConfigError: the configuration contradicts the model.
            ShoalError: the model cannot be read.
        """
        if is_complete(config):
            return
        path = find_model_file(config.name, files, config.default_model_filename)
        options = session_options(OnnxOptions(intra_op_threads=1, graph_level="ORT_DISABLE_ALL"))
        session = open_session(config.name, path, options, [("CPUExecutionProvider", {})])
        complete_from(config, read_signature(session), self._default_max_batch_size)

    def load(self, context: LoadContext) -> OnnxModel:
        """Open the model's session on the device of its first instance.

        Raises:
            ConfigError: the configuration contradicts the model, or a parameter has a wrong value.
            ShoalError: ONNX Runtime cannot load the model or lacks what it needs.
        """
        model = OnnxModel(context)
        for warning in model.warnings:
            _log.warning("%s", warning)
        return model


class OnnxModel:
    """A loaded ONNX model.

    Args:
        context: what it is loaded with.

    Attributes:
        warnings: one line for each parameter that has no effect.
    """

    def __init__(self, context: LoadContext) -> None:
        spec = context.spec
        self._spec = spec
        self._optimization: dict[str, Any] = json.loads(context.config_json).get("optimization", {})
        self._options = read_options(spec, self._optimization, context.cores)
        self._path = find_model_file(spec.name, context.files, spec.filename)
        self._plans: dict[int | None, SessionPlan] = {}
        self.warnings = self._options.warnings
        if spec.instances:
            self._plan(spec.instances[0])

    def instance(self, spec: InstanceSpec) -> OnnxInstance:
        """Make an instance on its device.

        Raises:
            ShoalError: ONNX Runtime cannot run the model there.
        """
        return OnnxInstance(self._plan(spec))

    def _plan(self, instance: InstanceSpec) -> SessionPlan:
        device = instance.device_id if instance.kind is InstanceKind.GPU else None
        if device not in self._plans:
            self._plans[device] = self._open(instance)
        return self._plans[device]

    def _open(self, instance: InstanceSpec) -> SessionPlan:
        options = session_options(self._options)
        session = open_session(self._spec.name, self._path, options, self._providers(instance))
        signature = read_signature(session)
        check_signature(self._spec, signature)
        return make_plan(self._spec, signature, session, run_options(self._options))

    def _providers(self, instance: InstanceSpec) -> list[Provider]:
        import onnxruntime  # noqa: PLC0415 - heavy: only workers that run ONNX models import it

        available = onnxruntime.get_available_providers()
        return choose_providers(self._spec.name, instance, self._optimization, self._options, available)

    def close(self) -> None:
        """Let go of the sessions; each ends when its last instance has gone."""
        self._plans.clear()
