"""Reads the padding policy: the JSON text of the parameter ``padding``, one object for each padded input.

It stands in ``parameters`` so that Triton goes on reading the same ``config.pbtxt``. This module reads what is written;
``padding_check`` holds it against the model's inputs and outputs, and compiles it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from shoal.errors import nearest

PARAMETER = "padding"
PATH = f'parameters["{PARAMETER}"]'


@dataclass(slots=True)
class InputPolicy:
    """What is written of one input; ``None`` where nothing is.

    Attributes:
        value: what it is padded with, as JSON has it.
        dimension: which of its dims is padded.
        multiple_of: the padded length is a multiple of this.
        maximum: the longest that a request may be.
        buckets: the longest length of each bucket.
        mask: the name of the input that gets the mask.
        length: the name of the input that gets the lengths.
        outputs: the names of the outputs that follow, with the dimension that does; None for the only variable one.
        like: the name of the input that this one is as long as.
    """

    value: object = None
    dimension: int | None = None
    multiple_of: int | None = None
    maximum: int | None = None
    buckets: tuple[int, ...] | None = None
    mask: str | None = None
    length: str | None = None
    outputs: dict[str, int | None] | None = None
    like: str | None = None


class PolicyReader:
    """Reads the text of a policy.

    Attributes:
        policies: what is written of each input, by its name; what does not fit is left out.
        problems: what does not fit: the path of the place, and what is wrong.
    """

    def __init__(self, text: str) -> None:
        self.policies: dict[str, InputPolicy] = {}
        self.problems: list[tuple[str, str]] = []
        written = self._parse(text)
        for name, fields in written.items():
            self._input(name, fields)

    def _parse(self, text: str) -> dict[str, Any]:
        try:
            written = json.loads(text, object_pairs_hook=self._object)
        except ValueError as error:
            self._problem(PATH, f"is no JSON: {error}")
            return {}
        if not isinstance(written, dict) or not written:
            self._problem(PATH, 'must be an object with each padded input, such as {"INPUT_IDS": {"value": 0}}')
            return {}
        if written.keys() <= _READERS.keys():
            listed = ", ".join(written)
            self._problem(PATH, f'{listed} must stand under the name of an input, such as {{"INPUT_IDS": {{...}}}}')
            return {}
        return written

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        for name in made:
            if [pair[0] for pair in pairs].count(name) > 1:
                self._problem(PATH, f"'{name}' stands in one object for the second time")
        return made

    def _problem(self, path: str, text: str) -> None:
        self.problems.append((path, text))

    def _input(self, name: str, fields: Any) -> None:
        path = f"{PATH}.{name}"
        if not isinstance(fields, dict):
            self._problem(path, f"must be an object with any of {', '.join(_READERS)}; found {json.dumps(fields)}")
            return
        policy = self.policies[name] = InputPolicy()
        for field, value in fields.items():
            read = _READERS.get(field)
            if read is None:
                hint = nearest(field, _READERS)
                self._problem(f"{path}.{field}", f"unknown{hint or ';'} a padded input has {', '.join(_READERS)}")
                continue
            try:
                setattr(policy, field, read(value))
            except ValueError as error:
                self._problem(f"{path}.{field}", f"must be {error}, found {json.dumps(value)}")


def _whole_number(least: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if type(value) is not int or value < least:
            raise ValueError(f"a whole number of {least} or more")
        return value

    return read


def _any(value: Any) -> object:
    if value is None or isinstance(value, dict | list):
        raise ValueError("a single value of the input's data type")
    return value


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("the name of an input")
    return value


def _rising(value: Any) -> tuple[int, ...]:
    whole = isinstance(value, list) and all(type(size) is int for size in value)
    if not whole or not value or value[0] < 1 or any(b <= a for a, b in pairwise(value)):
        raise ValueError("a list of lengths from 1, each longer than the one before")
    return tuple(value)


def _outputs(value: Any) -> dict[str, int | None]:
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return dict.fromkeys(value)
    if isinstance(value, dict) and all(type(dimension) is int and dimension >= 0 for dimension in value.values()):
        return dict(value)
    raise ValueError('a list of outputs, or an object such as {"LOGITS": 0} with the dimension of each that follows')


_READERS: dict[str, Callable[[Any], object]] = {
    "value": _any,
    "dimension": _whole_number(0),
    "multiple_of": _whole_number(1),
    "maximum": _whole_number(1),
    "buckets": _rising,
    "mask": _name,
    "length": _name,
    "outputs": _outputs,
    "like": _name,
}
