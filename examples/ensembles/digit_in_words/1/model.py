"""A digit and its probability as a sentence."""

import numpy as np

import triton_python_backend_utils as pb_utils

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SURE = 0.9


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        labels = pb_utils.get_input_tensor_by_name(request, "LABEL").as_numpy()
        probabilities = pb_utils.get_input_tensor_by_name(request, "PROBABILITIES").as_numpy()
        texts = [sentence(label, row) for label, row in zip(labels[:, 0], probabilities, strict=True)]
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor("TEXT", np.array([[text.encode()] for text in texts], dtype=object))]
        )


def sentence(label, probabilities):
    certainty = "a" if probabilities[label] >= SURE else "perhaps a"
    return f"{certainty} {WORDS[label]} ({probabilities[label]:.0%})"
