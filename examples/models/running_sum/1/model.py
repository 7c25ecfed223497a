"""Adds up the numbers of a sequence: a Triton Python model that keeps something from request to request."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.sums = {}

    def execute(self, requests):
        """Answer each request; those of one batch belong to different sequences."""
        return [self.add(request) for request in requests]

    def add(self, request):
        sequence = request.correlation_id()
        starts = pb_utils.get_input_tensor_by_name(request, "START").as_numpy()[0, 0]
        number = pb_utils.get_input_tensor_by_name(request, "NUMBER").as_numpy()
        self.sums[sequence] = number if starts else self.sums[sequence] + number
        answer = pb_utils.InferenceResponse([pb_utils.Tensor("SUM", self.sums[sequence])])
        if request.flags() & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END:
            del self.sums[sequence]
        return answer
