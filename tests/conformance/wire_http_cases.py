"""HTTP requests, good and bad, that the real Triton and Shoal are both sent."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

LENGTH = "Inference-Header-Content-Length"
WELL, BROKEN = "well", "broken"


@dataclass(frozen=True)
class HttpCase:
    """One HTTP request; ``server`` says whether it goes to the server where one model is broken."""

    name: str
    method: str
    path: str
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    server: str = WELL


def get(path: str, server: str = WELL) -> HttpCase:
    """A GET."""
    return HttpCase(f"GET {path}" + (f" ({server})" if server != WELL else ""), "GET", path, server=server)


def tensor(name: str, datatype: str, shape: list[int], data: object = None, **parameters: object) -> dict[str, object]:
    """One input of a request's JSON."""
    given: dict[str, object] = {"name": name, "datatype": datatype, "shape": shape}
    if data is not None:
        given["data"] = data
    return given | ({"parameters": parameters} if parameters else {})


def infer(
    name: str,
    model: str,
    *inputs: object,
    headers: dict[str, str] | None = None,
    tail: bytes | None = None,
    **more: object,
) -> HttpCase:
    """An infer request, with ``tail`` behind its JSON."""
    text = json.dumps({"inputs": list(inputs), **more}).encode()
    headers = dict(headers or {})
    if tail is not None:
        headers.setdefault(LENGTH, str(len(text)))
    return HttpCase(name, "POST", f"/v2/models/{model}/infer", text + (tail or b""), headers)


def raw(name: str, model: str, body: bytes) -> HttpCase:
    """A raw binary request (rule 2)."""
    return HttpCase(name, "POST", f"/v2/models/{model}/infer", body, {LENGTH: "0"})


def output(name: str, **parameters: object) -> dict[str, object]:
    """One requested output."""
    return {"name": name, "parameters": parameters} if parameters else {"name": name}


ROW = list(range(16))
A, B = tensor("A", "INT32", [1, 16], ROW), tensor("B", "INT32", [1, 16], [1] * 16)
TWO = struct.pack("<2f", 1, 2)
SMALL = tensor("A", "FP32", [2], [1, 2])
SCORES = tensor("A", "FP32", [1, 4], [0.25, -1.5, 8, 3])
BINARY_A = tensor("A", "INT32", [1, 16], binary_data_size=64)
BINARY_B = tensor("B", "INT32", [1, 16], binary_data_size=64)
INTS = struct.pack("<16i", *ROW)


def server_cases() -> Iterator[HttpCase]:
    """Health, metadata, configuration, paths and verbs."""
    yield from map(
        get, ["/v2", "/v2/", "/v2/health/live", "/v2/health/ready", "/v2/health/live/", "/v2/health/ready?x=1"]
    )
    yield from map(get, ["/", "/v2/nothing", "/v2/models", "/v2/models/", "/v2/health", "/v3", "/metrics", "/v2?x=1"])
    yield from (get(path, BROKEN) for path in ("/v2/health/live", "/v2/health/ready", "/v2", "/v2/models/broken"))
    yield from (get(f"/v2/models/broken{end}", BROKEN) for end in ("/ready", "/versions/1/ready", "/versions/2/ready"))
    yield from (
        get(f"/v2/models/broken{end}", BROKEN) for end in ("/config", "/stats", "/versions/1", "/versions/1/config")
    )
    yield HttpCase("infer on broken", "POST", "/v2/models/broken/infer", infer("", "", SMALL).body, {}, BROKEN)
    yield HttpCase(
        "infer on broken 1", "POST", "/v2/models/broken/versions/1/infer", infer("", "", SMALL).body, {}, BROKEN
    )
    for end in ("", "/config", "/ready", "/stats"):
        yield get(f"/v2/models/absent{end}")
        yield get(f"/v2/models/versions/versions/2{end}")
        yield get(f"/v2/models/versions/versions/9{end}")
        yield get(f"/v2/models/add_sub/versions/x{end}")
        yield get(f"/v2/models/add_sub/versions/99999999999999999999{end}")
    for name in ("add_sub", "types", "whole", "word", "reshaped", "settings", "scores", "versions"):
        yield get(f"/v2/models/{name}")
        yield get(f"/v2/models/{name}/config")
    yield from map(
        get, ["/v2/models/versions/versions/1", "/v2/models/versions/versions/1/ready", "/v2/models/add_sub/ready"]
    )
    yield from map(get, ["/v2/models/add_sub/", "/v2/models/add_sub/ready/", "/v2/models/add_sub/versions/01/ready"])
    yield from map(
        get, ["/v2/models/add_sub/versions/-1", "/v2/models/add_sub/versions/0", "/v2/models/add%5Fsub/ready"]
    )
    yield from map(get, ["/v2/models/unused/stats", "/v2/models/unused/versions/1/stats", "/v2/models/add_sub/infer"])
    for method in ("POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"):
        yield HttpCase(f"{method} live", method, "/v2/health/live")
        yield HttpCase(f"{method} unknown", method, "/v2/nothing")
        yield HttpCase(f"{method} config", method, "/v2/models/add_sub/config")
        if method != "POST":
            yield HttpCase(f"{method} infer", method, "/v2/models/add_sub/infer", infer("", "", A, B).body)


def infer_cases() -> Iterator[HttpCase]:
    """Infer requests in JSON."""
    yield infer("JSON", "add_sub", A, B)
    yield infer("JSON, id", "add_sub", A, B, id="seven")
    yield infer("JSON, two rows", "add_sub", *(tensor(name, "INT32", [2, 16], [ROW, ROW]) for name in "AB"))
    yield infer("JSON, inputs in the other order", "add_sub", B, A)
    yield infer("JSON, one output", "add_sub", A, B, outputs=[output("DIFFERENCE")])
    yield infer("JSON, outputs in the other order", "add_sub", A, B, outputs=[output("DIFFERENCE"), output("SUM")])
    yield infer("JSON, no outputs listed", "add_sub", A, B, outputs=[])
    yield infer("JSON, unknown output", "add_sub", A, B, outputs=[output("PRODUCT")])
    yield infer("JSON, an output twice", "add_sub", A, B, outputs=[output("SUM"), output("SUM")])
    yield infer("missing input", "add_sub", A)
    yield infer("no inputs", "add_sub")
    yield infer("unknown input", "add_sub", A, B, tensor("C", "INT32", [1], [1]))
    yield infer("an input twice", "add_sub", A, A)
    yield infer("wrong type", "add_sub", A, tensor("B", "FP32", [1, 16], [1.5] * 16), id="t")
    yield infer("wrong shape", "add_sub", A, tensor("B", "INT32", [1, 15], [1] * 15))
    yield infer("wrong rank", "add_sub", A, tensor("B", "INT32", [16], [1] * 16))
    yield infer("too many rows", "add_sub", *(tensor(name, "INT32", [9, 16], ROW * 9) for name in "AB"))
    yield infer("rows differ", "add_sub", A, tensor("B", "INT32", [2, 16], ROW * 2))
    yield infer("no rows", "add_sub", *(tensor(name, "INT32", [0, 16], []) for name in "AB"))
    yield infer("an empty row", "matrix", tensor("A", "FP32", [1, 0, 2], []))
    yield infer("a scalar", "whole", tensor("A", "FP32", [], [1]))
    yield infer("unbatched", "whole", SMALL)
    yield infer("unbatched, no elements", "whole", tensor("A", "FP32", [0], []))
    yield infer("version 1", "versions/versions/1", tensor("A", "FP32", [1, 2], [1, 2]))
    yield infer("version 2 is not served", "versions/versions/2", tensor("A", "FP32", [1, 2], [1, 2]))
    yield infer("newest version", "versions", tensor("A", "FP32", [1, 2], [1, 2]))
    yield infer("unknown model", "absent", SMALL)
    yield infer("NaN and infinities", "whole", tensor("A", "FP32", [3], [float("nan"), float("inf"), float("-inf")]))
    yield infer("reshaped", "reshaped", tensor("A", "FP32", [3, 1], [1, 2, 3]))
    yield infer("reshaped, variable", "reshaped_whole", tensor("A", "FP32", [2, 3], [1, 2, 3, 4, 5, 6]))
    yield infer("reshaped, wrong", "reshaped", tensor("A", "FP32", [1, 2], [1, 2]))
    yield infer("optional left out", "seen", tensor("A", "FP32", [1, 1], [1]))
    yield infer("optional given", "seen", tensor("A", "FP32", [1, 1], [1]), tensor("B", "FP32", [1, 3], [1, 2, 3]))
    yield infer("only the optional one", "seen", tensor("B", "FP32", [1, 3], [1, 2, 3]))
    yield infer("too many inputs", "seen", *(tensor(name, "FP32", [1, 1], [1]) for name in "ABC"))
    given = {"colour": "red", "number": 7, "truth": True, "half": 0.5, "priority": 3, "timeout": 1000}
    yield infer("parameters", "seen", tensor("A", "FP32", [1, 1], [1]), parameters=given, id="p")
    yield from json_types()
    for code in (-1, 0, 1, 2, 3, 4, 5, 6, 20, 21, 22, 23, 24, 25, 26):
        yield infer(f"the model answers {code}", "answers", tensor("A", "INT32", [1, 1], [code]), id="x")
    yield infer(
        "an output that the model leaves out", "answers", tensor("A", "INT32", [1, 1], [21]), outputs=[output("B")]
    )
    for text in (b"", b"{", b"[]", b"null", b'{"inputs":5}', b"\xff", b"[" * 200):
        yield HttpCase(f"body {text[:20]!r}", "POST", "/v2/models/add_sub/infer", text)


def json_types() -> Iterator[HttpCase]:
    """Every type with its extremes, in JSON, both ways."""
    values: dict[str, list[object]] = {
        "BOOL": [True, False],
        "UINT8": [0, 255],
        "UINT16": [0, 2**16 - 1],
        "UINT32": [0, 2**32 - 1],
        "UINT64": [0, 2**64 - 1],
        "INT8": [-128, 127],
        "INT16": [-(2**15), 2**15 - 1],
        "INT32": [-(2**31), 2**31 - 1],
        "INT64": [-(2**63), 2**63 - 1],
        "FP32": [0.1, -1e30, 3, 1e-40],
        "FP64": [0.1, -1e300, 3, 1 / 3],
    }
    for datatype, given in values.items():
        yield infer(f"{datatype} in JSON", "types", tensor(datatype, datatype, [1, len(given)], given))
    words = ["", "word", 'quote " and \\', "zwölf", "\n\t", "\u2028", "nul \0"]
    yield infer("BYTES in JSON", "types", tensor("STRING", "BYTES", [1, len(words)], words))
    yield infer("FP16 in JSON", "types", tensor("FP16", "FP16", [1, 1], [1]))
    halves = tensor("FP16", "FP16", [1, 2], binary_data_size=4)
    yield infer("FP16 out in JSON", "types", halves, tail=b"\0\x3c\0\x3d")
    yield infer("FP16 in binary", "types", halves, tail=b"\0\x3c\0\x3d", outputs=[output("FP16_OUT", binary_data=True)])
    element = struct.pack("<I", 2) + b"\xff\xfe"
    strange = tensor("STRING", "BYTES", [1, 1], binary_data_size=6)
    yield infer(
        "BYTES that is no text, in binary", "types", strange, tail=element, parameters={"binary_data_output": True}
    )
    yield infer("a value out of range", "types", tensor("INT8", "INT8", [1, 1], [300]))
    yield infer("two types", "types", tensor("INT8", "INT8", [1, 1], [3]), tensor("BOOL", "BOOL", [1, 1], [True]))


def binary_cases() -> Iterator[HttpCase]:
    """Binary, raw, classified and compressed."""
    both = {"binary_data_output": True}
    yield infer("binary in", "add_sub", BINARY_A, BINARY_B, tail=INTS * 2)
    yield infer("binary in and out", "add_sub", BINARY_A, BINARY_B, tail=INTS * 2, parameters=both, id="b")
    wanted = [output("SUM", binary_data=True), output("DIFFERENCE")]
    yield infer("binary and JSON out", "add_sub", BINARY_A, B, tail=INTS, outputs=wanted)
    yield infer("JSON out, listed", "add_sub", A, B, outputs=[output("SUM")], parameters=both)
    yield infer("JSON in, binary out", "add_sub", A, B, parameters=both)
    yield infer("binary, too little", "add_sub", BINARY_A, BINARY_B, tail=INTS)
    yield infer("binary, too much", "add_sub", BINARY_A, BINARY_B, tail=INTS * 3)
    yield infer("binary, wrong size", "add_sub", tensor("A", "INT32", [1, 16], binary_data_size=60), B, tail=INTS[:60])
    for text in ("-1", "x", "", "5", "9999", "0x10"):
        yield infer(f"header length {text!r}", "add_sub", BINARY_A, BINARY_B, tail=INTS * 2, headers={LENGTH: text})
    yield infer("no elements, binary", "whole", tensor("A", "FP32", [0], binary_data_size=0), tail=b"", parameters=both)
    yield infer("BYTES cut off", "types", tensor("STRING", "BYTES", [1, 1], binary_data_size=5), tail=b"\5\0\0\0x")
    yield infer("BYTES, one too few", "types", tensor("STRING", "BYTES", [1, 2], binary_data_size=5), tail=b"\1\0\0\0x")
    yield raw("raw", "whole", TWO)
    yield raw("raw, batched", "matrix", TWO * 3)
    yield raw("raw, no multiple", "matrix", TWO + b"x")
    yield raw("raw, empty", "whole", b"")
    yield raw("raw, BYTES", "word", b"hello")
    yield raw("raw, two inputs", "add_sub", INTS)
    yield raw("raw, fixed", "scores", TWO * 2)
    yield raw("raw, fixed, too short", "scores", TWO)
    yield raw("raw, unknown model", "absent", TWO)
    yield from classified()
    yield from compressed()


def classified() -> Iterator[HttpCase]:
    """The classification extension."""
    for count in (1, 3, 4, 9):
        yield infer(f"{count} classes", "scores", SCORES, outputs=[output("A_OUT", classification=count)])
    yield infer("classes, binary", "scores", SCORES, outputs=[output("A_OUT", classification=2, binary_data=True)])
    yield infer("classes, 0", "scores", SCORES, outputs=[output("A_OUT", classification=0)])
    rows = tensor("A", "FP32", [2, 4], [1, 2, 3, 4, 4, 4, 2, 1])
    yield infer("classes of two rows, with equals", "scores", rows, outputs=[output("A_OUT", classification=3)])
    integers = tensor("A", "INT32", [4], [3, -7, 9, 0])
    yield infer("classes of integers", "integers", integers, outputs=[output("A_OUT", classification=2)])
    halves = tensor("FP16", "FP16", [1, 2], binary_data_size=4)
    half_classes = [output("FP16_OUT", classification=1)]
    yield infer("classes of FP16", "types", halves, tail=b"\0\x3c\0\x3d", outputs=half_classes)


def compressed() -> Iterator[HttpCase]:
    """Content encodings."""
    plain = infer("", "add_sub", A, B)
    for encoding, squeeze in (("gzip", gzip.compress), ("deflate", zlib.compress)):
        headers = {"Content-Encoding": encoding, "Accept-Encoding": encoding}
        yield HttpCase(f"{encoding} both ways", "POST", plain.path, squeeze(plain.body), headers)
        yield HttpCase(
            f"{encoding} damaged", "POST", plain.path, squeeze(plain.body)[:-20], {"Content-Encoding": encoding}
        )
        yield HttpCase(f"{encoding} is not", "POST", plain.path, plain.body, {"Content-Encoding": encoding})
    binary = infer("", "add_sub", BINARY_A, BINARY_B, tail=INTS * 2, parameters={"binary_data_output": True})
    headers = binary.headers | {"Content-Encoding": "gzip", "Accept-Encoding": "gzip"}
    yield HttpCase("gzip, binary", "POST", plain.path, gzip.compress(binary.body), headers)
    for encoding in ("br", "identity", "GZIP", "gzip, deflate"):
        yield HttpCase(f"encoding {encoding}", "POST", plain.path, plain.body, {"Content-Encoding": encoding})
    accepted = "br", "*", "identity", "gzip;q=0", "deflate;q=0.5, gzip;q=0.9", "gzip;q=0.1, identity", "GZIP", ""
    for accept in accepted:
        yield HttpCase(f"accept {accept}", "POST", plain.path, plain.body, {"Accept-Encoding": accept})
    yield HttpCase("metadata, gzip", "GET", "/v2/models/add_sub", headers={"Accept-Encoding": "gzip"})
    refused = infer("", "add_sub", A)
    yield HttpCase("error, gzip", "POST", plain.path, refused.body, {"Accept-Encoding": "gzip"})
    yield HttpCase("another content type", "POST", plain.path, plain.body, {"Content-Type": "text/plain"})


def statistics_cases() -> Iterator[HttpCase]:
    """Requests whose only model is ``counted``, and what the statistics say of them."""
    yield infer("counted, one row", "counted", tensor("A", "FP32", [1, 2], [1, 2]))
    yield infer("counted, three rows", "counted", tensor("A", "FP32", [3, 2], [1, 2, 3, 4, 5, 6]))
    yield infer("counted, three rows again", "counted", tensor("A", "FP32", [3, 2], [1, 2, 3, 4, 5, 6]))
    yield infer("counted, refused", "counted", tensor("A", "FP32", [3, 3], [1] * 9))
    yield get("/v2/models/counted/stats")
    yield get("/v2/models/counted/versions/1/stats")
    yield get("/v2/models/stats", BROKEN)


CASES = (*server_cases(), *infer_cases(), *binary_cases(), *statistics_cases())
