"""Prints a text word by word, as the words come: python examples/stream_client.py [host:port]."""

import queue
import sys

import numpy as np
import tritonclient.grpc as triton

url = sys.argv[1] if len(sys.argv) > 1 else "localhost:8001"
words = queue.Queue()

with triton.InferenceServerClient(url) as client:
    client.start_stream(lambda result, error: words.put(error or result))
    text = triton.InferInput("TEXT", [1], "BYTES")
    text.set_data_from_numpy(np.array([b"Many single fish that move as one body."], dtype=np.object_))
    client.async_stream_infer("repeat", [text], enable_empty_final_response=True)
    while not (result := words.get(timeout=10)).get_response().parameters["triton_final_response"].bool_param:
        print(result.as_numpy("WORD")[0].decode(), end=" ", flush=True)
print()
