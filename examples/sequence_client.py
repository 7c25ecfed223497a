"""Adds up two rows of numbers at once, on one gRPC stream: python examples/sequence_client.py [host:port]."""

import queue
import sys

import numpy as np
import tritonclient.grpc as triton

url = sys.argv[1] if len(sys.argv) > 1 else "localhost:8001"
rows = {"odd": [1, 3, 5, 7], "even": [2, 4, 6, 8]}
answers = queue.Queue()

with triton.InferenceServerClient(url) as client:
    client.start_stream(lambda result, error: answers.put(error or result.as_numpy("SUM")[0, 0]))
    for step in range(4):
        for name, numbers in rows.items():
            number = triton.InferInput("NUMBER", [1, 1], "FP32")
            number.set_data_from_numpy(np.array([[numbers[step]]], dtype=np.float32))
            client.async_stream_infer(
                "running_sum", [number], sequence_id=name, sequence_start=step == 0, sequence_end=step == 3
            )
    sums = [answers.get(timeout=10) for _ in range(8)]

for place, name in enumerate(rows):
    print(f"{name}: {', '.join(f'{total:g}' for total in sums[place::2])}")
