"""What options must be together."""

import pytest

from shoal.options import OptionError, ServerOptions, check_options

SAME = "The server cannot listen to {} requests and {} requests at the same address and port {}"


def problems(**options):
    with pytest.raises(OptionError) as caught:
        check_options(ServerOptions(**{"model_repository": ("m",), **options}))
    return caught.value.message.splitlines()


def test_a_repository_is_needed():
    assert problems(model_repository=()) == [
        "--model-repository must be specified: the folder with the models to serve"
    ]


@pytest.mark.parametrize(
    ("options", "names", "place"),
    [
        ({"grpc_port": 8000}, ("HTTP", "GRPC"), "0.0.0.0:8000"),
        ({"metrics_port": 8000}, ("HTTP", "metrics"), "0.0.0.0:8000"),
        ({"metrics_port": 8001}, ("GRPC", "metrics"), "0.0.0.0:8001"),
        ({"grpc_port": 8000, "http_address": "127.0.0.1"}, ("HTTP", "GRPC"), "127.0.0.1:8000"),
    ],
)
def test_two_services_cannot_share_an_address(options, names, place):
    """In the words of the real server; one that listens everywhere also takes the port of one that does not."""
    (problem,) = problems(**options)
    assert problem.startswith(SAME.format(*names, place) + "; change --")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"grpc_port": 8000, "allow_http": False},
        {"grpc_port": 8000, "http_address": "127.0.0.1", "grpc_address": "127.0.0.2"},
        {"http_port": 0, "grpc_port": 0, "metrics_port": 0},
        {"port": 8001, "http_port": 8001, "grpc_port": 8001},
        {"http_use_ssl": True, "http_server_cert": "c", "http_server_key": "k"},
        {"grpc_use_ssl_mutual": True, "grpc_server_cert": "c", "grpc_server_key": "k", "grpc_root_cert": "r"},
    ],
)
def test_what_goes_together(options):
    check_options(ServerOptions(model_repository=("m",), **options))


def test_tls_needs_a_certificate_and_its_key():
    assert problems(http_use_ssl=True, http_server_cert="c") == [
        "--http-use-ssl needs --http-server-cert and --http-server-key"
    ]
    assert problems(grpc_use_ssl=True) == ["--grpc-use-ssl needs --grpc-server-cert and --grpc-server-key"]
    assert problems(grpc_use_ssl_mutual=True, grpc_server_cert="c", grpc_server_key="k") == [
        "--grpc-use-ssl-mutual needs --grpc-root-cert"
    ]


def test_one_port_has_one_tls():
    found = problems(port=1, grpc_use_ssl=True, grpc_server_cert="c", grpc_server_key="k")
    assert found == ["--grpc-use-ssl does not go with --port: the one port has the TLS of --http-use-ssl"]


def test_all_problems_are_named_at_once():
    assert len(problems(model_repository=(), grpc_port=8000, http_use_ssl=True)) == 3
