"""Fills a protobuf message from a parsed tree, and says of every field that does not fit what would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from shoal.config.problem import Problem
from shoal.config.scalars import UnfitError, convert
from shoal.config.tree import Block, Dialect, Field, Listing, Scalar, ScalarKind, Value
from shoal.errors import nearest

_NESTED = FieldDescriptor.CPPTYPE_MESSAGE


class Binder:
    """Fills one message.

    Attributes:
        lines: the line of every field that stands in the file, by path.
        problems: what does not fit; those fields keep their default.
    """

    def __init__(self, file: str, dialect: Dialect) -> None:
        self.lines: dict[str, int] = {}
        self.problems: list[Problem] = []
        self._file = file
        self._dialect = dialect

    def fill(self, message: Any, block: Block, path: str = "") -> None:
        """Set the message's fields from the block's; ``path`` is where the message itself stands."""
        names = _names(message.DESCRIPTOR, self._dialect)
        seen: dict[str, int] = {}
        counts: dict[str, int] = {}
        for written in block.fields:
            field = names.get(written.name)
            name = field.name if field else written.name
            place = f"{path}.{name}" if path else name
            if field is None:
                self._unknown(written, message.DESCRIPTOR, place)
            elif not _is_null(written.value) and not self._again(field, written, seen, place):
                self._field(message, field, written, place, counts)

    def _problem(self, line: int, path: str, text: str) -> None:
        self.problems.append(Problem(self._file, line, path, text))

    def _unknown(self, written: Field, descriptor: Descriptor, place: str) -> None:
        allowed = [field.name for field in descriptor.fields]
        hint = nearest(written.name, allowed) or "; "
        listed = f"{descriptor.name} has: {', '.join(allowed)}" if allowed else f"{descriptor.name} has no fields"
        text = f"unknown field '{written.name}'{hint.rstrip()} {listed}"
        self._problem(written.line, place, text)

    def _again(self, field: Any, written: Field, seen: dict[str, int], place: str) -> bool:
        """Whether the field, or another one of its oneof, was set before; a problem unless it may be repeated."""
        key = field.containing_oneof.name if field.containing_oneof else field.name
        if key not in seen or (field.is_repeated and self._dialect is Dialect.TEXT):
            seen.setdefault(key, written.line)
            return False
        if field.containing_oneof:
            choices = ", ".join(choice.name for choice in field.containing_oneof.fields)
            self._problem(written.line, place, f"only one of {choices} may be set; line {seen[key]} has one already")
        else:
            self._problem(written.line, place, f"may be set only once; line {seen[key]} has it already")
        return True

    def _field(self, message: Any, field: Any, written: Field, path: str, counts: dict[str, int]) -> None:
        self.lines.setdefault(path, written.line)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            self._map(getattr(message, field.name), field, written.value, path)
        elif field.is_repeated:
            self._repeated(getattr(message, field.name), field, written.value, path, counts)
        elif field.cpp_type == _NESTED:
            self._nested(getattr(message, field.name), written.value, path)
        else:
            self._scalar(field, written.value, path, partial(setattr, message, field.name))

    def _nested(self, target: Any, value: Value, path: str) -> None:
        if isinstance(value, Block):
            target.SetInParent()
            self.fill(target, value, path)
        else:
            self._problem(value.line, path, f"expected the fields of a {target.DESCRIPTOR.name}, found {value}")

    def _repeated(self, target: Any, field: Any, value: Value, path: str, counts: dict[str, int]) -> None:
        if self._dialect is not Dialect.TEXT and not isinstance(value, Listing):
            self._problem(value.line, path, f"expected a list, found {value}")
            return
        for item in value.items if isinstance(value, Listing) else [value]:
            place = f"{path}[{counts.get(path, 0)}]"
            counts[path] = counts.get(path, 0) + 1
            self.lines[place] = item.line
            if field.cpp_type == _NESTED:
                self._nested(target.add(), item, place)
            else:
                self._scalar(field, item, place, target.append)

    def _map(self, target: Any, field: Any, value: Value, path: str) -> None:
        parts = field.message_type.fields_by_name
        for key, content, line in self._entries(value, path, _default_key(parts["key"])):
            place = f'{path}["{key.text}"]'
            self.lines[place] = line
            self._scalar(parts["key"], key, place, partial(self._put, target, parts["value"], content, place))

    def _put(self, target: Any, field: Any, content: Value | None, place: str, key: Any) -> None:
        """Store one entry of a map; without a value it is the default one."""
        if field.cpp_type == _NESTED:
            entry = target[key]
            if content is not None:
                self._nested(entry, content, place)
        elif content is None:
            target[key] = field.default_value
        else:
            self._scalar(field, content, place, partial(target.__setitem__, key))

    def _entries(self, value: Value, path: str, default: Scalar) -> Iterator[tuple[Scalar, Value | None, int]]:
        """Key, value and line of each entry of a map."""
        if self._dialect is Dialect.TEXT:
            for block in value.items if isinstance(value, Listing) else [value]:
                if isinstance(block, Block):
                    yield self._entry(block, path, default)
                else:
                    self._problem(block.line, path, f"expected {{ key: ... value: ... }}, found {block}")
        elif isinstance(value, Block):
            seen: set[str] = set()
            for written in value.fields:
                if written.name in seen:
                    self._problem(written.line, f'{path}["{written.name}"]', "stands here for the second time")
                seen.add(written.name)
                yield Scalar(ScalarKind.STRING, written.name, written.line), written.value, written.line
        else:
            self._problem(value.line, path, f"expected names with their values, found {value}")

    def _entry(self, block: Block, path: str, default: Scalar) -> tuple[Scalar, Value | None, int]:
        parts: dict[str, Value] = {}
        for written in block.fields:
            if written.name in ("key", "value"):
                parts[written.name] = written.value
            else:
                text = f"unknown field '{written.name}'; an entry of a map has: key, value"
                self._problem(written.line, f"{path}.{written.name}", text)
        key = parts.get("key", default)
        if not isinstance(key, Scalar):
            self._problem(key.line, f"{path}.key", f"expected a single value, found {key}")
            key = default
        return key, parts.get("value"), block.line

    def _scalar(self, field: Any, value: Value, path: str, store: Callable[[Any], object]) -> None:
        if not isinstance(value, Scalar):
            self._problem(value.line, path, f"expected a single value, found {value}")
            return
        try:
            store(convert(field, value, self._dialect))
        except UnfitError as unfit:
            self._problem(value.line, path, str(unfit))


def _default_key(field: Any) -> Scalar:
    """The key of a map's entry that has none."""
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return Scalar(ScalarKind.STRING, "", 0)
    return Scalar(ScalarKind.NUMBER, "0", 0)


def _is_null(value: Value) -> bool:
    return isinstance(value, Scalar) and value.kind is ScalarKind.NULL


def _names(descriptor: Descriptor, dialect: Dialect) -> dict[str, Any]:
    """The fields by every name that they may have: as in the proto file, and in JSON and YAML also lowerCamelCase."""
    names: dict[str, Any] = {}
    if dialect is not Dialect.TEXT:
        names.update((field.json_name, field) for field in descriptor.fields)
    names.update((field.name, field) for field in descriptor.fields)
    return names
