"""The JSON parsers agree with each other and fail with the right words (rules 11 and 12)."""

from __future__ import annotations

import json
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import InternalError, InvalidArgumentError
from shoal.protocols import rest_json, rest_json_access, rest_json_strict

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)
DOCUMENTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
)


@given(DOCUMENTS, st.booleans(), st.sampled_from([None, 1]))
def test_both_parsers_read_what_is_json(document: object, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(document, ensure_ascii=ascii_only, indent=indent).encode()
    assert rest_json.parse(text) == document
    assert rest_json_strict.parse(text) == document


@given(DOCUMENTS)
def test_what_is_written_is_read_again(document: object) -> None:
    assert rest_json.parse(rest_json.dump(document)) == document


def test_rule_11_numbers_that_are_not_finite() -> None:
    text = b"[NaN,-NaN,Infinity,-Infinity,Inf,-Inf]"
    values = rest_json.parse(text)
    assert isinstance(values, list)
    assert [math.isnan(value) for value in values[:2]] == [True, True]
    assert values[2:] == [math.inf, -math.inf] * 2
    assert rest_json.dump([math.nan, math.inf, -math.inf]) == b"[NaN,Infinity,-Infinity]"
    assert rest_json.dump({"a": None, "b": "null"}) == b'{"a":null,"b":"null"}'


@pytest.mark.parametrize("text", [b'"\xff\xfe"', b'["a\xff", NaN]', b'{"\xff":-Inf}'])
def test_rule_8_bytes_that_are_not_utf_8_survive(text: bytes) -> None:
    parsed = rest_json.parse(text)
    assert rest_json.dump(parsed).replace(b" ", b"") == text.replace(b" ", b"").replace(b"-Inf", b"-Infinity")


def test_rule_12_a_surrogate_pair_is_one_character() -> None:
    assert rest_json_strict.parse(b'"\\ud83d\\ude00\\u00e9"') == "😀é"


def test_rule_12_numbers_keep_their_kind() -> None:
    values = rest_json_strict.parse(b"[-0, 1, 1.0, 1e2, 18446744073709551616]")
    assert isinstance(values, list)
    assert [type(value) for value in values] == [int, int, float, float, int]


def test_a_repeated_key_counts_last() -> None:
    assert rest_json.parse(b'{"a":1,"a":2}') == rest_json_strict.parse(b'{"a":1,"a":2}') == {"a": 2}


def test_a_long_text_is_never_parsed_slowly() -> None:
    """Where the exact words would take seconds the message is approximate; the status stays."""
    spaces = b" " * (300 * 1024)
    with pytest.raises(InternalError, match=r"failed to parse the request JSON buffer: Invalid value\. at 307"):
        rest_json.parse(b'{"a":' + spaces + b"tru}")
    with pytest.raises(InvalidArgumentError, match="nesting depth exceeds the maximum of 100"):
        rest_json.parse(b"[" * 400_000)
    assert rest_json.parse(b"[NaN," + spaces + b'"\\ud83d\\ude00"]')[1] == "😀"  # type: ignore[index]


@pytest.mark.parametrize("text", [b"[" * 150 + b"x", b'{"a":' * 150])
def test_rule_7_deep_texts_end_with_an_error_not_with_a_crash(text: bytes) -> None:
    with pytest.raises(InvalidArgumentError, match="nesting depth"):
        rest_json_strict.parse(text)


@given(st.binary(max_size=60))
def test_any_bytes_are_parsed_or_refused(text: bytes) -> None:
    try:
        value = rest_json.parse(text)
    except InternalError:
        return
    assert repr(rest_json.parse(rest_json.dump(value))) == repr(value)


@given(st.text(alphabet='{}[]",:019eE+-.tru \n', max_size=24))
def test_the_strict_parser_agrees_with_the_fast_one(text: str) -> None:
    try:
        expected = msgspec.json.decode(text)
    except msgspec.DecodeError:
        with pytest.raises(InternalError, match=r"^failed to parse the request JSON buffer: .* at \d+$"):
            rest_json_strict.parse(text.encode())
    else:
        assert repr(rest_json_strict.parse(text.encode())) == repr(expected)


@pytest.mark.parametrize(
    ("value", "is_uint", "is_int"),
    [(0, True, True), (-1, False, True), (2**63, True, False), (2**64, False, False), (True, False, False)],
)
def test_rule_12_integers_are_of_64_bits(value: object, is_uint: bool, is_int: bool) -> None:
    assert rest_json_access.is_uint(value) is is_uint
    assert rest_json_access.is_int(value) is is_int
    assert not rest_json_access.is_uint(1.0)
