"""The Python backend: runs Triton's Python models, ``model.py`` with a class ``TritonPythonModel``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from typing import Any

from shoal.backends import registry
from shoal.backends.contract import BatchResult, LoadContext, ModelBatch, ModelFiles, OutputRoom, RequestResult
from shoal.backends.python_answers import DecoupledAnswers
from shoal.backends.python_batch import Collector, ServedRequest, split
from shoal.backends.python_complete import auto_complete
from shoal.backends.python_failure import describe, describe_load, log
from shoal.backends.python_module import CLASS_NAME, load_model_class
from shoal.backends.python_served import ServedBatch
from shoal.backends.triton_python import server
from shoal.backends.triton_python.request import TRITONSERVER_REQUEST_RELEASE_ALL
from shoal.backends.triton_python.response import InferenceResponse
from shoal.config.spec import InstanceSpec
from shoal.datatypes import DataType
from shoal.errors import InternalError, InvalidArgumentError, ModelError

_log = logging.getLogger(__name__)

_ENVIRONMENT = "EXECUTION_ENV_PATH"


class PythonBackend:
    """Loads Python models.

    Args:
        settings: the backend's server-wide settings; those of Triton's shared memory have no meaning here.
    """

    name = "python"
    process_per_instance = registry.TRAITS["python"].process_per_instance
    preload = registry.TRAITS["python"].preload

    def __init__(self, settings: Mapping[str, str]) -> None:
        del settings

    def complete(self, config: Any, files: ModelFiles) -> None:
        """Let the model complete its configuration (``auto_complete_config``); in place.

        Raises:
            ConfigError: the model's function failed.
            ShoalError: the model could not be imported.
        """
        auto_complete(config, files)

    def load(self, context: LoadContext) -> PythonModel:
        """Import the model.

        Raises:
            ShoalError: it could not be imported, has no ``execute`` or needs what is not supported.
        """
        if _ENVIRONMENT in context.spec.parameters:
            _log.warning(
                "model '%s': parameter '%s' has no effect in this version; the model runs in the server's environment",
                context.spec.name,
                _ENVIRONMENT,
            )
        model_class = load_model_class(context.spec.name, context.files, context.spec.filename)
        if not callable(getattr(model_class, "execute", None)):
            raise InvalidArgumentError(f"model '{context.spec.name}': '{CLASS_NAME}' has no method 'execute'")
        return PythonModel(model_class, context)


class PythonModel:
    """An imported model.

    Args:
        model_class: its ``TritonPythonModel``.
        context: what it was loaded with.
    """

    def __init__(self, model_class: type[Any], context: LoadContext) -> None:
        self._class = model_class
        self._context = context

    def instance(self, spec: InstanceSpec) -> PythonInstance:
        """Make an instance: construct the model's class and call ``initialize``.

        Raises:
            InternalError: the model's code failed.
        """
        server.set_model_dir(str(self._context.files.version_dir))
        try:
            model = self._class()
            if hasattr(model, "initialize"):
                model.initialize(self._arguments(spec))
        except (Exception, SystemExit) as error:  # the model's own code may raise anything
            raise InternalError(f"failed to initialize model instance '{spec.name}': {describe_load(error)}") from error
        return PythonInstance(model, spec.name, self._context)

    def _arguments(self, spec: InstanceSpec) -> dict[str, str]:
        """Triton's arguments to ``initialize``; all of them are text, and the repository is the model's directory."""
        return {
            "model_config": self._context.config_json,
            "model_instance_kind": spec.kind.name,
            "model_instance_name": spec.name,
            "model_instance_device_id": str(spec.device_id),
            "model_repository": str(self._context.files.model_dir),
            "model_version": str(self._context.spec.version),
            "model_name": self._context.spec.name,
        }

    def close(self) -> None:
        """Nothing is shared between instances."""


class PythonInstance:
    """One object of the model's class, and the event loop that its coroutines run on.

    Args:
        model: the object, initialized.
        name: the instance's name.
        context: what the model was loaded with.
    """

    def __init__(self, model: Any, name: str, context: LoadContext) -> None:
        spec = context.spec
        self._model = model
        self._execute = model.execute
        self._name = name
        self._bf16 = frozenset(tensor.name for tensor in spec.all_inputs if tensor.datatype is DataType.BF16)
        self._collector = Collector(spec.name, {tensor.name: tensor.datatype for tensor in spec.all_outputs})
        self._decoupled = spec.decoupled
        self._runner: asyncio.Runner | None = None
        self._closed = False

    def execute(self, batch: ModelBatch, room: OutputRoom) -> BatchResult:
        """Call the model's ``execute`` with the batch's requests.

        Raises:
            ModelError: it raised, or did not return one response for each request.
        """
        served = ServedBatch(self._bf16, batch.control, self._collector.result)
        requests = split(batch, served)
        if self._decoupled:
            return self._execute_decoupled(requests, served)
        try:
            responses = self._execute(requests)
            if type(responses) is not list and isinstance(responses, Coroutine):
                responses = self._run(responses)
        except (Exception, SystemExit) as error:  # the model's own code may raise anything
            log(error)
            failure = self._failure(describe(error))
            if served.answers is not None:
                return served.settle_failed(failure, len(requests))
            raise failure from error
        if served.answers is not None:
            return self._settle(responses, requests, served)
        if self._check(responses, requests):
            return self._collector.collect_some(responses)
        return self._collector.collect(responses, batch, room)

    def _execute_decoupled(self, requests: list[ServedRequest], served: ServedBatch) -> BatchResult:
        """The same in a decoupled model, which sends all responses itself, now or later."""
        answers = [served.decoupled_answers(place) for place in range(len(requests))]
        for request, answer in zip(requests, answers, strict=True):
            request.answer_through(answer)
        try:
            returned = self._execute(requests)
            if isinstance(returned, Coroutine):
                returned = self._run(returned)
        except (Exception, SystemExit) as error:  # the model's own code may raise anything
            log(error)
            raise self._end_decoupled(answers, describe(error)) from error
        if returned is not None:
            text = f"Python model '{self._name}' is using the decoupled mode and the execute function must return None."
            raise self._end_decoupled(answers, text)
        again = _again(requests)
        for answer, runs_again in zip(answers, again, strict=True):
            if runs_again:
                answer.close()
        return BatchResult(per_request=[RequestResult({}, rescheduled=one) for one in again])

    def _end_decoupled(self, answers: list[DecoupledAnswers], text: str) -> ModelError:
        """The error of all requests that have not got their final response; nothing more can be sent to them."""
        for answer in answers:
            answer.close()
        return self._failure(text)

    def _settle(self, responses: Any, requests: list[ServedRequest], served: ServedBatch) -> BatchResult:
        """The result of a batch in which response senders were asked for."""
        if responses is None:
            responses = [None] * len(requests)
        if not isinstance(responses, list) or len(responses) != len(requests):
            self._check(responses, requests)
        again, answers = _again(requests), served.answers or {}
        for place, response in enumerate(responses):
            answer = answers.get(place)
            if again[place] or answer is None or not (answer.sent or response is None):
                self._check([response], [requests[place]])
        return served.settle(responses, again)

    def _run(self, coroutine: Any) -> Any:
        """Run a coroutine to its end, on a loop that is kept so that what the model starts there lives on."""
        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner.run(coroutine)

    def _check(self, responses: Any, requests: list[ServedRequest]) -> bool:
        """Check what ``execute`` returned; whether some of the requests are to run again."""
        if type(responses) is not list and not isinstance(responses, list):
            raise self._failure(f"Expected a list in the execute return, found type '{type(responses)}'.")
        if len(responses) != len(requests):
            raise self._failure(
                "Number of InferenceResponse objects do not match the number of InferenceRequest objects. "
                f"InferenceRequest(s) size is:{len(requests)}, and InferenceResponse(s) size is:{len(responses)}\n"
            )
        some_again = False
        for response, request in zip(responses, requests, strict=True):
            if request._release_flags != TRITONSERVER_REQUEST_RELEASE_ALL:  # noqa: SLF001 - as in ``Collector``
                some_again = True
                if response is not None:  # the misspelled word is Triton's
                    raise self._failure(
                        "Expected a None object in the execute function return list for reschduled request, "
                        f"found type '{type(response)}'."
                    )
            elif not isinstance(response, InferenceResponse):
                raise self._failure(
                    "Expected an 'InferenceResponse' object in the execute function return list, "
                    f"found type '{type(response)}'."
                )
        return some_again

    def _failure(self, text: str) -> ModelError:
        return ModelError(f"Failed to process the request(s) for model '{self._name}', message: {text}")

    def close(self) -> None:
        """Call the model's ``finalize``; what it raises is logged."""
        if self._closed:
            return
        self._closed = True
        try:
            if hasattr(self._model, "finalize"):
                self._model.finalize()
        except (Exception, SystemExit) as error:  # the model's own code may raise anything
            log(error)
        if self._runner is not None:
            self._runner.close()


def _again(requests: list[ServedRequest]) -> list[bool]:
    """Which requests the model wants to see again."""
    return [request._release_flags != TRITONSERVER_REQUEST_RELEASE_ALL for request in requests]  # noqa: SLF001
