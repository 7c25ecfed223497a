"""gRPC with grpcio as the client, over real sockets and both event loops."""

import threading
from collections.abc import Iterator

import grpc
import pytest

from shoal.transport.connection import Limits
from tests.transport.http1_support import TIMEOUT_S, Server
from tests.transport.http2_support import EchoCalls, serve_http2

UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
SIZES = [0, 1, 4, 5, 100, 16_383, 16_384, 65_535, 65_536, 70_000, 1 << 20, (2 << 20) + 7, 20 << 20]


def channel_to(server: Server, *options: tuple[str, object]) -> grpc.Channel:
    return grpc.insecure_channel(
        f"127.0.0.1:{server.port}", options=[*UNLIMITED, ("grpc.use_local_subchannel_pool", 1), *options]
    )


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with serve_http2(request.param) as running:
        yield running


@pytest.fixture(scope="module")
def channel(server: Server) -> Iterator[grpc.Channel]:
    with channel_to(server) as open_channel:
        yield open_channel


def pattern(nbytes: int) -> bytes:
    """Bytes that show where a part went missing or was doubled."""
    return b"".join(number.to_bytes(4, "little") for number in range(nbytes // 4 + 1))[:nbytes]


@pytest.mark.parametrize("nbytes", SIZES)
def test_unary_calls_of_every_size(channel: grpc.Channel, nbytes: int) -> None:
    data = pattern(nbytes)
    assert channel.unary_unary("/echo.Echo/Unary")(data, timeout=TIMEOUT_S) == data


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
@pytest.mark.parametrize("nbytes", [size for size in SIZES if size < 2 << 20])
def test_compressed_requests(channel: grpc.Channel, nbytes: int, compression: grpc.Compression) -> None:
    data = pattern(nbytes)
    assert channel.unary_unary("/echo.Echo/Unary")(data, timeout=TIMEOUT_S, compression=compression) == data


def test_a_large_message_is_received_in_the_handlers_buffer(server: Server, channel: grpc.Channel) -> None:
    data = pattern(3 << 20)
    assert channel.unary_unary("/echo.Echo/Unary")(data, timeout=TIMEOUT_S) == data
    first, buffer = server.listener.context.grpc.buffers[-1]
    assert first == data[:16]
    assert bytes(buffer) == data


def test_bidirectional_streams(channel: grpc.Channel) -> None:
    sent = [pattern(size) for size in (0, 1, 70_000, 3, 200_000, 16_384)]
    assert list(channel.stream_stream("/echo.Echo/Stream")(iter(sent), timeout=TIMEOUT_S)) == sent


def test_client_and_server_streams(channel: grpc.Channel) -> None:
    collected = channel.stream_unary("/echo.Echo/Collect")(iter([b"a", b"bc", b""]), timeout=TIMEOUT_S)
    assert collected == b"abc"
    counted = channel.unary_stream("/echo.Echo/Count")(b"1000", timeout=TIMEOUT_S)
    assert list(counted) == [b"%d" % number for number in range(1000)]


def test_a_stream_without_messages(channel: grpc.Channel) -> None:
    assert list(channel.stream_stream("/echo.Echo/Stream")(iter([]), timeout=TIMEOUT_S)) == []


def failure(channel: grpc.Channel, method: str, data: bytes = b"", **options: object) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary(f"/echo.Echo/{method}")(data, timeout=TIMEOUT_S, **options)
    return raised.value.code(), raised.value.details()


@pytest.mark.parametrize("text", ["plain", "100% é 漢字\r\n\tend", "", "x" * 4000])
def test_a_status_keeps_its_message(channel: grpc.Channel, text: str) -> None:
    assert failure(channel, "Fail", text.encode()) == (grpc.StatusCode.INVALID_ARGUMENT, text)


def test_calls_that_end_before_their_message(channel: grpc.Channel) -> None:
    assert failure(channel, "Refused", b"x" * 300_000) == (grpc.StatusCode.PERMISSION_DENIED, "not for you")
    assert failure(channel, "Nothing") == (grpc.StatusCode.UNIMPLEMENTED, "no method 'Nothing'")


def test_a_bug_of_the_handler_is_an_internal_error_of_that_call_alone(channel: grpc.Channel) -> None:
    held = channel.stream_stream("/echo.Echo/Stream")
    more = threading.Event()

    def requests() -> Iterator[bytes]:
        yield b"first"
        more.wait(TIMEOUT_S)
        yield b"second"

    answers = held(requests(), timeout=TIMEOUT_S)
    assert next(answers) == b"first"
    assert failure(channel, "Bug") == (grpc.StatusCode.INTERNAL, "internal error")
    more.set()
    assert list(answers) == [b"second"]


def test_metadata(channel: grpc.Channel) -> None:
    metadata = [("plain", "a b"), ("twice", "1"), ("twice", "2"), ("some-bin", b"\0\xff\x10"), ("empty-bin", b"")]
    received = eval(channel.unary_unary("/echo.Echo/Metadata")(b"", timeout=TIMEOUT_S, metadata=metadata))
    assert received["plain"] == "a b"
    assert received["twice"] == "1, 2"
    assert received["some-bin"] == b"\0\xff\x10"
    assert received["empty-bin"] == b""
    assert received["content-type"] == "application/grpc"
    assert not [name for name in received if name.startswith(":")]


def test_many_different_heads(channel: grpc.Channel) -> None:
    """Each inserts into the header table, which empties the memo of heads."""
    call = channel.unary_unary("/echo.Echo/Metadata")
    for number in range(300):
        received = eval(call(b"", timeout=TIMEOUT_S, metadata=[(f"k{number % 7}", f"{number}" * (number % 30))]))
        assert received[f"k{number % 7}"] == f"{number}" * (number % 30)


def test_a_deadline_ends_the_call_on_both_sides(server: Server, channel: grpc.Channel) -> None:
    assert (
        failure_code(channel.unary_unary("/echo.Echo/Held").future(b"x", timeout=0.1))
        == grpc.StatusCode.DEADLINE_EXCEEDED
    )
    handler = server.context.grpc
    call = handler.calls[-1]
    server.until(lambda: call in handler.cancelled_calls)


def failure_code(future: grpc.Future) -> grpc.StatusCode:
    assert future.exception(TIMEOUT_S) is not None
    return future.code()


def test_cancellation_reaches_the_handler_once(server: Server, channel: grpc.Channel) -> None:
    handler = server.context.grpc
    before = len(handler.calls)
    future = channel.unary_unary("/echo.Echo/Held").future(b"x")
    server.until(lambda: len(handler.calls) > before and handler.calls[-1].context)
    call = handler.calls[-1]
    future.cancel()
    server.until(lambda: call in handler.cancelled_calls)


def test_answers_that_come_later_from_the_loop(server: Server, channel: grpc.Channel) -> None:
    handler = server.context.grpc
    before = len(handler.calls)
    futures = [channel.unary_unary("/echo.Echo/Held").future(b"%d" % number) for number in range(50)]
    server.until(lambda: len(handler.calls) == before + 50 and all(call.context for call in handler.calls[before:]))
    server.call(lambda: [call.respond((call.context[0], b"!")) for call in handler.calls[before:]])
    assert [future.result(TIMEOUT_S) for future in futures] == [b"%d!" % number for number in range(50)]


def test_a_thousand_calls_at_once(server: Server, channel: grpc.Channel) -> None:
    call = channel.unary_unary("/echo.Echo/Unary")
    futures = [call.future(pattern(number * 37), timeout=TIMEOUT_S) for number in range(1000)]
    for number, future in enumerate(futures):
        assert future.result(TIMEOUT_S) == pattern(number * 37)
    server.until(lambda: all(connection.in_flight == 0 for connection in server.context.connections))


def test_large_answers_at_once_share_the_connection(channel: grpc.Channel) -> None:
    call = channel.unary_unary("/echo.Echo/Unary")
    data = pattern(3 << 20)
    futures = [call.future(data, timeout=TIMEOUT_S) for _ in range(20)]
    assert all(future.result(TIMEOUT_S) == data for future in futures)


@pytest.mark.parametrize("accepted", [None, "identity"])
def test_responses_are_compressed_where_the_handler_asks_and_the_client_accepts(
    loop_kind: str, accepted: str | None
) -> None:
    options = [] if accepted is None else [("grpc.compression_enabled_algorithms_bitset", 1)]
    with serve_http2(loop_kind, grpc=EchoCalls(compression_level=6)) as server, channel_to(server, *options) as channel:
        data = b"x" * 300_000
        assert channel.unary_unary("/echo.Echo/Unary")(data, timeout=TIMEOUT_S) == data
        streamed = channel.stream_stream("/echo.Echo/Stream")(iter([data, b""]), timeout=TIMEOUT_S)
        assert list(streamed) == [data, b""]


def test_message_limits(loop_kind: str) -> None:
    with serve_http2(loop_kind, limits=Limits(message_nbytes=100_000)) as server, channel_to(server) as channel:
        assert channel.unary_unary("/echo.Echo/Unary")(b"x" * 100_000, timeout=TIMEOUT_S) == b"x" * 100_000
        code, text = failure(channel, "Unary", b"x" * 100_001)
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert text == "Received message larger than max (100001 vs. 100000)"
        code, text = failure(channel, "Unary", b"x" * 3_000_000, compression=grpc.Compression.Gzip)
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "when decompressed" in text


def test_headers_that_are_too_long(loop_kind: str) -> None:
    with serve_http2(loop_kind, limits=Limits(head_nbytes=2000)) as server, channel_to(server) as channel:
        code, _ = failure(channel, "Unary", metadata=[("long", "x" * 2000)])
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert channel.unary_unary("/echo.Echo/Unary")(b"ok", timeout=TIMEOUT_S) == b"ok"


def test_keepalive_pings_are_welcome(loop_kind: str) -> None:
    """Clients that ping as often as grpcio allows, with and without calls, are never told to calm down."""
    options = [
        ("grpc.keepalive_time_ms", 10),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 10),
    ]
    with serve_http2(loop_kind) as server, channel_to(server, *options) as channel:
        call = channel.unary_unary("/echo.Echo/Unary")
        for _ in range(20):
            assert call(b"x", timeout=TIMEOUT_S) == b"x"
        (connection,) = server.context.connections
        server.until(lambda: connection.guard.nuisance >= 10)  # a ping came while there was no call
        assert call(b"x", timeout=TIMEOUT_S) == b"x"
        assert connection in server.context.connections


def test_a_draining_server_answers_what_it_has_and_lets_the_client_go_elsewhere(loop_kind: str) -> None:
    with serve_http2(loop_kind) as server, channel_to(server) as channel:
        handler = server.context.grpc
        future = channel.unary_unary("/echo.Echo/Held").future(b"x")
        server.until(lambda: handler.calls and handler.calls[0].context)
        (connection,) = server.context.connections
        server.call(connection.drain)
        server.until(lambda: connection.refusing)
        server.call(lambda: handler.calls[0].respond((b"in time",)))
        assert future.result(TIMEOUT_S) == b"in time"
        server.until(lambda: connection not in server.context.connections)
        assert channel.unary_unary("/echo.Echo/Unary")(b"again", timeout=TIMEOUT_S, wait_for_ready=True) == b"again"


def test_a_stopping_server_tells_the_handler_of_every_open_call(loop_kind: str) -> None:
    calls = EchoCalls()
    with serve_http2(loop_kind, grpc=calls) as server, channel_to(server) as channel:
        futures = [channel.unary_unary("/echo.Echo/Held").future(b"x") for _ in range(5)]
        server.until(lambda: len(calls.calls) == 5 and all(call.context for call in calls.calls))
        server.call(server.listener.abort)
        assert {failure_code(future) for future in futures} == {grpc.StatusCode.UNAVAILABLE}
    assert len(calls.cancelled_calls) == 5


def test_tls(loop_kind: str) -> None:
    import ssl  # noqa: PLC0415

    import trustme  # noqa: PLC0415

    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    context.set_alpn_protocols(["h2", "http/1.1"])
    credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    with (
        serve_http2(loop_kind, ssl_context=context) as server,
        grpc.secure_channel(f"localhost:{server.port}", credentials, options=UNLIMITED) as channel,
    ):
        for nbytes in (10, 5 << 20):
            data = pattern(nbytes)
            assert channel.unary_unary("/echo.Echo/Unary")(data, timeout=TIMEOUT_S) == data


def test_a_time_limit_of_a_lifetime(channel: grpc.Channel) -> None:
    """The longest that fits the header; no event loop may stumble over it."""
    metadata = [("grpc-timeout", "99999999H")]
    assert channel.unary_unary("/echo.Echo/Unary")(b"x", metadata=metadata) == b"x"
