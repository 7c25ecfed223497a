"""What the demo asks of the server, with the official Triton clients: many requests at once, one picture in each."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import tritonclient.grpc
import tritonclient.http
from gevent.pool import Pool

IN_FLIGHT = 32
HELD_OUT = np.load(Path(__file__).with_name("digits_test.npz"))
PICTURES: np.ndarray = HELD_OUT["pixels"].astype(np.float32)
TRUTH: np.ndarray = HELD_OUT["labels"]


@dataclass(frozen=True)
class Answers:
    """What came back for every held-out picture, in order."""

    labels: np.ndarray
    probabilities: np.ndarray

    @property
    def accuracy(self) -> float:
        """The share of pictures that were read rightly."""
        return float(np.mean(self.labels == TRUTH))


def classify_over_http(port: int, model: str) -> Answers:
    """Send each picture in a request of its own over HTTP, ``IN_FLIGHT`` at a time."""
    with tritonclient.http.InferenceServerClient(f"127.0.0.1:{port}", concurrency=IN_FLIGHT) as client:
        inputs = [[pixels(tritonclient.http, picture)] for picture in PICTURES]
        # The client's own async_infer sleeps 10 ms after each request, which would keep batches from forming.
        return collect(Pool(IN_FLIGHT).map(lambda tensors: client.infer(model, tensors), inputs))


def classify_over_grpc(port: int, model: str) -> Answers:
    """Send each picture in a request of its own over gRPC, ``IN_FLIGHT`` at a time."""
    with (
        tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{port}") as client,
        ThreadPoolExecutor(IN_FLIGHT) as threads,
    ):
        inputs = [[pixels(tritonclient.grpc, picture)] for picture in PICTURES]
        return collect(list(threads.map(lambda tensors: client.infer(model, tensors), inputs)))


def likeliest(port: int, picture: np.ndarray, classes: int) -> list[str]:
    """The classification extension: the ``classes`` likeliest digits as ``probability:index:label``."""
    with tritonclient.http.InferenceServerClient(f"127.0.0.1:{port}") as client:
        wanted = tritonclient.http.InferRequestedOutput("probabilities", class_count=classes)
        result = client.infer("digits", [pixels(tritonclient.http, picture)], outputs=[wanted])
        return [entry.decode() for entry in result.as_numpy("probabilities").flatten()]


def text_stats(port: int, texts: Sequence[str]) -> list[tuple[int, int, float]]:
    """What the Python model counts in each text: characters, words, seconds to read it."""
    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{port}") as client:
        tensor = tritonclient.grpc.InferInput("TEXT", [len(texts), 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[text.encode()] for text in texts], dtype=np.object_))
        result = client.infer("text_stats", [tensor])
        columns = [result.as_numpy(name)[:, 0].tolist() for name in ("CHARACTERS", "WORDS", "READING_SECONDS")]
        return list(zip(*columns, strict=True))


def pixels(client: ModuleType, picture: np.ndarray):
    """One picture as the model's input, for either client."""
    tensor = client.InferInput("pixels", [1, 64], "FP32")
    tensor.set_data_from_numpy(picture.reshape(1, 64))
    return tensor


def collect(results: list) -> Answers:
    """Put the answers of many requests together."""
    return Answers(
        np.concatenate([result.as_numpy("label")[:, 0] for result in results]),
        np.concatenate([result.as_numpy("probabilities") for result in results]),
    )
