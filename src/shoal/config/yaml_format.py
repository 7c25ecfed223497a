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
    value = Block(line=1) if root is None else _value(root, 0)
    if not isinstance(value, Block):
        raise FormatError(f"expected a YAML mapping with the fields of ModelConfig, found {value}", value.line)
    return value


def _value(node: Any, depth: int) -> Value:
    line = node.start_mark.line + 1
    if depth > DEEPEST:
        raise FormatError(f"mappings are nested more than {DEEPEST} deep", line)
    if isinstance(node, yaml.MappingNode):
        return Block([_field(key, value, depth) for key, value in node.value], line)
    if isinstance(node, yaml.SequenceNode):
        return Listing([_value(item, depth + 1) for item in node.value], line)
    return Scalar(_KINDS.get(node.tag, ScalarKind.STRING), node.value, line, plain=node.style is None)


def _field(key: Any, value: Any, depth: int) -> Field:
    line = key.start_mark.line + 1
    if not isinstance(key, yaml.ScalarNode):
        raise FormatError("the name of a field must be a plain name", line)
    return Field(key.value, _value(value, depth + 1), line)
