"""What the real Triton says of ensembles, as recorded: why it refuses some, and what others answer.

``python tests/conformance/ensemble_answers.py`` asks the real Triton and records what it does.
"""

from __future__ import annotations

import json
import re
import struct
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

import ensemble_infer_cases
import ensemble_load_cases
import grpc
from ensemble_models import BROKEN_MEMBER, MEMBERS, REPEATER, write
from triton_peer import free_port, post, running
from tritonclient.grpc import service_pb2

RECORDED = Path(__file__).with_name("ensemble_answers.json")
LOADED = (*MEMBERS, REPEATER, BROKEN_MEMBER, *ensemble_load_cases.GOOD, *ensemble_load_cases.BAD)


def recorded() -> dict[str, Any]:
    """What was recorded."""
    return dict(json.loads(RECORDED.read_text()))


def ask(address: str, case: ensemble_infer_cases.Case) -> dict[str, Any]:
    """The status and the answer, its outputs by name: Triton gives them in no order of its own."""
    text = json.dumps(ensemble_infer_cases.body(case)).encode()
    status, answer = post(f"{address}/v2/models/{case.model}/infer", {}, text)
    message = json.loads(answer)
    if "outputs" in message:
        message["outputs"] = {output.pop("name"): output for output in message["outputs"]}
        message.pop("parameters", None)
    else:
        message["error"] = plain(message["error"])
    return {"status": status} | message


def ask_stream(address: str, case: ensemble_infer_cases.Case) -> dict[str, Any]:
    """What a decoupled ensemble gives on a gRPC stream: outputs by name, and how often it said that it was the end.

    The end may come with the last answer or by itself, as it happens. Of errors the first is kept; Triton sends more.
    """
    values = case.inputs["X"]
    tensor = service_pb2.ModelInferRequest.InferInputTensor(name="X", datatype="FP32", shape=[len(values)])
    request = service_pb2.ModelInferRequest(model_name=case.model, inputs=[tensor])
    request.raw_input_contents.append(struct.pack(f"<{len(values)}f", *values))
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    with grpc.insecure_channel(address) as channel:
        call = channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
        )
        messages = list(call(iter([request]), timeout=30))
    errors = [plain(message.error_message) for message in messages if message.error_message]
    if errors:
        return {"error": errors[0]}
    responses = [message.infer_response for message in messages]
    finals = sum(response.parameters["triton_final_response"].bool_param for response in responses)
    return {"answers": [values_of(response) for response in responses if response.outputs], "finals": finals}


def values_of(response: Any) -> dict[str, list[float]]:
    """The numbers of a response's outputs by name."""
    pairs = zip(response.outputs, response.raw_output_contents, strict=True)
    return {tensor.name: list(struct.unpack(f"<{len(raw) // 4}f", raw)) for tensor, raw in pairs}


def plain(text: str) -> str:
    """An error's text without the traceback and the place in a file that a Python model's error brings along."""
    return re.sub(r"\n\nAt:\n.*", "", text, flags=re.DOTALL)


def statistics(address: str, model: str) -> dict[str, Any]:
    """The counts of a model's statistics; times differ from run to run, and failures Triton counts twice."""
    with urllib.request.urlopen(f"{address}/v2/models/{model}/stats", timeout=10) as answer:
        found = json.loads(answer.read())["model_stats"][0]
    counts = {name: value["count"] for name, value in found["inference_stats"].items() if name != "fail"}
    sizes = {str(entry["batch_size"]): entry["compute_infer"]["count"] for entry in found["batch_stats"]}
    return {
        "inference_count": found["inference_count"],
        "execution_count": found["execution_count"],
        "counts": counts,
        "batches": sizes,
    }


def ask_for_reasons(folder: Path) -> dict[str, str]:
    """Why each ensemble is not loaded, from the server's log; empty for one that is."""
    repository = folder / "refused"
    repository.mkdir()
    write(repository, LOADED)
    names = [each.name for each in (*ensemble_load_cases.GOOD, *ensemble_load_cases.BAD)]
    options = ("--exit-on-error=false", "--strict-readiness=false")
    with running(repository, free_port(), *options) as address:
        _, index = post(f"{address}/v2/repository/index", {}, b"")
    ready = {entry["name"] for entry in json.loads(index) if entry.get("state") == "READY"}
    log = (folder / "refused.log").read_text().splitlines()
    return {name: "" if name in ready else reason(name, log) for name in names}


def reason(name: str, log: list[str]) -> str:
    """What the log says of this ensemble, without what the log puts around it; empty when it says nothing."""
    for line in log:
        found = re.search(r'\] "(?:Invalid argument: |Poll failed for model directory \'[^\']+\': )?(.*)"$', line)
        if found is None:
            continue
        text = plain(found[1].replace("\\n", "\n"))
        subject, _, _ = text.removeprefix("circular dependency between ensembles: ").partition(" -> ")
        if re.search(rf"\b{name}\b", subject) and "Model '" not in subject.partition(name)[0]:
            return text
    return ""


def ask_for_answers(folder: Path) -> dict[str, Any]:
    """The answers to all requests, and the statistics and metadata after them."""
    repository = folder / "served"
    repository.mkdir()
    served = [each for each in ensemble_infer_cases.MODELS if each.name != "good_version_zero"]
    write(repository, tuple(served))
    stream_port = free_port()
    with running(repository, free_port(), "--allow-grpc=true", f"--grpc-port={stream_port}") as address:
        streamed = {case.name: ask_stream(f"127.0.0.1:{stream_port}", case) for case in ensemble_infer_cases.STREAMED}
        answers = {case.name: ask(address, case) for case in ensemble_infer_cases.CASES}
        numbers = {
            name: statistics(address, name)
            for name in ensemble_infer_cases.ensemble_names()
            if name != "good_version_zero"
        }
        return {"answers": answers, "streamed": streamed, "statistics": numbers}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        everything = {"reasons": ask_for_reasons(Path(temporary)), **ask_for_answers(Path(temporary))}
    RECORDED.write_text(json.dumps(everything, indent=1) + "\n")
