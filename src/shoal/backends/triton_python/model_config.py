"""``pb_utils.ModelConfig``: the configuration that ``auto_complete_config`` completes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from shoal.errors import nearest

_INPUT_PROPERTIES = ("name", "data_type", "dims", "optional")
_OUTPUT_PROPERTIES = ("name", "data_type", "dims")
_UNSET_TYPE = "TYPE_INVALID"


class ModelConfig:
    """A model's configuration: what the file says, to be completed and not to be contradicted.

    Args:
        model_config: the configuration as JSON text, with Triton's field names.
    """

    def __init__(self, model_config: str) -> None:
        self._model_config: dict[str, Any] = json.loads(model_config)

    def as_dict(self) -> dict[str, Any]:
        """The configuration; to be read, not changed."""
        return self._model_config

    def set_max_batch_size(self, max_batch_size: int) -> None:
        """Set the largest batch size.

        Raises:
            ValueError: the configuration asks for larger batches.
        """
        configured = self._model_config.get("max_batch_size", 0)
        if configured > max_batch_size:
            raise ValueError(
                f"configuration specified max_batch_size {configured}, but in auto-complete-config function for model "
                f"'{self._name}' specified max_batch_size {max_batch_size}"
            )
        self._model_config["max_batch_size"] = max_batch_size

    def set_dynamic_batching(self) -> None:
        """Switch dynamic batching on, unless it is configured already.

        Raises:
            ValueError: the configuration has another scheduler.
        """
        for scheduler in ("sequence_batching", "ensemble_scheduling"):
            if scheduler in self._model_config:
                raise ValueError(
                    f"Configuration specified scheduling_choice as '{scheduler}', but auto-complete-config function "
                    f"for model '{self._name}' tries to set scheduling_choice as 'dynamic_batching'"
                )
        self._model_config.setdefault("dynamic_batching", {})

    def add_input(self, input: dict[str, Any]) -> None:  # noqa: A002 - Triton's name
        """Add an input, or complete the one of this name.

        Args:
            input: ``name``, ``data_type``, ``dims`` and, if it may be left out of requests, ``optional``.

        Raises:
            ValueError: a property is missing or unknown, or the configuration says otherwise.
        """
        self._add("input", input, _INPUT_PROPERTIES, required=_OUTPUT_PROPERTIES)

    def add_output(self, output: dict[str, Any]) -> None:
        """Add an output, or complete the one of this name.

        Args:
            output: ``name``, ``data_type`` and ``dims``.

        Raises:
            ValueError: a property is missing or unknown, or the configuration says otherwise.
        """
        self._add("output", output, _OUTPUT_PROPERTIES, required=_OUTPUT_PROPERTIES)

    def set_model_transaction_policy(self, transaction_policy_dict: dict[str, Any]) -> None:
        """Set the transaction policy.

        Args:
            transaction_policy_dict: ``{"decoupled": bool}``.

        Raises:
            ValueError: another property, or the configuration says otherwise.
        """
        for key in transaction_policy_dict:
            if key != "decoupled":
                raise ValueError(
                    f"model transaction property in auto-complete-config function for model '{self._name}' contains "
                    f"property other than 'decoupled': '{key}'."
                )
        policy = self._model_config.setdefault("model_transaction_policy", {})
        for key, value in transaction_policy_dict.items():
            if policy.setdefault(key, value) != value:
                raise ValueError(
                    f"trying to change decoupled property in auto-complete-config for model '{self._name}', which is "
                    f"already set to '{policy[key]}'."
                )

    @property
    def _name(self) -> str:
        return str(self._model_config.get("name", ""))

    def _add(self, kind: str, given: dict[str, Any], allowed: Iterable[str], required: Iterable[str]) -> None:
        label = f"{kind} '{given['name']}'" if "name" in given else kind
        where = f"{label} in auto-complete-config function for model '{self._name}'"
        for key in given:
            if key not in allowed:
                names = ", ".join(f"'{name}'" for name in allowed)
                raise ValueError(f"{where} contains property other than {names}: '{key}'{nearest(key, allowed)}")
        for key in required:
            if key not in given:
                raise ValueError(f"{where} is missing '{key}' property.")
        tensors = self._model_config.setdefault(kind, [])
        current = next((tensor for tensor in tensors if tensor["name"] == given["name"]), None)
        if current is None:
            tensors.append(given)
        else:
            self._complete(kind, current, given)

    def _complete(self, kind: str, current: dict[str, Any], given: dict[str, Any]) -> None:
        configured_type = current.get("data_type", _UNSET_TYPE)
        if configured_type not in (_UNSET_TYPE, given["data_type"]):
            raise ValueError(
                f"unable to load model '{self._name}', configuration expects datatype {configured_type} for {kind} "
                f"'{given['name']}', model provides {given['data_type']}"
            )
        self._expect("dims", current, given, is_set=bool(current.get("dims")))
        self._expect("optional", current, given, is_set="optional" in current and "optional" in given)
        current.update(given)

    def _expect(self, key: str, current: dict[str, Any], given: dict[str, Any], is_set: bool) -> None:
        if is_set and current[key] != given[key]:
            raise ValueError(
                f"model '{self._name}', tensor '{given['name']}': the model expects {key} {given[key]} but the model "
                f"configuration specifies {key} {current[key]}"
            )
