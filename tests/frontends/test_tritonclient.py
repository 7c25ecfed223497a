"""The official clients, all four of them, against a real server."""

from __future__ import annotations

import asyncio
import queue

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http_client
import tritonclient.http.aio as http_aio
from tritonclient.utils import InferenceServerException

from tests.serving import ShoalProcess

NUMBERS = np.array([[0.5, 1.5, 0.25]], np.float32)
WORDS = np.array([[b"first", "zw\u00f6lf".encode()]], object)
FLAGS = np.array([[True]])


@pytest.fixture(params=["http", "grpc"])
def module(request):
    return {"http": http_client, "grpc": grpc_client}[request.param]


@pytest.fixture
def client(module, shoal):
    client = module.InferenceServerClient(shoal.http if module is http_client else shoal.grpc)
    yield client
    client.close()


def an_input(module, name, array, datatype, **how):
    tensor = module.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array, **how)
    return tensor


def all_inputs(module, **how):
    return [
        an_input(module, "NUMBERS", NUMBERS, "FP32", **how),
        an_input(module, "WORDS", WORDS, "BYTES", **how),
        an_input(module, "FLAGS", FLAGS, "BOOL", **how),
    ]


def test_health_and_metadata(client, module):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("double")
    assert client.is_model_ready("double", "1")
    assert not client.is_model_ready("absent")
    as_dict = {} if module is http_client else {"as_json": True}
    assert client.get_server_metadata(**as_dict)["name"] == "shoal"
    metadata = client.get_model_metadata("double", **as_dict)
    assert metadata["versions"] == ["1"]
    assert [int(dim) for dim in metadata["inputs"][0]["shape"]] == [-1, -1]
    config = client.get_model_config("double", **as_dict)
    config = config.get("config", config)
    assert config["max_batch_size"] == 8
    assert config["input"][0]["data_type"] == "TYPE_FP32"


def test_every_kind_of_tensor_comes_back(client, module):
    result = client.infer("types", all_inputs(module), request_id="r1")
    np.testing.assert_array_equal(result.as_numpy("NUMBERS_OUT"), NUMBERS)
    np.testing.assert_array_equal(result.as_numpy("WORDS_OUT"), WORDS)
    np.testing.assert_array_equal(result.as_numpy("FLAGS_OUT"), FLAGS)
    response = result.get_response()
    assert (response["id"] if module is http_client else response.id) == "r1"


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_json_and_binary_in_every_combination(shoal, binary_in, binary_out):
    with http_client.InferenceServerClient(shoal.http) as client:
        outputs = [
            http_client.InferRequestedOutput(name, binary_data=binary_out)
            for name in ("NUMBERS_OUT", "WORDS_OUT", "FLAGS_OUT")
        ]
        result = client.infer("types", all_inputs(http_client, binary_data=binary_in), outputs=outputs)
        np.testing.assert_array_equal(result.as_numpy("NUMBERS_OUT"), NUMBERS)
        np.testing.assert_array_equal(result.as_numpy("FLAGS_OUT"), FLAGS)
        words = [word if isinstance(word, bytes) else word.encode() for word in result.as_numpy("WORDS_OUT").flat]
        assert words == list(WORDS.flat)


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_compressed_bodies_in_both_directions(shoal, compression):
    with http_client.InferenceServerClient(shoal.http) as client:
        result = client.infer(
            "types",
            all_inputs(http_client),
            request_compression_algorithm=compression,
            response_compression_algorithm=compression,
        )
        np.testing.assert_array_equal(result.as_numpy("NUMBERS_OUT"), NUMBERS)
    with grpc_client.InferenceServerClient(shoal.grpc) as client:
        result = client.infer("types", all_inputs(grpc_client), compression_algorithm=compression)
        np.testing.assert_array_equal(result.as_numpy("WORDS_OUT"), WORDS)


def test_classification_with_labels(client, module):
    wanted = module.InferRequestedOutput("NUMBERS_OUT", class_count=2)
    result = client.infer("types", [an_input(module, "NUMBERS", NUMBERS, "FP32")], outputs=[wanted])
    assert result.as_numpy("NUMBERS_OUT").tolist() == [[b"1.500000:1:one", b"0.500000:0:zero"]]


def test_only_the_requested_outputs_come_back(client, module):
    wanted = [module.InferRequestedOutput("FLAGS_OUT")]
    result = client.infer("types", all_inputs(module), outputs=wanted)
    assert result.as_numpy("NUMBERS_OUT") is None
    np.testing.assert_array_equal(result.as_numpy("FLAGS_OUT"), FLAGS)


def test_parameters_reach_the_model_and_come_back(client, module):
    result = client.infer(
        "parameters", [an_input(module, "IN", NUMBERS, "FP32")], request_id="seven", parameters={"colour": "red"}
    )
    response = result.get_response()
    if module is http_client:
        seen = response["parameters"]
        assert seen["id"] == "seven"
        assert '"colour": "red"' in seen["seen"] or '"colour":"red"' in seen["seen"]
    else:
        assert response.parameters["id"].string_param == "seven"
        assert "red" in response.parameters["seen"].string_param


@pytest.mark.parametrize(
    ("model", "array", "said"),
    [
        ("absent", NUMBERS, "unknown model: 'absent' is not found"),
        ("double", NUMBERS[:, :, None], "unexpected shape for input 'IN'"),
        ("double", np.ones((9, 2), np.float32), "must be <= 8 for 'double'"),
        ("refusing", -NUMBERS, "negative numbers are refused"),
        ("refusing", np.full((1, 1), 99, np.float32), "ninety-nine"),
    ],
)
def test_errors_name_what_is_wrong(client, module, model, array, said):
    array = np.where(array == 0, -1, array).astype(np.float32) if model == "refusing" else array
    with pytest.raises(InferenceServerException, match=said):
        client.infer(model, [an_input(module, "IN", array, "FP32")])
    assert client.is_server_live()


def test_a_request_that_fails_does_not_take_others_of_its_batch_with_it(client, module):
    results = queue.SimpleQueue()
    tensors = [np.full((1, 1), value, np.float32) for value in (1, -1, 2, -2, 3)]
    if module is http_client:
        client = http_client.InferenceServerClient(client._parsed_url.netloc, concurrency=5)
    pending = []
    for tensor in tensors:
        if module is http_client:
            pending.append(client.async_infer("refusing", [an_input(module, "IN", tensor, "FP32")]))
        else:
            inputs = [an_input(module, "IN", tensor, "FP32")]
            client.async_infer("refusing", inputs, callback=lambda result, error: results.put((result, error)))
    if module is http_client:
        for one, tensor in zip(pending, tensors, strict=True):
            if tensor[0, 0] < 0:
                with pytest.raises(InferenceServerException, match="negative"):
                    one.get_result()
            else:
                np.testing.assert_array_equal(one.get_result().as_numpy("OUT"), tensor)
        client.close()
    else:
        answers = [results.get(timeout=10) for _ in tensors]
        assert sorted(float(result.as_numpy("OUT")[0, 0]) for result, error in answers if error is None) == [1, 2, 3]
        assert ["negative" in str(error) for _, error in answers if error is not None] == [True, True]


def test_large_tensors(client, module):
    array = np.random.default_rng(1).random((4, 300_000), np.float32)
    for _ in range(3):
        result = client.infer("double", [an_input(module, "IN", array, "FP32")])
        np.testing.assert_array_equal(result.as_numpy("OUT"), array * 2)


def test_statistics_count_what_happened(client, module):
    as_dict = {} if module is http_client else {"as_json": True}

    def successes():
        stats = client.get_inference_statistics("unbatched", **as_dict)["model_stats"][0]
        return int(stats["inference_stats"]["success"].get("count", 0))

    before = successes()
    for _ in range(3):
        client.infer("unbatched", [an_input(module, "IN", np.ones(4, np.float32), "FP32")])
    assert successes() == before + 3


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_asyncio_clients(shoal, protocol):
    async def main():
        module, address = (http_aio, shoal.http) if protocol == "http" else (grpc_aio, shoal.grpc)
        base = http_client if protocol == "http" else grpc_client
        async with module.InferenceServerClient(address) as client:
            assert await client.is_server_ready()
            arrays = [np.full((1, 3), value, np.float32) for value in range(32)]
            results = await asyncio.gather(
                *(client.infer("double", [an_input(base, "IN", array, "FP32")]) for array in arrays)
            )
            for array, result in zip(arrays, results, strict=True):
                np.testing.assert_array_equal(result.as_numpy("OUT"), array * 2)

    asyncio.run(main())


def test_a_grpc_stream_answers_in_order_and_survives_errors(shoal):
    answers = []
    with grpc_client.InferenceServerClient(shoal.grpc) as client:
        client.start_stream(lambda result, error: answers.append((result, error)))
        for value in (1, -1, 2, 3):
            tensor = an_input(grpc_client, "IN", np.full((1, 1), value, np.float32), "FP32")
            client.async_stream_infer("refusing", [tensor], request_id=str(value))
        client.stop_stream()
    assert len(answers) == 4
    values = [None if error else float(result.as_numpy("OUT")[0, 0]) for result, error in answers]
    assert values == [1.0, None, 2.0, 3.0]
    assert "negative" in str(answers[1][1])
    assert answers[0][0].get_response().parameters["triton_final_response"].bool_param


def test_a_stream_without_requests_does_not_hold_the_server_up(repository):
    with ShoalProcess(repository, "--exit-timeout-secs=20") as process:
        ended = queue.SimpleQueue()
        with grpc_client.InferenceServerClient(process.grpc) as client:
            client.start_stream(lambda result, error: ended.put((result, error)))
            tensor = an_input(grpc_client, "IN", NUMBERS, "FP32")
            client.async_stream_infer("double", [tensor])
            result, error = ended.get(timeout=10)
            assert error is None
            np.testing.assert_array_equal(result.as_numpy("OUT"), NUMBERS * 2)
            assert process.stop() == 0
            _, error = ended.get(timeout=10)
            assert "shutting down" in str(error)
