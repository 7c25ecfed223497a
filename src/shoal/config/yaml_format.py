"""YAML (``config.yaml``), parsed into a tree that knows its lines."""

from __future__ import annotations

from typing import Any

import yaml

from shoal.config.tree import DEEPEST, Block, Field, FormatError, Listing, Scalar, ScalarKind, Value

_KINDS = {
    "tag:yaml.org,2002:null": ScalarKind.NULL,
    "tag:yaml.org,2002:bool": ScalarKind.WORD,
    "tag:yaml.org,2002:int": ScalarKind.NUMBER,
    "tag:yaml.org,2002:float": ScalarKind.NUMBER,
}


def parse_yaml(text: str) -> Block:
    """Parse a YAML mapping; what an unquoted value is, the field that it is for decides.

    Raises:
        FormatError: the text is not YAML, or not a mapping.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise FormatError(f"not YAML: {error.problem}", mark.line + 1 if mark else 1) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise FormatError(f"not usable as YAML: {str(error).splitlines()[0]}", 1) from None
    value = Block(line=1) if root is None else _value(root, 0, {})
    if not isinstance(value, Block):
        raise FormatError(f"expected a YAML mapping with the fields of ModelConfig, found {value}", value.line)
    return value


def _value(node: Any, depth: int, made: dict[Any, Value]) -> Value:
    """The value of a node; ``made`` keeps those that an alias may name again, so that few do not become many."""
    if node in made:
        return made[node]
    line = node.start_mark.line + 1
    if depth > DEEPEST:
        raise FormatError(f"mappings are nested more than {DEEPEST} deep", line)
    value: Value
    if isinstance(node, yaml.MappingNode):
        value = Block([_field(key, item, depth, made) for key, item in node.value], line)
    elif isinstance(node, yaml.SequenceNode):
        value = Listing([_value(item, depth + 1, made) for item in node.value], line)
    else:
        value = Scalar(_KINDS.get(node.tag, ScalarKind.STRING), node.value, line, plain=node.style is None)
    made[node] = value
    return value


def _field(key: Any, item: Any, depth: int, made: dict[Any, Value]) -> Field:
    line = key.start_mark.line + 1
    if not isinstance(key, yaml.ScalarNode):
        raise FormatError("the name of a field must be a plain name", line)
    return Field(key.value, _value(item, depth + 1, made), line)
