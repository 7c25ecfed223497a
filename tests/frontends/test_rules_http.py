"""Every rule of the framing of HTTP infer requests, over a real socket; rules have the numbers of the reference."""

from __future__ import annotations

import gzip
import json
import math
import struct
import zlib

import pytest

from tests.clients import HEADER_LENGTH, ask, body_of, infer, tensor

TWO = struct.pack("<2f", 1, 2)
TWICE = struct.pack("<2f", 2, 4)
IN = tensor("IN", [2], [1, 2])
BINARY = tensor("IN", [2], binary_data_size=8)
A, B = tensor("A", [1, 2], [5, 6], "INT32"), tensor("B", [1, 2], [1, 2], "INT32")
BINARY_A, BINARY_B = (tensor(name, [1, 2], None, "INT32", binary_data_size=8) for name in "AB")
INTS_A, INTS_B = struct.pack("<2i", 5, 6), struct.pack("<2i", 1, 2)


def raw(shoal, model, body):
    return ask(shoal.http, "POST", f"/v2/models/{model}/infer", body, {HEADER_LENGTH: "0"})


def outputs_of(reply):
    assert reply.status == 200, reply.body
    return {output["name"]: output for output in reply.json["outputs"]}


def data_of(reply):
    return {name: output["data"] for name, output in outputs_of(reply).items()}


class TestRule1:
    """The JSON header is as long as the request says, or the whole body."""

    def test_without_a_length_the_body_is_all_json(self, shoal):
        assert data_of(infer(shoal.http, "unbatched", IN)) == {"OUT": [2, 4]}

    def test_with_a_length_what_follows_is_data(self, shoal):
        assert data_of(infer(shoal.http, "unbatched", BINARY, tail=TWO)) == {"OUT": [2, 4]}

    @pytest.mark.parametrize("length", ["-1", "100000", "x", "1.0"])
    def test_a_length_that_cannot_be_is_refused(self, shoal, length):
        reply = infer(shoal.http, "unbatched", BINARY, tail=TWO, headers={HEADER_LENGTH: length})
        assert reply.status == 400


class TestRule2:
    """A header of length 0: the whole body is the one input, and all outputs come back binary."""

    def test_the_variable_dimension_is_that_of_the_body(self, shoal):
        reply = raw(shoal, "unbatched", TWO)
        assert outputs_of(reply)["OUT"]["shape"] == [2]
        assert reply.binary == TWICE

    def test_a_batching_model_gets_one_row(self, shoal):
        reply = raw(shoal, "matrix", TWO * 3)
        assert outputs_of(reply)["OUT"]["shape"] == [1, 3, 2]
        assert reply.binary == TWICE * 3

    def test_bytes_get_their_length_from_the_server(self, shoal):
        reply = raw(shoal, "word", b"hello \xff")
        assert reply.binary == struct.pack("<I", 7) + b"hello \xff"

    def test_a_body_that_does_not_come_out_even_is_refused(self, shoal):
        assert raw(shoal, "matrix", TWO + b"x").status == 400

    def test_a_model_with_two_inputs_is_refused(self, shoal):
        reply = raw(shoal, "pair", TWO)
        assert (reply.status, "must only have 1 input" in reply.error) == (400, True)


class TestRule3:
    """Binary data is taken in the order of the inputs, by those alone that say their size."""

    def test_the_order_is_that_of_the_request(self, shoal):
        reply = infer(shoal.http, "pair", BINARY_B, BINARY_A, tail=INTS_B + INTS_A)
        assert data_of(reply) == {"SUM": [6, 8], "DIFFERENCE": [4, 4]}

    def test_an_input_with_json_data_takes_none(self, shoal):
        reply = infer(shoal.http, "pair", A, BINARY_B, tail=INTS_B)
        assert data_of(reply)["DIFFERENCE"] == [4, 4]

    def test_too_much_is_refused(self, shoal):
        reply = infer(shoal.http, "pair", BINARY_A, BINARY_B, tail=INTS_A + INTS_B + b"x")
        assert (reply.status, "unexpected additional input data" in reply.error) == (400, True)

    def test_too_little_is_refused(self, shoal):
        reply = infer(shoal.http, "pair", BINARY_A, BINARY_B, tail=INTS_A + INTS_B[:-1])
        assert (reply.status, "unexpected size for input 'B'" in reply.error) == (400, True)


@pytest.mark.parametrize(
    "given",
    [
        tensor("IN", [2]),
        tensor("IN", [2], [1, 2], binary_data_size=8),
        tensor("IN", [2], [1, 2], shared_memory_region="r"),
    ],
)
def test_rule_4_an_input_has_one_source(shoal, given):
    assert infer(shoal.http, "unbatched", given, tail=TWO).status == 400


def test_rule_5_the_default_is_for_outputs_that_are_not_listed(shoal):
    binary = {"binary_data_output": True}
    reply = infer(shoal.http, "pair", A, B, parameters=binary)
    assert reply.binary == struct.pack("<4i", 6, 8, 4, 4)
    reply = infer(shoal.http, "pair", A, B, parameters=binary, outputs=[{"name": "SUM"}])
    assert data_of(reply) == {"SUM": [6, 8]}
    wanted = [{"name": "SUM"}, {"name": "DIFFERENCE", "parameters": {"binary_data": True}}]
    reply = infer(shoal.http, "pair", A, B, outputs=wanted)
    assert outputs_of(reply)["SUM"]["data"] == [6, 8]
    assert reply.binary == struct.pack("<2i", 4, 4)


def test_rule_6_the_content_type_says_whether_there_is_binary_data(shoal):
    reply = infer(shoal.http, "unbatched", IN)
    assert reply.headers["content-type"] == "application/json"
    assert HEADER_LENGTH.lower() not in reply.headers
    reply = infer(shoal.http, "unbatched", IN, parameters={"binary_data_output": True})
    assert reply.headers["content-type"] == "application/octet-stream"
    assert outputs_of(reply)["OUT"]["parameters"] == {"binary_data_size": 8}
    reply = infer(shoal.http, "unbatched", tensor("IN", [0], []), parameters={"binary_data_output": True})
    assert outputs_of(reply)["OUT"]["parameters"] == {"binary_data_size": 0}
    assert reply.headers["content-type"] == "application/json"  # as in Triton: there is no binary data


def test_rule_7_data_is_nested_or_flat_and_comes_back_flat(shoal):
    flat = infer(shoal.http, "matrix", tensor("IN", [1, 2, 2], [1, 2, 3, 4]))
    nested = infer(shoal.http, "matrix", tensor("IN", [1, 2, 2], [[[1, 2], [3, 4]]]))
    otherwise = infer(shoal.http, "matrix", tensor("IN", [1, 2, 2], [[1], [2, [3, 4]]]))
    assert data_of(flat) == data_of(nested) == data_of(otherwise) == {"OUT": [2, 4, 6, 8]}
    assert infer(shoal.http, "matrix", tensor("IN", [1, 2, 2], [[[1, 2], [3]]])).status == 500
    deep, _ = body_of(tensor("IN", [1], ["x"]))
    reply = ask(shoal.http, "POST", "/v2/models/unbatched/infer", deep.replace(b'"x"', b"[" * 100 + b"]" * 100))
    assert (reply.status, "nesting depth exceeds the maximum of 100" in reply.error) == (400, True)


class TestRule8:
    """BYTES are JSON strings, or binary elements with their lengths."""

    def test_strings_come_back_as_strings(self, shoal):
        words = ["", 'a "b" \\ \n', "zwölf \u2028 \U0001f41f"]
        reply = infer(shoal.http, "every", tensor("STRING", [1, 3], words, "BYTES"))
        assert data_of(reply) == {"STRING_OUT": words}

    def test_bytes_that_are_no_text_need_binary(self, shoal):
        element = struct.pack("<I", 2) + b"\xff\0"
        given = tensor("STRING", [1, 1], None, "BYTES", binary_data_size=6)
        reply = infer(shoal.http, "every", given, tail=element, parameters={"binary_data_output": True})
        assert reply.binary == element


def test_rule_9_bool_is_true_or_false_and_one_byte(shoal):
    reply = infer(shoal.http, "every", tensor("BOOL", [1, 2], [True, False], "BOOL"))
    assert data_of(reply) == {"BOOL_OUT": [True, False]}
    binary = tensor("BOOL", [1, 2], None, "BOOL", binary_data_size=2)
    assert data_of(infer(shoal.http, "every", binary, tail=b"\1\0")) == {"BOOL_OUT": [True, False]}
    assert infer(shoal.http, "every", tensor("BOOL", [1, 2], [1, 0], "BOOL")).status == 500


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_rule_10_half_floats_have_no_json(shoal, datatype):
    bits = b"\x80\x3f\0\x40"
    assert infer(shoal.http, "every", tensor(datatype, [1, 2], [1, 2], datatype)).status == 400
    binary = tensor(datatype, [1, 2], None, datatype, binary_data_size=4)
    reply = infer(shoal.http, "every", binary, tail=bits)
    assert (reply.status, "via JSON is not supported" in reply.error) == (400, True)
    reply = infer(shoal.http, "every", binary, tail=bits, parameters={"binary_data_output": True})
    assert reply.binary == bits


def test_rule_11_nan_and_infinities_are_literals(shoal):
    reply = infer(shoal.http, "unbatched", tensor("IN", [3], [math.nan, math.inf, -math.inf]))
    assert b"[NaN,Infinity,-Infinity]" in reply.body
    first, *others = data_of(reply)["OUT"]
    assert math.isnan(first)
    assert others == [math.inf, -math.inf]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b"{"),
        (500, b"[]"),
        (500, json.dumps({"inputs": [tensor("IN", [-1], [1])]}).encode()),
        (500, json.dumps({"inputs": [{"name": "IN", "shape": [1], "data": [1]}]}).encode()),
        (400, json.dumps({"inputs": [tensor("IN", [1], [1], "FP99")]}).encode()),
        (400, json.dumps({"inputs": [tensor("OTHER", [1], [1])]}).encode()),
    ],
)
def test_rule_12_what_cannot_be_read_is_500_and_what_is_wrong_400(shoal, status, body):
    reply = ask(shoal.http, "POST", "/v2/models/unbatched/infer", body)
    assert (reply.status, bool(reply.error)) == (status, True)


def test_rule_13_the_id_comes_back_and_parameters_only_when_there_are_any(shoal):
    assert infer(shoal.http, "unbatched", IN).json == {
        "model_name": "unbatched",
        "model_version": "1",
        "outputs": [{"name": "OUT", "datatype": "FP32", "shape": [2], "data": [2, 4]}],
    }
    assert infer(shoal.http, "unbatched", IN, id="").json.keys() == {"model_name", "model_version", "outputs"}
    reply = infer(shoal.http, "parameters", tensor("IN", [1, 1], [1]), id="seven").json
    assert reply["id"] == "seven"
    assert reply["parameters"]["id"] == "seven"


def test_rule_14_outputs_in_shared_memory_are_refused_while_it_is_off(shoal):
    """Rule 58 comes before: without shared memory no region can be named."""
    wanted = {"name": "OUT", "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 8}}
    reply = infer(shoal.http, "unbatched", IN, outputs=[wanted])
    assert (reply.status, "shared memory" in reply.error) == (501, True)


def test_rule_15_what_is_named_twice_or_unknown_is_refused(shoal):
    def error(*inputs, **more):
        reply = infer(shoal.http, "unbatched", *inputs, **more)
        assert reply.status == 400
        return reply.error

    out, other = {"name": "OUT"}, {"name": "OTHER"}
    assert "output 'OUT' already exists in request" in error(IN, outputs=[out, out])
    assert "input 'IN' already exists in request" in error(IN, IN)
    assert error(IN, outputs=[other]) == "unexpected inference output 'OTHER' for model 'unbatched'"
    assert "unexpected inference input 'OTHER' for model 'unbatched'" in error(tensor("OTHER", [2], [1, 2]))


class TestRule16:
    """Bodies may be compressed, both ways."""

    @pytest.mark.parametrize(
        ("encoding", "squeeze", "expand"),
        [("gzip", gzip.compress, gzip.decompress), ("deflate", zlib.compress, zlib.decompress)],
    )
    def test_both_ways(self, shoal, encoding, squeeze, expand):
        body, _ = body_of(IN)
        headers = {"Content-Encoding": encoding, "Accept-Encoding": encoding}
        reply = ask(shoal.http, "POST", "/v2/models/unbatched/infer", squeeze(body), headers)
        assert reply.headers["content-encoding"] == encoding
        assert json.loads(expand(reply.body))["outputs"][0]["data"] == [2, 4]

    def test_binary_data_and_its_header_are_compressed_as_one(self, shoal):
        body, headers = body_of(BINARY, tail=TWO, parameters={"binary_data_output": True})
        headers |= {"Content-Encoding": "gzip", "Accept-Encoding": "gzip"}
        reply = ask(shoal.http, "POST", "/v2/models/unbatched/infer", gzip.compress(body), headers)
        plain = gzip.decompress(reply.body)
        assert plain[int(reply.headers[HEADER_LENGTH.lower()]) :] == TWICE

    def test_an_unknown_encoding_is_refused_and_the_known_ones_named(self, shoal):
        reply = infer(shoal.http, "unbatched", IN, headers={"Content-Encoding": "br"})
        assert (reply.status, reply.headers["accept-encoding"]) == (501, "gzip, deflate")

    def test_what_grows_beyond_the_limit_is_refused(self, shoal):
        bomb = gzip.compress(b"[" + b" " * (65 << 20) + b"]")
        reply = ask(shoal.http, "POST", "/v2/models/unbatched/infer", bomb, {"Content-Encoding": "gzip"})
        assert (reply.status, "exceeds the maximum allowed value" in reply.error) == (400, True)
