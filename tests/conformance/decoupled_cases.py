"""Python models that answer through response senders, decoupled ones and others, and what is asked of them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

EMPTY_FINAL = {"triton_enable_empty_final_response": True}

CONFIG = """
backend: "python"
max_batch_size: {max_batch_size}
input [ {{ name: "IN" data_type: TYPE_INT32 dims: [ 1 ] }} ]
output [ {{ name: "OUT" data_type: TYPE_INT32 dims: [ -1 ] }} ]
instance_group [ {{ kind: KIND_CPU }} ]
{more}
"""
DECOUPLED = "model_transaction_policy { decoupled: true }"

HEAD = """
import threading
import time

import numpy as np
import triton_python_backend_utils as pb_utils

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


def value(request):
    return pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()


def number(request):
    return int(value(request).ravel()[0])


def answer(elements):
    return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.asarray(elements, dtype=np.int32))])


def error(text, *code):
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(text, *code))


def attempt(call):
    try:
        return f"gave {call()!r}"
    except Exception as failure:
        return f"{type(failure).__name__}: {failure}"
"""

MODELS: dict[str, tuple[str, int, str]] = {
    "final_with_last": (
        """
        class TritonPythonModel:
            def execute(self, requests):
                for request in requests:
                    sender, count = request.get_response_sender(), number(request)
                    for place in range(count):
                        sender.send(answer([place]), flags=FINAL if place == count - 1 else 0)
                    if count == 0:
                        sender.send(flags=FINAL)
        """,
        0,
        DECOUPLED,
    ),
    "final_alone": (
        """
        class TritonPythonModel:
            def execute(self, requests):
                for request in requests:
                    sender = request.get_response_sender()
                    for place in range(number(request)):
                        sender.send(answer(np.full((len(value(request)), 2), place)))
                    sender.send(flags=FINAL)
        """,
        8,
        DECOUPLED + " dynamic_batching { max_queue_delay_microseconds: 100000 }",
    ),
    "from_a_thread": (
        """
        class TritonPythonModel:
            def execute(self, requests):
                for request in requests:
                    threading.Thread(target=self.send, args=(request.get_response_sender(), number(request))).start()

            def send(self, sender, count):
                for place in range(count):
                    time.sleep(0.2)
                    sender.send(answer([place]))
                sender.send(flags=FINAL)
        """,
        0,
        DECOUPLED,
    ),
    "errors": (
        """
        class TritonPythonModel:
            def execute(self, requests):
                sender = requests[0].get_response_sender()
                sender.send(answer([1]))
                sender.send(error("in the middle", pb_utils.TritonError.INVALID_ARG))
                sender.send(answer([2]))
                sender.send(error("at the end"), flags=FINAL)
        """,
        0,
        DECOUPLED,
    ),
    "raises": (
        """
        class TritonPythonModel:
            def execute(self, requests):
                for place in range(number(requests[0])):
                    requests[0].get_response_sender().send(answer([place]))
                raise ValueError("raised")
        """,
        0,
        DECOUPLED,
    ),
    "returns": (
        """
        class TritonPythonModel:
            def execute(self, requests):
                return [answer([1])]
        """,
        0,
        DECOUPLED,
    ),
    "tells": (
        """
        class TritonPythonModel:
            def execute(self, requests):
                request = requests[0]
                sender = request.get_response_sender()
                told = [
                    attempt(lambda: sender.send(None, 0)),
                    attempt(lambda: sender.send()),
                    attempt(lambda: sender.send(answer([1]), 2)),
                    attempt(lambda: sender.send(5)).split(":")[0],
                    attempt(lambda: request.get_response_sender() is sender),
                    attempt(lambda: sender.send(answer([7]))),
                    request.parameters(),
                    request.request_id(),
                ]
                sender.send(error("; ".join(told)), flags=FINAL)
        """,
        0,
        DECOUPLED,
    ),
    "closed": (
        """
        class TritonPythonModel:
            def initialize(self, args):
                self.told = []

            def execute(self, requests):
                sender = requests[0].get_response_sender()
                if self.told:
                    sender.send(error("; ".join(self.told)), flags=FINAL)
                    return
                sender.send(answer([1]), flags=FINAL)
                self.told = [attempt(lambda: sender.send(answer([9]))), attempt(lambda: sender.send(flags=FINAL))]
        """,
        0,
        DECOUPLED,
    ),
    "one_answer": (
        """
        class TritonPythonModel:
            def execute(self, requests):
                request = requests[0]
                sender, how = request.get_response_sender(), number(request)
                if how == 0:
                    sender.send(answer([how]), flags=FINAL)
                    return [None]
                if how == 1:
                    sender.send(answer([how]), flags=FINAL)
                    return None
                if how == 2:
                    told = attempt(lambda: sender.send(flags=FINAL))
                    sender.send(error(told), flags=FINAL)
                    return [None]
                if how == 3:
                    sender.send(answer([how]), flags=FINAL)
                    return [answer([-1])]
                if how == 4:
                    self.later(sender, answer([how]))
                    return None
                if how == 5:
                    self.later(sender, error("later", pb_utils.TritonError.NOT_FOUND))
                    return [None]
                return [answer([how])]

            def later(self, sender, response):
                def send():
                    time.sleep(0.2)
                    sender.send(response, flags=FINAL)

                threading.Thread(target=send).start()
        """,
        0,
        "",
    ),
    "slow": (
        """
        class TritonPythonModel:
            def execute(self, requests):
                time.sleep(number(requests[0]) / 1000)
                return [answer([number(request)]) for request in requests]
        """,
        0,
        "",
    ),
    "sequence": (
        """
        class TritonPythonModel:
            def execute(self, requests):
                for request in requests:
                    sender = request.get_response_sender()
                    for place in range(number(request)):
                        sender.send(answer([[place, request.correlation_id(), request.flags()]]))
                    sender.send(flags=FINAL)
        """,
        4,
        DECOUPLED + " sequence_batching { direct { } }",
    ),
    "ordered": (
        """
        class TritonPythonModel:
            def execute(self, requests):
                for request in requests:
                    threading.Thread(target=self.send, args=(request.get_response_sender(), number(request))).start()

            def send(self, sender, count):
                for place in range(count):
                    time.sleep(0.1)
                    sender.send(answer([[place]]))
                sender.send(flags=FINAL)
        """,
        4,
        DECOUPLED + " dynamic_batching { preserve_ordering: true }",
    ),
}
"""By name: the code, the largest batch, and the rest of the configuration."""


def write_models(repository: Path) -> None:
    """Write all models' folders."""
    for name, (code, max_batch_size, more) in MODELS.items():
        folder = repository / name / "1"
        folder.mkdir(parents=True)
        (folder / "model.py").write_text(HEAD + textwrap.dedent(code))
        (folder.parent / "config.pbtxt").write_text(CONFIG.format(max_batch_size=max_batch_size, more=more))


@dataclass(frozen=True)
class Asked:
    """One request.

    Attributes:
        model: of which model.
        number: the value of its input.
        rows: its batch size; 0 for a model without batching.
        request_id: its id.
        parameters: its parameters.
        version: the version it names.
        input: the name of its input.
    """

    model: str
    number: int
    rows: int = 0
    request_id: str = "x"
    parameters: Mapping[str, object] = field(default_factory=dict)
    version: str = ""
    input: str = "IN"


@dataclass(frozen=True)
class StreamCase:
    """Requests that one stream sends at once.

    Attributes:
        name: of the case.
        asked: the requests.
        status_errors: whether an error is to end the stream.
    """

    name: str
    asked: tuple[Asked, ...]
    status_errors: bool = False


STREAMS = (
    *(
        StreamCase(f"{model}: {count} responses{told}", (Asked(model, count, rows, parameters=parameters),))
        for model, rows in (("final_with_last", 0), ("final_alone", 1))
        for count in (0, 1, 3)
        for told, parameters in (("", {}), (", end wanted", EMPTY_FINAL))
    ),
    StreamCase("errors among responses", (Asked("errors", 1, parameters=EMPTY_FINAL),)),
    StreamCase("what a sender says", (Asked("tells", 0, request_id="me", parameters={**EMPTY_FINAL, "a": "b"}),)),
    StreamCase("what a closed sender says", (Asked("closed", 0), Asked("closed", 1))),
    StreamCase("a version is named", (Asked("final_alone", 1, 1, parameters=EMPTY_FINAL, version="1"),)),
    StreamCase(
        "the end is not wanted",
        (Asked("final_alone", 1, 1, parameters={"triton_enable_empty_final_response": False}),),
    ),
    StreamCase("the end is wanted in vain", (Asked("slow", 1, parameters=EMPTY_FINAL),)),
    StreamCase(
        "the end is wanted in the wrong type",
        (Asked("final_alone", 1, 1, parameters={"triton_enable_empty_final_response": 1}),),
    ),
    StreamCase("an input that is not there", (Asked("final_alone", 1, 1, input="NO"),)),
    StreamCase(
        "two requests in a batch",
        (
            Asked("final_alone", 2, 1, "a", parameters=EMPTY_FINAL),
            Asked("final_alone", 1, 2, "b", parameters=EMPTY_FINAL),
        ),
    ),
    StreamCase(
        "a decoupled request does not keep others", (Asked("from_a_thread", 1, 0, "a"), Asked("slow", 1, 0, "b"))
    ),
    StreamCase(
        "others do not keep a decoupled request", (Asked("slow", 500, 0, "a"), Asked("from_a_thread", 1, 0, "b"))
    ),
    StreamCase("others keep their order", (Asked("slow", 300, 0, "a"), Asked("one_answer", 9, 0, "b"))),
    StreamCase(
        "a sequence, direct",
        tuple(
            Asked(
                "sequence", count, 1, str(count), {"sequence_id": 7, "sequence_start": start, "sequence_end": not start}
            )
            for count, start in ((2, True), (1, False))
        ),
    ),
    StreamCase(
        "preserve_ordering",
        (
            Asked("ordered", 3, 1, "a", parameters=EMPTY_FINAL),
            Asked("ordered", 1, 1, "b", parameters=EMPTY_FINAL),
        ),
    ),
    *(
        StreamCase(f"one answer: {how}", (Asked("one_answer", number, parameters=EMPTY_FINAL),))
        for number, how in enumerate(
            (
                "sent, [None] returned",
                "sent, None returned",
                "the end before the answer",
                "sent and returned",
                "sent later",
                "an error later",
                "returned",
            )
        )
    ),
    StreamCase("execute raises at once", (Asked("raises", 0, parameters=EMPTY_FINAL),)),
    StreamCase("execute raises after two responses", (Asked("raises", 2, parameters=EMPTY_FINAL),)),
    StreamCase("execute returns something", (Asked("returns", 0, parameters=EMPTY_FINAL),)),
    # The last one, for the real Triton crashes soon after it.
    StreamCase("errors end the stream", (Asked("errors", 1, parameters=EMPTY_FINAL),), status_errors=True),
)

UNARY = {
    "decoupled": Asked("final_alone", 1, 1),
    "decoupled, and wrong besides": Asked("final_alone", 1, 1, input="NO"),
    "one answer, sent": Asked("one_answer", 0),
    "one answer, sent later": Asked("one_answer", 4),
    "one answer, an error later": Asked("one_answer", 5),
}
"""Requests that are sent by themselves, over HTTP and over ``ModelInfer``."""
