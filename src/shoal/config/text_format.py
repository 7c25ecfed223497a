"""Protobuf's text format, the language of ``config.pbtxt``, parsed into a tree that knows its lines.

Written here rather than taken from protobuf because that one stops at the first problem and forgets where fields stood.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from shoal.config.tree import DEEPEST, Block, Field, FormatError, Listing, Scalar, ScalarKind, Value

_TOKEN = re.compile(
    r"""
      (?P<space>[ \t\r\n\f\v]+|\#[^\n]*)
    | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    | (?P<number>(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?[fF]?)(?![A-Za-z0-9_.]))
    | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<mark>[{}<>\[\]:,;\-])
    """,
    re.VERBOSE,
)

_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))")
_SIMPLE_ESCAPES = {
    "a": b"\a",
    "b": b"\b",
    "f": b"\f",
    "n": b"\n",
    "r": b"\r",
    "t": b"\t",
    "v": b"\v",
    "\\": b"\\",
    "'": b"'",
    '"': b'"',
    "?": b"?",
}
_CLOSING = {"{": "}", "<": ">"}


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


def parse_text_format(text: str) -> Block:
    """Parse a text in protobuf's text format.

    Raises:
        FormatError: it is not in that format; ``partial`` holds what stood before.
    """
    root = Block(line=1)
    try:
        _Parser(_tokens(text)).fill(root, "")
    except FormatError as problem:
        raise FormatError(problem.message, problem.line, root) from None
    return root


def _tokens(text: str) -> Iterator[_Token]:
    position, line = 0, 1
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            raise FormatError(_unreadable(text, position), line)
        kind = str(found.lastgroup)
        if kind != "space":
            yield _Token(kind, found.group(), line)
        line += found.group().count("\n")
        position = found.end()
    yield _Token("end", "", line)


def _unreadable(text: str, position: int) -> str:
    rest = text[position:].split("\n", 1)[0]
    if rest[0] in "\"'":
        return f"the string {rest[:40]} has no closing quote on its line"
    if rest[0].isdigit():
        return f"{rest.split()[0][:40]} is not a number"
    return f"unexpected character {rest[0]!r}"


class _Parser:
    """A recursive descent parser with one token of lookahead."""

    def __init__(self, tokens: Iterator[_Token]) -> None:
        self._tokens = tokens
        self._token = next(tokens)
        self._depth = 0

    def fill(self, block: Block, closing: str) -> None:
        """Parse fields into the block up to the closing mark, or up to the end of the text."""
        while self._token.text != closing or self._token.kind == "string":
            if self._token.kind == "end":
                raise FormatError(f"the file ends before the '{closing}' of line {block.line}", self._token.line)
            self._field(block)
            if self._token.kind == "mark" and self._token.text in ",;":
                self._take()

    def _take(self) -> _Token:
        taken = self._token
        if taken.kind != "end":
            self._token = next(self._tokens)
        return taken

    def _at(self, marks: str) -> bool:
        return self._token.kind == "mark" and self._token.text in marks

    def _field(self, block: Block) -> None:
        name = self._take()
        if name.kind != "word":
            raise FormatError(f"expected the name of a field, found {_shown(name)}", name.line)
        colon = self._at(":")
        if colon:
            self._take()
        if not colon and not self._at("{<["):
            raise FormatError(f"expected ':' or '{{' after '{name.text}', found {_shown(self._token)}", name.line)
        self._value(block, name)
        if not colon and _holds_scalars(block.fields[-1].value):
            raise FormatError(f"expected ':' after '{name.text}'", name.line)

    def _value(self, block: Block, name: _Token) -> None:
        if self._at("{<"):
            inner = Block(line=self._token.line)
            block.fields.append(Field(name.text, inner, name.line))
            self._block(inner)
        elif self._at("["):
            listing = Listing([], self._token.line)
            block.fields.append(Field(name.text, listing, name.line))
            self._list(listing.items)
        else:
            block.fields.append(Field(name.text, self._scalar(), name.line))

    def _block(self, inner: Block) -> None:
        self._depth += 1
        if self._depth > DEEPEST:
            raise FormatError(f"blocks are nested more than {DEEPEST} deep", self._token.line)
        closing = _CLOSING[self._take().text]
        self.fill(inner, closing)
        self._take()
        self._depth -= 1

    def _list(self, items: list[Value]) -> None:
        opening = self._take()
        while not self._at("]"):
            if self._at("{<"):
                inner = Block(line=self._token.line)
                items.append(inner)
                self._block(inner)
            else:
                items.append(self._scalar())
            if self._at(","):
                self._take()
                if self._at("]"):
                    raise FormatError("a list must not end with ','", self._token.line)
            elif not self._at("]"):
                found = _shown(self._token)
                raise FormatError(
                    f"expected ',' or ']' in the list of line {opening.line}, found {found}", self._token.line
                )
        self._take()

    def _scalar(self) -> Scalar:
        token = self._take()
        if token.kind == "string":
            return self._string(token)
        if token.kind == "mark" and token.text == "-":
            number = self._take()
            if number.kind == "number" or number.text.lower() in ("inf", "infinity", "nan"):
                return Scalar(ScalarKind.NUMBER, f"-{number.text}", token.line)
            raise FormatError(f"expected a number after '-', found {_shown(number)}", number.line)
        if token.kind == "number":
            return Scalar(ScalarKind.NUMBER, token.text, token.line)
        if token.kind == "word":
            return Scalar(ScalarKind.WORD, token.text, token.line)
        raise FormatError(f"expected a value, found {_shown(token)}", token.line)

    def _string(self, first: _Token) -> Scalar:
        content = _unescape(first)
        while self._token.kind == "string":  # neighbouring strings are one string
            content += _unescape(self._take())
        try:
            return Scalar(ScalarKind.STRING, content.decode(), first.line)
        except UnicodeDecodeError:
            raise FormatError(f"the string {first.text[:40]} is not UTF-8", first.line) from None


def _holds_scalars(value: Value) -> bool:
    return isinstance(value, Listing) and any(isinstance(item, Scalar) for item in value.items)


def _shown(token: _Token) -> str:
    return "the end of the file" if token.kind == "end" else token.text if token.kind == "string" else f"'{token.text}'"


def _unescape(token: _Token) -> bytes:
    content = token.text[1:-1]
    if "\\" not in content:
        return content.encode("utf-8", "surrogatepass")
    parts, position = [], 0
    for found in _ESCAPE.finditer(content):
        parts.append(content[position : found.start()].encode("utf-8", "surrogatepass"))
        parts.append(_escaped(found, token))
        position = found.end()
    parts.append(content[position:].encode("utf-8", "surrogatepass"))
    return b"".join(parts)


def _escaped(found: re.Match[str], token: _Token) -> bytes:
    octal, hexadecimal, short, long, simple = found.groups()
    if octal:
        return bytes([int(octal, 8) & 0xFF])
    if hexadecimal:
        return bytes([int(hexadecimal, 16)])
    if short or long:
        code = int(short or long, 16)
        if code > 0x10FFFF:
            raise FormatError(f"the escape {found.group()} is beyond Unicode", token.line)
        return chr(code).encode("utf-8", "surrogatepass")
    if simple not in _SIMPLE_ESCAPES:
        raise FormatError(f"unknown escape '\\{simple}' in the string {token.text[:40]}", token.line)
    return _SIMPLE_ESCAPES[simple]
