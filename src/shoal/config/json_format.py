"""JSON (``config.json``, and the ``config`` parameter of a load request), parsed into a tree that knows its lines."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from shoal.config.tree import DEEPEST, Block, Field, FormatError, Listing, Scalar, ScalarKind, Value

_TOKEN = re.compile(r'[ \t\r\n]+|"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^ \t\r\n{}\[\]:,"]+', re.DOTALL)


class _Token(NamedTuple):
    text: str
    line: int


def parse_json(text: str) -> Block:
    """Parse a JSON object.

    Raises:
        FormatError: the text is not JSON, or not an object.
    """
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        raise FormatError(f"not JSON: {error.msg} (column {error.colno})", error.lineno) from None
    except (RecursionError, ValueError) as error:
        raise FormatError(f"not usable as JSON: {error}", 1) from None
    value = _Walker(text).value(0)
    if not isinstance(value, Block):
        raise FormatError(f"expected a JSON object with the fields of ModelConfig, found {value}", value.line)
    return value


class _Walker:
    """Walks over a text that is known to be JSON."""

    def __init__(self, text: str) -> None:
        self._tokens = []
        line = 1
        for found in _TOKEN.finditer(text):
            if not found.group().isspace():
                self._tokens.append(_Token(found.group(), line))
            line += found.group().count("\n")
        self._tokens.reverse()

    def value(self, depth: int) -> Value:
        text, line = self._tokens.pop()
        if depth > DEEPEST:
            raise FormatError(f"objects are nested more than {DEEPEST} deep", line)
        if text == "{":
            return Block(self._fields(depth), line)
        if text == "[":
            return Listing(self._items(depth), line)
        if text.startswith('"'):
            return Scalar(ScalarKind.STRING, json.loads(text), line)
        if text == "null":
            return Scalar(ScalarKind.NULL, text, line)
        return Scalar(ScalarKind.WORD if text in ("true", "false") else ScalarKind.NUMBER, text, line)

    def _fields(self, depth: int) -> list[Field]:
        fields = []
        while (token := self._tokens.pop()).text != "}":
            if token.text != ",":
                self._tokens.pop()  # the colon
                fields.append(Field(json.loads(token.text), self.value(depth + 1), token.line))
        return fields

    def _items(self, depth: int) -> list[Value]:
        items = []
        while self._tokens[-1].text != "]":
            items.append(self.value(depth + 1))
            if self._tokens[-1].text == ",":
                self._tokens.pop()
        self._tokens.pop()
        return items
