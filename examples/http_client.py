"""Classifies one picture over HTTP with the official client: python examples/http_client.py [host:port]."""

import sys
from pathlib import Path

import numpy as np
import tritonclient.http as triton

url = sys.argv[1] if len(sys.argv) > 1 else "localhost:8000"
held_out = np.load(Path(__file__).with_name("digits_test.npz"))
picture = held_out["pixels"][:1].astype(np.float32)

with triton.InferenceServerClient(url) as client:
    pixels = triton.InferInput("pixels", picture.shape, "FP32")
    pixels.set_data_from_numpy(picture)
    result = client.infer("digits", [pixels])

label = int(result.as_numpy("label")[0, 0])
probability = float(result.as_numpy("probabilities")[0, label])
print(f"HTTP: a {label} (probability {probability:.3f}); the truth is {held_out['labels'][0]}")
