"""Checks that a backend keeps its contract (``shoal.backends.contract``); for authors of backends.

A test gives a model and a few requests to it, and ``check_backend`` does the rest::

    def test_my_backend_keeps_the_contract(tmp_path):
        model_dir = make_a_model(tmp_path)
        requests = [{"x": np.ones((1, 4), np.float32)}, {"x": np.zeros((3, 4), np.float32)}]
        check_backend(MyBackend({}), model_dir, Cases(requests, failing={"x": np.full((1, 4), np.nan, np.float32)}))

``check_datatypes`` does so for the element types, with models that return what they are given. The requests of a model
with controls or states (``sequence_batching``) hold those too, as inputs like any other. All failures are
``AssertionError`` with a sentence that says which rule was broken.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shoal.backends.contract import Array, Backend, Instance, ModelFiles, OutputRoom, RequestInfo
from shoal.config.render import config_to_json
from shoal.datatypes import DataType
from shoal.testing.backend_harness import Loaded, NoRoom, PlentyOfRoom, Tensors, load, run

_CONCURRENT_ROUNDS = 20
_CONCURRENT_INSTANCES = 3
_JOIN_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Cases:
    """The requests to check a backend with.

    Attributes:
        requests: requests that may share a batch, batch dimension included when the model has one; rows may differ.
        expected: the outputs of each request; when left out, what the model answers to it alone is taken as right.
        failing: a request that fits the configuration, but with which the model fails.
    """

    requests: Sequence[Tensors]
    expected: Sequence[Tensors] = ()
    failing: Tensors | None = None


def check_backend(backend: Backend, model_dir: Path, cases: Cases) -> None:
    """Check a backend with one model: every rule of the contract that does not depend on element types.

    Args:
        backend: the backend.
        model_dir: the folder of a model for it.
        cases: requests to the model.

    Raises:
        AssertionError: a rule is broken; the message says which.
    """
    check_completing_again_changes_nothing(backend, model_dir)
    loaded = load(backend, model_dir)
    instance = loaded.instance()
    expected = check_single_requests(loaded, instance, cases)
    check_batches(loaded, instance, cases.requests, expected)
    check_chosen_outputs(loaded, instance, cases.requests[0], expected[0])
    if cases.failing is not None:
        check_failure_is_contained(loaded, instance, cases, expected)
    instance.close()
    check_concurrent_instances(loaded, cases.requests, expected)
    check_closing_twice(loaded, instance)


def check_completing_again_changes_nothing(backend: Backend, model_dir: Path) -> None:
    """A completed configuration is complete."""
    loaded = load(backend, model_dir)
    again = type(loaded.config)()
    again.CopyFrom(loaded.config)
    backend.complete(again, ModelFiles(model_dir.parent, model_dir, model_dir / str(loaded.spec.version)))
    loaded.model.close()
    assert config_to_json(again) == config_to_json(loaded.config), "complete changed a configuration that was complete"
    assert json.loads(config_to_json(again))["input"], "complete left the inputs open"
    assert json.loads(config_to_json(again))["output"], "complete left the outputs open"


def check_single_requests(loaded: Loaded, instance: Instance, cases: Cases) -> list[Tensors]:
    """Each request alone is answered right, with and without room for outputs.

    Returns:
        The right outputs of each request.
    """
    expected = list(cases.expected) or [_copies(_succeeded(loaded, instance, [r], NoRoom())[0]) for r in cases.requests]
    for request, outputs in zip(cases.requests, expected, strict=True):
        assert set(outputs) == set(loaded.outputs), f"outputs {sorted(outputs)}, configured {sorted(loaded.outputs)}"
        for room in (NoRoom(), PlentyOfRoom()):
            before = _copies(request)
            _assert_same(_succeeded(loaded, instance, [request], room)[0], outputs, "a request alone")
            _assert_same(request, before, "the inputs after execute")
    return expected


def check_batches(loaded: Loaded, instance: Instance, requests: Sequence[Tensors], expected: Sequence[Tensors]) -> None:
    """Requests in one batch are answered as each is alone, in every order and with and without room."""
    if loaded.spec.max_batch_size == 0:
        return
    order = list(range(len(requests)))
    for indices in (order, order[::-1], order + order):
        for room in (NoRoom(), PlentyOfRoom()):
            found = _succeeded(loaded, instance, [requests[index] for index in indices], room)
            for index, outputs in zip(indices, found, strict=True):
                _assert_same(outputs, expected[index], f"request {index} in a batch of {len(indices)}")


def check_chosen_outputs(loaded: Loaded, instance: Instance, request: Tensors, expected: Tensors) -> None:
    """A request that asks for some outputs gets at least these, and states always; more are dropped by the server."""
    for name in loaded.public:
        batch = loaded.batch([request])
        batch.requests = [RequestInfo(outputs=(name,))]
        result = instance.execute(batch, NoRoom())
        outputs = result.gathered if result.gathered is not None else (result.per_request or [])[0].outputs
        assert name in outputs, f"output '{name}' was asked for and is missing"
        assert loaded.states <= set(outputs), f"states {sorted(loaded.states - set(outputs))} are missing"
        _assert_same({name: outputs[name]}, {name: expected[name]}, "an output asked for alone")


def check_failure_is_contained(loaded: Loaded, instance: Instance, cases: Cases, expected: Sequence[Tensors]) -> None:
    """A request that fails says so, and the instance goes on; nothing of it stays behind."""
    assert cases.failing is not None
    for _ in range(2):
        assert _message_of_failure(loaded, instance, cases.failing), "an error needs a message"
        outputs = _succeeded(loaded, instance, [cases.requests[0]], NoRoom())[0]
        _assert_same(outputs, expected[0], "a request after one that failed")


def _message_of_failure(loaded: Loaded, instance: Instance, request: Tensors) -> str:
    try:
        results = run(loaded, instance, [request], PlentyOfRoom())
    except AssertionError:
        raise
    except Exception as error:  # the contract lets a backend raise anything
        return str(error)
    assert results[0].error is not None, "the failing request succeeded"
    return results[0].error.message


def check_concurrent_instances(loaded: Loaded, requests: Sequence[Tensors], expected: Sequence[Tensors]) -> None:
    """Several instances, each in its own thread, answer right at the same time."""
    failures: list[BaseException] = []

    def serve(number: int) -> None:
        try:
            instance = loaded.instance(number + 1)
            for _ in range(_CONCURRENT_ROUNDS):
                for request, outputs in zip(requests, expected, strict=True):
                    found = _succeeded(loaded, instance, [request], PlentyOfRoom())[0]
                    _assert_same(found, outputs, f"a request in instance {number}")
            instance.close()
        except BaseException as error:  # raised again where the test sees it
            failures.append(error)

    threads = [threading.Thread(target=serve, args=(number,), daemon=True) for number in range(_CONCURRENT_INSTANCES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_JOIN_TIMEOUT_S)
        assert not thread.is_alive(), f"an instance did not finish within {_JOIN_TIMEOUT_S} s"
    if failures:
        raise failures[0]


def check_closing_twice(loaded: Loaded, instance: Instance) -> None:
    """Closing what is closed does nothing, and nothing goes wrong."""
    instance.close()
    loaded.model.close()
    loaded.model.close()


def check_datatypes(
    backend: Backend, identity: Callable[[DataType], Path], datatypes: Iterable[DataType] = tuple(DataType)
) -> None:
    """Check that tensors of each type pass unchanged: extreme values, no elements, one element, many.

    Args:
        backend: the backend.
        identity: makes a model for a type and gives its folder; it takes batches, has one input and one output of
            that type with ``dims: [-1]``, and returns what it is given.
        datatypes: the types that the backend supports.
    """
    for datatype in datatypes:
        loaded = load(backend, identity(datatype))
        instance = loaded.instance()
        (source,), (target,) = loaded.spec.inputs, loaded.spec.outputs
        assert source.datatype is datatype, f"the model for {datatype} has an input of {source.datatype}"
        assert target.datatype is datatype, f"the model for {datatype} has an output of {target.datatype}"
        for shape in ((1, 1), (1, 0), (2, 3), (3, 1000)):
            array = sample(datatype, shape)
            for room in (NoRoom(), PlentyOfRoom()):
                outputs = _succeeded(loaded, instance, [{source.name: array}], room)[0]
                _assert_same(outputs, {target.name: array}, f"{datatype} of shape {shape}")
        instance.close()
        loaded.model.close()


def sample(datatype: DataType, shape: tuple[int, ...]) -> Array:
    """An array of a type with its extreme values in it; BYTES with empty elements, zeros and text beyond ASCII."""
    count = int(np.prod(shape))
    if datatype is DataType.BYTES:
        array = np.empty(count, dtype=object)
        array[:] = [(b"", b"a", "\u00e9\u6c34".encode(), b"x\0y", b"z" * 300)[index % 5] for index in range(count)]
        return array.reshape(shape)
    if datatype is DataType.BF16:
        values = [0x0000, 0x8000, 0x3F80, 0xFF80, 0x7F7F]
        return np.resize(np.array(values, np.uint16), count).reshape(shape)
    dtype = np.dtype(datatype.numpy)
    extremes: list[float]
    if datatype is DataType.BOOL:
        extremes = [True, False]
    elif dtype.kind == "f":
        extremes = [0.0, -0.0, float(np.finfo(dtype).max), float(np.finfo(dtype).tiny), float("-inf")]
    else:
        extremes = [int(np.iinfo(dtype).min), 0, 1, int(np.iinfo(dtype).max)]
    return np.resize(np.array(extremes, dtype), count).reshape(shape)


def _succeeded(loaded: Loaded, instance: Instance, requests: Sequence[Tensors], room: OutputRoom) -> list[Tensors]:
    """The outputs of requests that must all succeed, their types checked against the configuration."""
    results = run(loaded, instance, requests, room)
    types = {tensor.name: np.dtype(tensor.datatype.numpy or "u2") for tensor in loaded.spec.all_outputs}
    for result in results:
        assert result.error is None, f"a request that should succeed failed: {result.error}"
        for name, array in result.outputs.items():
            assert name in types, f"output '{name}' is not in the configuration"
            text = types[name].hasobject and array.dtype.kind in "OS"
            assert text or array.dtype == types[name], f"output '{name}' has dtype {array.dtype}, not {types[name]}"
    return [result.outputs for result in results]


def _copies(tensors: Tensors) -> dict[str, Array]:
    return {name: array.copy() for name, array in tensors.items()}


def _assert_same(found: Tensors, expected: Tensors, what: str) -> None:
    assert set(found) == set(expected), f"{what}: tensors {sorted(found)}, expected {sorted(expected)}"
    for name, array in found.items():
        other = expected[name]
        assert array.shape == other.shape, f"{what}: '{name}' has shape {array.shape}, expected {other.shape}"
        same = _bytes(array) == _bytes(other) if other.dtype.kind in "OS" else _close(array, other)
        assert same, f"{what}: '{name}' is {array!r}, expected {other!r}"


def _close(array: Array, other: Array) -> bool:
    """Floating point may differ in the last places between batch sizes; everything else must be equal."""
    if array.dtype.kind == "f":
        return bool(np.allclose(array, other, rtol=10 * float(np.finfo(array.dtype).eps), atol=1e-6, equal_nan=True))
    return bool(np.array_equal(array, other))


def _bytes(array: Array) -> list[bytes]:
    return [e if isinstance(e, bytes) else str(e).encode() for e in array.reshape(-1).tolist()]
