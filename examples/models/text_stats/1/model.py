"""Counts what is in a text: a Triton Python model as it would run in Triton, unchanged."""

import numpy as np

import triton_python_backend_utils as pb_utils

WORDS_PER_SECOND = 4.0


class TritonPythonModel:
    def execute(self, requests):
        """Answer each request of the batch; one with a broken text gets an error of its own and harms no other."""
        return [self.answer(request) for request in requests]

    def answer(self, request):
        texts = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy()
        try:
            decoded = [text.decode() for text in texts[:, 0]]
        except UnicodeDecodeError as error:
            problem = pb_utils.TritonError(f"TEXT is not UTF-8: {error}", pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse(error=problem)
        words = np.array([[len(text.split())] for text in decoded], dtype=np.int32)
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("CHARACTERS", np.array([[len(text)] for text in decoded], dtype=np.int32)),
                pb_utils.Tensor("WORDS", words),
                pb_utils.Tensor("READING_SECONDS", (words / WORDS_PER_SECOND).astype(np.float32)),
            ]
        )
