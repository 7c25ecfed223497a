"""Unusual infer requests, each for a small model: what admission and the real Triton are both asked."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field, replace

from shoal.config.spec import BatchingSpec, InstanceKind, InstanceSpec, ModelSpec, TensorSpec
from shoal.datatypes import BY_WIRE, DataType
from shoal.requests import LATEST, InferHead, InputHead, OutputHead

FP32, FP16, INT32, BYTES = DataType.FP32, DataType.FP16, DataType.INT32, DataType.BYTES


def tensor(name: str, datatype: DataType, *dims: int, **more: object) -> TensorSpec:
    return TensorSpec(name, datatype, dims, **more)  # type: ignore[arg-type]


def model(
    name: str, max_batch_size: int, inputs: list[TensorSpec], outputs: list[TensorSpec] | None = None
) -> ModelSpec:
    instance = InstanceSpec(f"{name}_0", InstanceKind.CPU, 0)
    made = tuple(outputs or [tensor("OUT", FP32, 1)])
    return ModelSpec(name, 1, "python", "python", max_batch_size, tuple(inputs), made, (instance,))


MODELS = {
    spec.name: spec
    for spec in (
        model(
            "pair",
            8,
            [tensor("A", INT32, 16), tensor("B", INT32, 16)],
            [tensor("SUM", INT32, 16), tensor("DIFFERENCE", INT32, 16)],
        ),
        model("variable", 4, [tensor("A", FP32, -1, 4)]),
        model("whole", 0, [tensor("A", FP32, 2, 3)]),
        model("whole_variable", 0, [tensor("A", FP32, -1, 3)]),
        model("words", 4, [tensor("A", BYTES, -1)], [tensor("OUT", BYTES, 1)]),
        model("word", 0, [tensor("A", BYTES, 1)]),
        model("word_row", 4, [tensor("A", BYTES, 1)]),
        model(
            "optional",
            8,
            [tensor("A", INT32, 1), tensor("B", INT32, 1, optional=True), tensor("C", INT32, 1, optional=True)],
        ),
        model("reshaped", 8, [tensor("A", INT32, 1, reshape=())]),
        model("reshaped_variable", 8, [tensor("A", INT32, -1, 1, -1, reshape=(-1, -1))]),
        model("two_variable", 4, [tensor("A", FP32, -1, -1)]),
        model("fixed", 4, [tensor("A", FP32, 2)]),
        model("half", 4, [tensor("A", FP32, 2)], [tensor("OUT", FP16, 2)]),
        model("truth", 4, [tensor("A", FP32, 2)], [tensor("OUT", DataType.BOOL, 2)]),
        replace(model("batching", 4, [tensor("A", FP32, -1)]), batching=BatchingSpec()),
    )
}


@dataclass(frozen=True)
class Tensor:
    """One input of a case; all data travels as bytes."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True)
class Case:
    """One infer request.

    Attributes:
        name: what is special about it.
        model: the model it is for.
        inputs: in the request's order.
        outputs: names asked for.
        classification: how many top classes to ask for, of every output.
        request_id: the client's id.
        parameters: the request's parameters.
        raw: the body of a raw binary request in place of all else.
    """

    name: str
    model: str
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[str, ...] = ()
    classification: int = 0
    request_id: str = ""
    parameters: dict[str, bool | int | float | str] = field(default_factory=dict)
    raw: bytes | None = None


def zeros(name: str, datatype: str, *shape: int, count: int | None = None) -> Tensor:
    """An input whose data has the bytes of ``count`` elements, or of as many as the shape has."""
    elements = count
    if elements is None:
        elements = 1
        for dimension in shape:
            elements *= dimension
    return Tensor(name, datatype, shape, bytes(elements * BY_WIRE[datatype].itemsize))


def words(*shape: int, data: bytes) -> tuple[Tensor, ...]:
    return (Tensor("A", "BYTES", shape, data),)


def word(text: bytes) -> bytes:
    return struct.pack("<I", len(text)) + text


A, B = zeros("A", "INT32", 1, 16), zeros("B", "INT32", 1, 16)

CASES = (
    Case("good", "pair", (A, B)),
    Case("good, outputs in another order", "pair", (A, B), outputs=("DIFFERENCE", "SUM")),
    Case("unknown input in place of one", "pair", (A, zeros("X", "INT32", 1, 16))),
    Case("unknown input besides all", "pair", (A, B, zeros("X", "INT32", 1, 16))),
    Case("only an unknown input", "pair", (zeros("X", "INT32", 1, 16),)),
    Case("one input missing", "pair", (A,)),
    Case("the other input missing, with id", "pair", (B,), request_id="seven"),
    Case("no input", "pair"),
    Case("input twice", "pair", (A, A)),
    Case("input twice, with id", "pair", (A, A), request_id="seven"),
    Case("input twice besides all", "pair", (A, B, B)),
    Case("unknown output", "pair", (A, B), outputs=("NOPE",)),
    Case("unknown output, with id", "pair", (A, B), outputs=("SUM", "NOPE"), request_id="seven"),
    Case("output twice", "pair", (A, B), outputs=("SUM", "SUM")),
    Case("two unknown outputs", "pair", (A, B), outputs=("ZERO", "NOPE")),
    Case("unknown output and missing input", "pair", (A,), outputs=("NOPE",)),
    Case("wrong type of the first", "pair", (zeros("A", "FP32", 1, 16), B)),
    Case("wrong type of both", "pair", (zeros("A", "FP32", 1, 16), zeros("B", "INT64", 1, 16))),
    Case("wrong type and wrong shape", "pair", (zeros("A", "FP32", 1, 8), B)),
    Case("wrong shape of the first", "pair", (zeros("A", "INT32", 1, 8), B)),
    Case("wrong shape of both", "pair", (zeros("A", "INT32", 1, 8), zeros("B", "INT32", 1, 9))),
    Case("wrong rank", "pair", (zeros("A", "INT32", 16), B)),
    Case("wrong rank of both", "pair", (zeros("A", "INT32", 16), zeros("B", "INT32", 16))),
    Case("rank too high", "pair", (zeros("A", "INT32", 1, 16, 1), zeros("B", "INT32", 1, 16, 1))),
    Case("no shape", "pair", (zeros("A", "INT32"), zeros("B", "INT32"))),
    Case("one without shape", "pair", (zeros("A", "INT32"), B)),
    Case("batch sizes differ", "pair", (zeros("A", "INT32", 2, 16), B)),
    Case("batch sizes differ, a zero last", "pair", (zeros("A", "INT32", 2, 16), zeros("B", "INT32", 0, 16))),
    Case("batch sizes differ, a zero first", "pair", (zeros("A", "INT32", 0, 16), zeros("B", "INT32", 2, 16))),
    Case("batch too large", "pair", (zeros("A", "INT32", 9, 16), zeros("B", "INT32", 9, 16))),
    Case("batch too large and wrong shape", "pair", (zeros("A", "INT32", 9, 8), zeros("B", "INT32", 9, 16))),
    Case("full batch", "pair", (zeros("A", "INT32", 8, 16), zeros("B", "INT32", 8, 16))),
    Case("no rows", "pair", (zeros("A", "INT32", 0, 16), zeros("B", "INT32", 0, 16))),
    Case("too few bytes", "pair", (zeros("A", "INT32", 1, 16, count=15), B)),
    Case("too many bytes", "pair", (zeros("A", "INT32", 1, 16, count=17), B), request_id="seven"),
    Case("wrong bytes in both", "pair", (zeros("A", "INT32", 1, 16, count=17), zeros("B", "INT32", 1, 16, count=3))),
    Case("no bytes", "pair", (zeros("A", "INT32", 1, 16, count=0), B)),
    Case("good variable", "variable", (zeros("A", "FP32", 2, 5, 4),)),
    Case("variable, wrong fixed dimension", "variable", (zeros("A", "FP32", 2, 5, 3),)),
    Case("variable of no elements", "variable", (zeros("A", "FP32", 2, 0, 4),)),
    Case("variable of no elements with bytes", "variable", (zeros("A", "FP32", 2, 0, 4, count=1),)),
    Case("whole, good", "whole", (zeros("A", "FP32", 2, 3),)),
    Case("whole, wrong shape", "whole", (zeros("A", "FP32", 3, 2),)),
    Case("whole, wrong rank", "whole", (zeros("A", "FP32", 1, 2, 3),)),
    Case("whole, no shape", "whole", (zeros("A", "FP32"),)),
    Case("whole, wrong bytes", "whole", (zeros("A", "FP32", 2, 3, count=7),)),
    Case("whole, unknown input", "whole", (zeros("X", "FP32", 2, 3),)),
    Case("whole variable, no elements", "whole_variable", (zeros("A", "FP32", 0, 3),)),
    Case("words, good", "words", words(2, 2, data=word(b"a") + word(b"") + word(b"bcd") + word(b"e"))),
    Case("words, one too few", "words", words(2, 2, data=word(b"a") + word(b"b") + word(b"c"))),
    Case("words, one too many", "words", words(1, 2, data=word(b"a") + word(b"b") + word(b"c"))),
    Case("words, three too many", "words", words(1, 2, data=b"".join(word(b"%d" % n) for n in range(5)))),
    Case("words, one too many, truncated", "words", words(1, 2, data=word(b"a") + word(b"b") + word(b"cdef")[:-2])),
    Case("words, truncated with a length inside", "words", words(1, 3, data=word(b"a") + word(b"b" + word(b"c"))[:-1])),
    Case("words, a length beyond 31 bits", "words", words(1, 1, data=b"\xff\xff\xff\xffabc")),
    Case("words, none", "words", words(1, 2, data=b"")),
    Case("words, truncated last", "words", words(1, 2, data=word(b"a") + word(b"bcdef")[:-2])),
    Case("words, truncated first", "words", words(1, 2, data=struct.pack("<I", 100) + b"abc")),
    Case("words, split length", "words", words(1, 2, data=word(b"a") + b"\x01\x00")),
    Case("words, split length beyond the last", "words", words(1, 2, data=word(b"a") + word(b"b") + b"\x01")),
    Case("words, length with no string", "words", words(1, 2, data=word(b"a") + struct.pack("<I", 5))),
    Case("words, no elements", "words", words(2, 0, data=b"")),
    Case("words, no elements with bytes", "words", words(2, 0, data=word(b"a"))),
    Case("words, with id", "words", words(1, 1, data=b"\x01"), request_id="seven"),
    Case("words, wrong shape", "words", words(1, 1, 1, data=word(b"a"))),
    Case("optional, all", "optional", tuple(zeros(name, "INT32", 1, 1) for name in "ABC")),
    Case("optional, none of them", "optional", (zeros("A", "INT32", 1, 1),)),
    Case("optional, required missing", "optional", (zeros("B", "INT32", 1, 1),)),
    Case("optional, required missing of two", "optional", tuple(zeros(name, "INT32", 1, 1) for name in "BC")),
    Case("optional, nothing", "optional"),
    Case("optional, too many", "optional", tuple(zeros(name, "INT32", 1, 1) for name in ("C", "A", "B", "MORE"))),
    Case("optional, unknown", "optional", tuple(zeros(name, "INT32", 1, 1) for name in "AX")),
    Case("optional, only unknown", "optional", (zeros("X", "INT32", 1, 1),)),
    Case("reshaped, good", "reshaped", (zeros("A", "INT32", 2, 1),)),
    Case("reshaped, the backend's shape", "reshaped", (zeros("A", "INT32", 2),)),
    Case("reshaped variable, good", "reshaped_variable", (zeros("A", "INT32", 2, 3, 1, 4),)),
    Case("reshaped variable, wrong", "reshaped_variable", (zeros("A", "INT32", 2, 3, 2, 4),)),
    Case("classes", "pair", (A, B), outputs=("SUM",), classification=3),
    Case("classes of halves", "half", (zeros("A", "FP32", 1, 2),), outputs=("OUT",), classification=1),
    Case("classes of truths", "truth", (zeros("A", "FP32", 1, 2),), outputs=("OUT",), classification=1),
    Case("classes of halves, unknown input", "half", (zeros("X", "FP32", 1, 2),), outputs=("OUT",), classification=1),
    Case("classes of all too many", "pair", (A, B), outputs=("SUM",), classification=2_000_000),
    Case("priority without levels", "batching", (zeros("A", "FP32", 1, 2),), parameters={"priority": 7}),
    Case("raw, fixed", "fixed", raw=bytes(8)),
    Case("raw, fixed, too short", "fixed", raw=bytes(4)),
    Case("raw, fixed, too long", "fixed", raw=bytes(12)),
    Case("raw, variable", "variable", raw=bytes(48)),
    Case("raw, variable, not divisible", "variable", raw=bytes(50)),
    Case("raw, variable, empty", "variable", raw=b""),
    Case("raw, whole", "whole", raw=bytes(24)),
    Case("raw, whole variable", "whole_variable", raw=bytes(24)),
    Case("raw, two variable", "two_variable", raw=bytes(24)),
    Case("raw, two inputs", "pair", raw=bytes(24)),
    Case("raw, one required of three", "optional", raw=bytes(4)),
    Case("raw, word", "word", raw=b"hello"),
    Case("raw, word, empty", "word", raw=b""),
    Case("raw, word with rows", "word_row", raw=b"hello"),
    Case("raw, words", "words", raw=b"hello"),
    Case("raw, reshaped", "reshaped", raw=bytes(4)),
)


def head_of(case: Case) -> InferHead:
    """The request as the protocols decode it."""
    return InferHead(
        model_name=case.model,
        model_version=LATEST,
        request_id=case.request_id,
        inputs=tuple(InputHead(each.name, BY_WIRE[each.datatype], each.shape, len(each.data)) for each in case.inputs),
        outputs=tuple(OutputHead(name, True, case.classification) for name in case.outputs),
        parameters=case.parameters,
        raw=case.raw is not None,
    )


def http_of(case: Case) -> tuple[dict[str, str], bytes]:
    """The same request as HTTP headers and body."""
    if case.raw is not None:
        return {"Inference-Header-Content-Length": "0"}, case.raw
    message: dict[str, object] = {
        "inputs": [
            {
                "name": each.name,
                "datatype": each.datatype,
                "shape": each.shape,
                "parameters": {"binary_data_size": len(each.data)},
            }
            for each in case.inputs
        ]
    }
    if case.outputs:
        wanted = {"binary_data": True} | ({"classification": case.classification} if case.classification else {})
        message["outputs"] = [{"name": name, "parameters": wanted} for name in case.outputs]
    if case.request_id:
        message["id"] = case.request_id
    if case.parameters:
        message["parameters"] = case.parameters
    text = json.dumps(message).encode()
    return {"Inference-Header-Content-Length": str(len(text))}, text + b"".join(each.data for each in case.inputs)
