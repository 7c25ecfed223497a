"""The examples do what they say, against a real server with the example models."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from demo_server import SHOAL, DemoServer, DemoServerError

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MODELS = EXAMPLES / "models"
LINES_PER_CLIENT = 30
LARGEST_MODEL_NBYTES = 1_000_000


@pytest.fixture(scope="module")
def server() -> Iterator[DemoServer]:
    with DemoServer(MODELS) as running:
        yield running


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=100, stdin=subprocess.DEVNULL, check=False)


def test_http_client_reads_a_digit_rightly(server: DemoServer) -> None:
    done = run(sys.executable, EXAMPLES / "http_client.py", f"127.0.0.1:{server.http_port}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("HTTP: a 9 (probability 0.")
    assert done.stdout.endswith("the truth is 9\n")


def test_grpc_client_counts_words(server: DemoServer) -> None:
    done = run(sys.executable, EXAMPLES / "grpc_client.py", f"127.0.0.1:{server.grpc_port}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "gRPC: 8 words, 39 characters in 'Many single fish that move as one body.'\n"


def test_sequence_client_adds_up_two_rows_at_once(server: DemoServer) -> None:
    done = run(sys.executable, EXAMPLES / "sequence_client.py", f"127.0.0.1:{server.grpc_port}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "odd: 1, 4, 9, 16\neven: 2, 6, 12, 20\n"


def test_stream_client_prints_word_by_word(server: DemoServer) -> None:
    done = run(sys.executable, EXAMPLES / "stream_client.py", f"127.0.0.1:{server.grpc_port}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Many single fish that move as one body. \n"


def test_curl_commands_print_what_the_server_says(server: DemoServer) -> None:
    done = run(EXAMPLES / "curl.sh", f"127.0.0.1:{server.http_port}")
    assert done.returncode == 0, done.stderr
    metadata, model, answer, statistics = map(json.loads, done.stdout.splitlines()[1::2])
    assert {"classification", "binary_tensor_data", "statistics"} <= set(metadata["extensions"])
    assert model["name"] == "text_stats"
    assert {output["name"]: output["data"] for output in answer["outputs"]} == {
        "CHARACTERS": [15],
        "WORDS": [4],
        "READING_SECONDS": [1.0],
    }
    assert statistics["model_stats"][0]["inference_stats"]["success"]["count"] >= 1


def test_broken_text_gets_its_own_error_from_the_python_model(server: DemoServer) -> None:
    """The model's TritonError reaches the client with its code and its words."""
    tritonclient = pytest.importorskip("tritonclient.grpc")
    texts = tritonclient.InferInput("TEXT", [1, 1], "BYTES")
    texts.set_data_from_numpy(np.array([[b"\xff"]], dtype=np.object_))
    with (
        tritonclient.InferenceServerClient(f"127.0.0.1:{server.grpc_port}") as client,
        pytest.raises(Exception, match="TEXT is not UTF-8") as caught,
    ):
        client.infer("text_stats", [texts])
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_bare_model_is_completed_from_the_file(server: DemoServer) -> None:
    """A model without config.pbtxt serves: inputs, outputs and batching come from the ONNX file (Triton 1.2)."""
    config = json.loads(server.get("/v2/models/digits_bare/config"))
    assert (config["backend"], config["max_batch_size"]) == ("onnxruntime", 4)
    assert "dynamic_batching" in config
    assert [(tensor["name"], tensor["data_type"], tensor["dims"]) for tensor in config["input"]] == [
        ("pixels", "TYPE_FP32", [64])
    ]


def test_demo_is_content_and_shows_batches() -> None:
    done = run(sys.executable, EXAMPLES / "demo.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All answers are right, and both protocols agree." in done.stdout
    assert "98.6%" in done.stdout
    assert "Closed because:" in done.stdout


def test_demo_server_says_why_it_did_not_start(tmp_path: Path) -> None:
    with pytest.raises(DemoServerError) as caught, DemoServer(tmp_path / "nowhere", [*SHOAL]):
        pass
    assert "ended with status 1" in str(caught.value)
    assert "nowhere" in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_demo_server_tells_of_a_server_that_never_listens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("demo_server.READY_WITHIN_S", 0.1)
    silent = [sys.executable, "-c", "import signal; print('waiting', flush=True); signal.pause()"]
    with pytest.raises(DemoServerError, match="was not ready"), DemoServer(tmp_path, silent):
        pass


def test_training_makes_the_models_and_pictures_of_the_repository(tmp_path: Path) -> None:
    """The committed files come from train_digits.py: the same graphs, the same pictures."""
    pytest.importorskip("sklearn")
    done = run(sys.executable, EXAMPLES / "train_digits.py", "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("digits", "digits_bare"):
        made, kept = (onnx.load(root / "models" / name / "1" / "model.onnx") for root in (tmp_path, EXAMPLES))
        assert [node.op_type for node in made.graph.node] == [node.op_type for node in kept.graph.node]
        assert list(made.graph.output) == list(kept.graph.output)
    made, kept = (np.load(root / "digits_test.npz") for root in (tmp_path, EXAMPLES))
    assert np.array_equal(made["pixels"], kept["pixels"])
    assert np.array_equal(made["labels"], kept["labels"])


@pytest.mark.parametrize(
    "name", ["http_client.py", "grpc_client.py", "sequence_client.py", "stream_client.py", "curl.sh"]
)
def test_clients_stay_small_enough_to_read(name: str) -> None:
    assert len((EXAMPLES / name).read_text().splitlines()) < LINES_PER_CLIENT


def test_models_stay_small_enough_to_commit() -> None:
    sizes = {path: path.stat().st_size for path in MODELS.glob("*/*/model.onnx")}
    assert len(sizes) == 2
    assert max(sizes.values()) < LARGEST_MODEL_NBYTES


def test_the_ensemble_reads_a_picture_of_any_size() -> None:
    """Three models of two repositories behind one request: a picture in, a sentence out."""
    tritonclient = pytest.importorskip("tritonclient.http")
    held_out = np.load(EXAMPLES / "digits_test.npz")
    small = (held_out["pixels"][:4].reshape(4, 8, 8) * 15).astype(np.uint8)
    pictures = small.repeat(5, axis=1).repeat(3, axis=2)
    with DemoServer(EXAMPLES / "ensembles", [*SHOAL, f"--model-repository={MODELS}"]) as running:
        client = tritonclient.InferenceServerClient(f"127.0.0.1:{running.http_port}")
        tensor = tritonclient.InferInput("PICTURE", list(pictures.shape), "UINT8")
        tensor.set_data_from_numpy(pictures)
        texts = [text.decode() for text in client.infer("picture_reader", [tensor]).as_numpy("TEXT")[:, 0]]
        client.close()
    words = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    assert [words[label] in text for label, text in zip(held_out["labels"][:4], texts, strict=True)] == [True] * 4
