"""Counts the words of a text over gRPC with the official client: python examples/grpc_client.py [host:port]."""

import sys

import numpy as np
import tritonclient.grpc as triton

url = sys.argv[1] if len(sys.argv) > 1 else "localhost:8001"
text = "Many single fish that move as one body."

with triton.InferenceServerClient(url) as client:
    texts = triton.InferInput("TEXT", [1, 1], "BYTES")
    texts.set_data_from_numpy(np.array([[text.encode()]], dtype=np.object_))
    result = client.infer("text_stats", [texts])

characters, words = (int(result.as_numpy(name)[0, 0]) for name in ("CHARACTERS", "WORDS"))
print(f"gRPC: {words} words, {characters} characters in {text!r}")
