"""The backends that Triton knows by their files and platforms."""

from __future__ import annotations

from typing import NamedTuple


class Known(NamedTuple):
    """A backend, the platform name that it goes with (``""`` for none) and its default file."""

    backend: str
    platform: str
    filename: str


KNOWN = (
    Known("tensorrt", "tensorrt_plan", "model.plan"),
    Known("onnxruntime", "onnxruntime_onnx", "model.onnx"),
    Known("openvino", "", "model.xml"),
    Known("pytorch", "pytorch_libtorch", "model.pt"),
    Known("torch_aoti", "torch_aoti", "model.pt2"),
    Known("python", "", "model.py"),
)
"""In the order in which Triton looks for the files (``model_config_utils.cc:1051``)."""

ONE_RESPONSE = frozenset({"onnxruntime"})
"""Backends that give each request exactly one response, so that their models cannot be decoupled."""

ENSEMBLE = "ensemble"
"""The platform of a model that is made of other models; it has no backend."""

BY_BACKEND = {known.backend: known for known in KNOWN}
BY_PLATFORM = {known.platform: known for known in KNOWN if known.platform}
BY_FILENAME = {known.filename: known for known in KNOWN}
