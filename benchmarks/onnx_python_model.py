"""The digits network inside a Triton Python model: what a Triton without an ONNX backend would be given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Runs the digits network on all rows of a batch at once."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the network that stands beside this file."""
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Gather the pictures of all requests, run once, and give each request its rows."""
        rows = [pb_utils.get_input_tensor_by_name(request, "pixels").as_numpy() for request in requests]
        probabilities, labels = self.session.run(["probabilities", "label"], {"pixels": np.concatenate(rows)})
        responses, start = [], 0
        for end in np.cumsum([len(array) for array in rows]):
            outputs = [
                pb_utils.Tensor("probabilities", probabilities[start:end]),
                pb_utils.Tensor("label", labels[start:end]),
            ]
            responses.append(pb_utils.InferenceResponse(outputs))
            start = end
        return responses
