"""Repeats a text word by word: a Triton Python model with any number of responses to a request."""

import threading
import time

import numpy as np

import triton_python_backend_utils as pb_utils

SECONDS_PER_WORD = 0.05


class TritonPythonModel:
    def execute(self, requests):
        """Begin to answer each request and return at once, so that others can begin meanwhile."""
        for request in requests:
            text = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy()[0].decode()
            threading.Thread(target=self.repeat, args=(text, request.get_response_sender())).start()

    def repeat(self, text, sender):
        for word in text.split():
            if sender.is_cancelled():  # nobody listens any more
                break
            tensor = pb_utils.Tensor("WORD", np.array([word], dtype=object))
            sender.send(pb_utils.InferenceResponse([tensor]))
            time.sleep(SECONDS_PER_WORD)
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
