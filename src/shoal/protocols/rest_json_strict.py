"""A JSON parser that reads what Triton's reads and fails with its messages, for texts that faster parsers refuse.

Triton parses with RapidJSON, so that is the grammar here: JSON, and also ``NaN``, ``Inf`` and ``Infinity`` with or
without a minus sign; bytes of a string need not be UTF-8; a number too big for FP64 and a high surrogate alone are
errors. Positions are byte offsets, as clients of Triton see them.
"""

from __future__ import annotations

import re
from typing import NoReturn

from shoal.errors import InternalError, InvalidArgumentError

MAX_NESTING = 100
"""How deep arrays may lie in each other in a tensor's ``data`` (rule 7)."""

_DEPTH = MAX_NESTING + 8
_SPACE = re.compile(rb"[ \t\r\n]*")
_DIGITS = re.compile(rb"[0-9]*")
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_HEX4 = re.compile(rb"[0-9a-fA-F]{4}")
_LITERALS: dict[int, tuple[bytes, object]] = {
    ord("t"): (b"true", True),
    ord("f"): (b"false", False),
    ord("n"): (b"null", None),
}
_ESCAPES = dict(zip(b'"\\/bfnrt', b'"\\/\b\f\n\r\t', strict=True))
_QUOTE, _BACKSLASH = ord('"'), ord("\\")
_END = 0
"""What RapidJSON sees after the last byte; a NUL byte therefore ends a text."""


def parse(text: bytes) -> object:
    """Parse a JSON text; see ``rest_json.parse``."""
    return _Parser(text).document()


def too_deep() -> InvalidArgumentError:
    """The error of a text that no tensor's nesting explains."""
    return InvalidArgumentError(f"JSON nesting depth exceeds the maximum of {MAX_NESTING}")


class _Parser:
    """One text being parsed; ``at`` is the offset of the next byte."""

    __slots__ = ("at", "text")

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.at = 3 if text.startswith(b"\xef\xbb\xbf") else 0

    def document(self) -> object:
        if self._next() == _END:
            self._fail("The document is empty.")
        value = self._value(1)
        if self._next() != _END:
            self._fail("The document root must not be followed by other values.")
        return value

    def _fail(self, message: str, at: int | None = None) -> NoReturn:
        position = self.at if at is None else at
        raise InternalError(f"failed to parse the request JSON buffer: {message} at {position}")

    def _peek(self) -> int:
        return self.text[self.at] if self.at < len(self.text) else _END

    def _next(self) -> int:
        """The next byte that is not white space."""
        match = _SPACE.match(self.text, self.at)
        assert match
        self.at = match.end()
        return self._peek()

    def _value(self, depth: int) -> object:
        first = self._next()
        if depth > _DEPTH:
            raise too_deep()
        if first == _QUOTE:
            return self._string()
        if first == ord("["):
            return self._array(depth)
        if first == ord("{"):
            return self._object(depth)
        if first in _LITERALS:
            return self._literal(*_LITERALS[first])
        return self._number()

    def _literal(self, word: bytes, value: object) -> object:
        for byte in word:
            if self._peek() != byte:
                self._fail("Invalid value.")
            self.at += 1
        return value

    def _array(self, depth: int) -> list[object]:
        items: list[object] = []
        self.at += 1
        if self._next() == ord("]"):
            self.at += 1
            return items
        while True:
            items.append(self._value(depth + 1))
            following = self._next()
            if following not in b",]" or following == _END:
                self._fail("Missing a comma or ']' after an array element.")
            self.at += 1
            if following == ord("]"):
                return items

    def _object(self, depth: int) -> dict[str, object]:
        members: dict[str, object] = {}
        self.at += 1
        if self._next() == ord("}"):
            self.at += 1
            return members
        while True:
            if self._next() != _QUOTE:
                self._fail("Missing a name for object member.")
            name = self._string()
            if self._next() != ord(":"):
                self._fail("Missing a colon after a name of object member.")
            self.at += 1
            members[name] = self._value(depth + 1)
            following = self._next()
            if following not in b",}" or following == _END:
                self._fail("Missing a comma or '}' after an object member.")
            self.at += 1
            if following == ord("}"):
                return members

    def _string(self) -> str:
        parts = bytearray()
        self.at += 1
        while True:
            plain = _PLAIN.match(self.text, self.at)
            assert plain
            parts += plain.group()
            self.at = plain.end()
            byte = self._peek()
            if byte == _QUOTE:
                self.at += 1
                return parts.decode("utf-8", "surrogateescape")
            if byte == _END:
                self._fail("Missing a closing quotation mark in string.")
            if byte != _BACKSLASH:
                self._fail("Invalid escape character in string.")
            parts += self._escape()

    def _escape(self) -> bytes:
        start = self.at
        self.at += 1
        kind = self._peek()
        self.at += 1
        if kind in _ESCAPES:
            return bytes((_ESCAPES[kind],))
        if kind != ord("u"):
            self._fail("Invalid escape character in string.", start)
        code = self._hex4(start)
        if 0xD800 <= code < 0xDC00:
            code = self._surrogate_pair(code, start)
        # Triton lets a low surrogate stand alone, as three bytes that are not UTF-8.
        return chr(code).encode("utf-8", "surrogatepass")

    def _hex4(self, start: int) -> int:
        digits = _HEX4.match(self.text, self.at)
        if not digits:
            self._fail("Incorrect hex digit after \\u escape in string.", start)
        self.at = digits.end()
        return int(digits.group(), 16)

    def _surrogate_pair(self, high: int, start: int) -> int:
        low = 0
        if self.text.startswith(b"\\u", self.at):
            self.at += 2
            low = self._hex4(start)
        if not 0xDC00 <= low < 0xE000:
            self._fail("The surrogate pair in string is invalid.", start)
        return 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00)

    def _number(self) -> int | float:
        start = self.at
        if self._peek() == ord("-"):
            self.at += 1
        if self._peek() in b"IN" and self._peek() != _END:
            return self._not_finite(-1.0 if self.at > start else 1.0)
        whole = self._digits("Invalid value.")
        if whole.startswith(b"0"):
            # A leading zero stands alone: what follows it is the next thing.
            self.at += 1 - len(whole)
        is_float = self._fraction() | self._exponent()
        text = self.text[start : self.at]
        value = float(text)
        if value in (float("inf"), float("-inf")):
            self._fail("Number too big to be stored in double.", start)
        return value if is_float else int(text)

    def _digits(self, message: str) -> bytes:
        digits = _DIGITS.match(self.text, self.at)
        assert digits
        if digits.end() == self.at:
            self._fail(message)
        self.at = digits.end()
        return digits.group()

    def _fraction(self) -> bool:
        if self._peek() != ord("."):
            return False
        self.at += 1
        self._digits("Miss fraction part in number.")
        return True

    def _exponent(self) -> bool:
        if self._peek() not in b"eE" or self._peek() == _END:
            return False
        self.at += 1
        if self._peek() in b"+-" and self._peek() != _END:
            self.at += 1
        self._digits("Miss exponent in number.")
        return True

    def _not_finite(self, sign: float) -> float:
        if self._peek() == ord("N"):
            self._literal(b"NaN", None)
            return float("nan")
        self._literal(b"Inf", None)
        if self._peek() == ord("i"):
            self._literal(b"inity", None)
        return sign * float("inf")
