"""Writes small Python models into a temporary repository."""

from __future__ import annotations

import textwrap
from pathlib import Path

CONFIG = """
backend: "python"
max_batch_size: {max_batch_size}
input [ {{ name: "IN" data_type: TYPE_FP32 dims: [ {dims} ] }} ]
output [ {{ name: "OUT" data_type: TYPE_FP32 dims: [ {dims} ] }} ]
instance_group [ {{ count: {count} kind: KIND_CPU }} ]
{more}
"""

HEAD = """
import os, signal, sys, time
import numpy as np
import triton_python_backend_utils as pb_utils

def value(request):
    return pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()

def answer(array):
    return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", array)])
"""

ECHO = """
class TritonPythonModel:
    def execute(self, requests):
        return [answer(value(request) * 2) for request in requests]
"""


def write_model(
    repository: Path,
    name: str,
    code: str = ECHO,
    *,
    max_batch_size: int = 8,
    dims: str = "-1",
    count: int = 1,
    more: str = "dynamic_batching { }",
) -> Path:
    """Write a model with one FP32 input and one FP32 output; gives its folder."""
    folder = repository / name
    (folder / "1").mkdir(parents=True)
    config = CONFIG.format(max_batch_size=max_batch_size, dims=dims, count=count, more=more)
    (folder / "config.pbtxt").write_text(config)
    (folder / "1" / "model.py").write_text(HEAD + textwrap.dedent(code))
    return folder
