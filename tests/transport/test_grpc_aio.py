"""gRPC with ``grpc.aio`` as the client."""

import asyncio

import grpc
import grpc.aio

from tests.transport.http1_support import TIMEOUT_S
from tests.transport.http2_support import serve_http2


def test_calls_and_streams(loop_kind: str) -> None:
    async def run(port: int) -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            unary = channel.unary_unary("/echo.Echo/Unary")
            answers = await asyncio.gather(*[unary(b"%d" % number, timeout=TIMEOUT_S) for number in range(200)])
            assert answers == [b"%d" % number for number in range(200)]
            stream = channel.stream_stream("/echo.Echo/Stream")(timeout=TIMEOUT_S)
            for number in range(20):
                await stream.write(b"%d" % number)
                assert await stream.read() == b"%d" % number
            await stream.done_writing()
            assert await stream.read() == grpc.aio.EOF
            assert await stream.code() == grpc.StatusCode.OK

    with serve_http2(loop_kind) as server:
        asyncio.run(run(server.port))


def test_cancelling_a_stream(loop_kind: str) -> None:
    async def run(port: int) -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stream = channel.stream_stream("/echo.Echo/Stream")(timeout=TIMEOUT_S)
            await stream.write(b"x")
            assert await stream.read() == b"x"
            stream.cancel()
            assert await stream.code() == grpc.StatusCode.CANCELLED

    with serve_http2(loop_kind) as server:
        asyncio.run(run(server.port))
        handler = server.context.grpc
        server.until(lambda: handler.cancelled_calls == handler.calls[:1])
