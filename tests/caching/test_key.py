"""Keys: equal for requests that mean the same, different for all that the answer may depend on."""

from __future__ import annotations

import struct
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from shoal.caching.key import KEY_NBYTES, request_key
from shoal.datatypes import DataType
from shoal.protocols import rest
from shoal.protocols.parameters import SCHEDULING
from shoal.requests import InferHead, InferRequest, InputHead, OutputHead
from shoal.scheduling.admission import plan_raw_request, plan_request, raw_payload
from shoal.testing.strategies import model_specs, sample_requests
from tests.caching.pieces import IDENTITY, SPEC, head_of

FP32, BYTES = DataType.FP32, DataType.BYTES
PARAMETERS = st.dictionaries(
    st.sampled_from(["a", "b", "ab"]),
    st.one_of(st.booleans(), st.integers(0, 3), st.sampled_from([0.0, 1.0, 2.5]), st.sampled_from(["", "1", "True"])),
)


def key(head: InferHead, payload: list[bytes], spec=SPEC, identity=IDENTITY) -> bytes:
    request = InferRequest(plan_request(head, spec, None), payload, None, None, 0)
    made = request_key(request, spec, lambda: identity)
    assert len(made) == KEY_NBYTES
    assert request_key(request, spec, lambda: b"asked once per plan") == made
    return made


def a_input(data: bytes, *shape: int, name: str = "A") -> InputHead:
    return InputHead(name, FP32, shape, len(data))


ONE = head_of(a_input(bytes(8), 1, 2))
BASE = key(ONE, [bytes(8)])


def test_every_byte_counts():
    assert key(ONE, [bytes(7) + b"\x01"]) != BASE


def test_the_shape_counts():
    """Triton 2.51 answers the second of these with the first one's shape."""
    assert key(head_of(a_input(bytes(8), 2, 1)), [bytes(8)]) != BASE


def test_the_name_of_the_input_counts():
    """The same bytes in another input."""
    both = [a_input(bytes(8), 1, 2), a_input(bytes(4), 1, 1, name="C")]
    other = [a_input(bytes(4), 1, 1), a_input(bytes(8), 1, 2, name="C")]
    assert key(head_of(*both), [bytes(8), bytes(4)]) != key(head_of(*other), [bytes(4), bytes(8)])


def test_the_datatype_counts():
    ints = replace(SPEC, inputs=(replace(SPEC.inputs[0], datatype=DataType.INT32), *SPEC.inputs[1:]))
    assert key(head_of(InputHead("A", DataType.INT32, (1, 2), 8)), [bytes(8)], ints) != BASE


def test_elements_of_bytes_do_not_run_into_each_other():
    def words(*elements: bytes) -> bytes:
        data = b"".join(struct.pack("<I", len(one)) + one for one in elements)
        head = InputHead("B", BYTES, (1, len(elements)), len(data))
        return key(head_of(a_input(bytes(4), 1, 1), head), [bytes(4), data])

    assert len({words(b"ab", b"c"), words(b"a", b"bc"), words(b"abc"), words(b"abc", b"")}) == 4


def test_requested_outputs_count_and_how_they_are_encoded_does_not():
    assert key(replace(ONE, outputs=(OutputHead("X"),)), [bytes(8)]) != BASE
    both = replace(ONE, outputs=(OutputHead("X"), OutputHead("Y")))
    assert key(both, [bytes(8)]) == BASE  # the model gives both when none is named
    shown = replace(ONE, outputs=(OutputHead("X", binary=False, classification=2), OutputHead("Y")))
    assert key(shown, [bytes(8)]) == BASE


def test_model_version_and_identity_count():
    assert key(replace(ONE, model_name="other"), [bytes(8)], replace(SPEC, name="other")) != BASE
    assert key(ONE, [bytes(8)], replace(SPEC, version=4)) != BASE
    assert key(ONE, [bytes(8)], identity=b"reloaded".ljust(KEY_NBYTES)) != BASE


@given(PARAMETERS, PARAMETERS)
def test_parameters_count_with_their_types(some, other):
    """1, 1.0, true and "1" are four different things to a model; the order of the names is nothing."""

    def typed(parameters):
        return {name: (type(value), value) for name, value in parameters.items()}

    keys = [key(replace(ONE, parameters=each), [bytes(8)]) for each in (some, other)]
    assert (keys[0] == keys[1]) == (typed(some) == typed(other))
    assert key(replace(ONE, parameters=dict(reversed(some.items()))), [bytes(8)]) == keys[0]


def test_what_only_schedules_does_not_count():
    assert key(replace(ONE, request_id="7"), [bytes(8)]) == BASE
    parameters = {"priority": 1, "timeout": 10}
    assert set(parameters) <= SCHEDULING
    assert key(replace(ONE, parameters=parameters), [bytes(8)]) == BASE


@given(st.data(), model_specs())
def test_any_two_requests_have_the_same_key_only_if_they_are_the_same(data, spec):
    """Over any models and requests: the keys are equal exactly when names, types, shapes, bytes and outputs are."""
    samples = [data.draw(sample_requests(spec)) for _ in range(2)]

    def meaning(sample):
        payload = iter(sample.payload)
        inputs = {
            one.name: (one.datatype, one.shape, next(payload) if one.data is None else one.data)
            for one in sample.head.inputs
        }
        return inputs, plan_request(sample.head, spec, None).outputs

    keys = [key(sample.head, list(sample.payload), spec) for sample in samples]
    assert (keys[0] == keys[1]) == (meaning(samples[0]) == meaning(samples[1]))


def test_json_in_another_order_has_the_same_key():
    one = b'{"inputs":[{"name":"A","shape":[1,2],"datatype":"FP32","data":[1,2]},'
    one += b'{"name":"C","datatype":"FP32","shape":[1,1],"data":[3]}],"parameters":{"x":1,"y":"z"}}'
    other = b'{ "parameters": {"y":"z", "x":1}, "inputs":[ {"shape":[1,1], "data":[3.0],"name":"C","datatype":"FP32"},'
    other += b'{"datatype":"FP32","data":[[1.0,2.0]], "name":"A","shape":[1,2]}]}'
    keys = {key(rest.decode_head(text, "fish", 3), []) for text in (one, other)}
    assert len(keys) == 1


def test_data_in_the_head_and_data_behind_it_have_the_same_key():
    """A JSON client and a binary one share what is kept."""
    data = struct.pack("<2f", 1, 2)
    in_head = head_of(InputHead("A", FP32, (1, 2), 0, data))
    assert key(in_head, []) == key(head_of(a_input(data, 1, 2)), [data])
    views = [memoryview(bytearray(data))]
    assert key(in_head, []) == key(head_of(a_input(data, 1, 2)), views)


def test_a_raw_request_has_the_key_of_the_same_tensor():
    spec = replace(SPEC, inputs=SPEC.inputs[:1])
    head = InferHead("fish", 3, "", (), raw=True)
    plan = plan_raw_request(head, 8, spec, None)
    request = InferRequest(plan, raw_payload(plan, bytes(8)), None, None, 0)
    assert request_key(request, spec, lambda: IDENTITY) == key(ONE, [bytes(8)], spec)
