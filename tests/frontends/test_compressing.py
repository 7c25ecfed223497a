"""Compression of responses: long bodies on threads, short ones at once, and no answer out of its order or lost."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import socket
import threading
import zlib

import pytest

from shoal.frontends import compressing
from shoal.frontends.compressing import AT_ONCE_NBYTES, MOST_UNDER_WAY, ResponseCompressor
from shoal.protocols import compression
from tests.clients import HttpConnection, body_of, infer, tensor
from tests.execution.models import write_model
from tests.in_process import ServingThread

LONG = [os.urandom(AT_ONCE_NBYTES // 2), b"\0" * AT_ONCE_NBYTES]


class Answers(list):
    """Encodings and bodies as they are sent."""

    def __init__(self) -> None:
        self._sent = asyncio.Event()

    def send(self, encoding, parts):
        self.append((encoding, b"".join(parts)))
        self._sent.set()

    async def wait_for(self, count):
        while len(self) < count:
            self._sent.clear()
            await self._sent.wait()


def send(compressor, body, answers):
    compressor.send("gzip", body, answers.send)


def test_a_short_body_is_compressed_at_once():
    answers = Answers()
    send(ResponseCompressor(), [b"ab", b"c" * 100], answers)
    assert [(encoding, gzip.decompress(body)) for encoding, body in answers] == [("gzip", b"ab" + b"c" * 100)]


def test_a_long_body_is_compressed_on_another_thread(monkeypatch):
    threads = []
    compress = compression.compress

    def watched(encoding, body):
        threads.append(threading.current_thread())
        return compress(encoding, body)

    monkeypatch.setattr(compressing.compression, "compress", watched)

    async def main():
        answers = Answers()
        send(ResponseCompressor(), LONG, answers)
        assert answers == []
        await answers.wait_for(1)
        return answers

    ((encoding, body),) = asyncio.run(main())
    assert (encoding, gzip.decompress(body)) == ("gzip", b"".join(LONG))
    assert threading.main_thread() not in threads


def test_what_no_thread_is_left_for_is_sent_as_it_is():
    async def main():
        compressor, answers, extra = ResponseCompressor(), Answers(), Answers()
        for _ in range(MOST_UNDER_WAY):
            send(compressor, LONG, answers)
        send(compressor, LONG, extra)
        assert extra == [(None, b"".join(LONG))]
        await answers.wait_for(MOST_UNDER_WAY)
        send(compressor, LONG, extra)
        await extra.wait_for(2)
        assert extra[1][0] == "gzip"

    asyncio.run(main())


def test_a_body_that_cannot_be_compressed_is_sent_as_it_is(monkeypatch):
    def fail(encoding, body):
        raise MemoryError

    monkeypatch.setattr(compressing.compression, "compress", fail)

    async def main():
        answers = Answers()
        send(ResponseCompressor(), LONG, answers)
        await answers.wait_for(1)
        assert answers == [(None, b"".join(LONG))]

    asyncio.run(main())


@pytest.fixture(scope="module")
def shoal(tmp_path_factory):
    repository = tmp_path_factory.mktemp("models")
    write_model(repository, "double")
    with ServingThread(repository) as shoal:
        yield shoal


def row_of(count, value):
    return tensor("IN", [1, count], [value] * count)


@pytest.mark.parametrize(("encoding", "wbits"), [("gzip", 31), ("deflate", 15)])
def test_a_long_answer_is_the_same_compressed(shoal, encoding, wbits):
    reply = infer(shoal.http, "double", row_of(50_000, 1.5), headers={"Accept-Encoding": encoding})
    assert reply.headers["content-encoding"] == encoding
    assert json.loads(zlib.decompress(reply.body, wbits))["outputs"][0]["data"] == [3.0] * 50_000


def test_a_short_answer_waits_for_the_long_one_before_it(shoal):
    """HTTP/1.1 answers leave in the order of the requests, also when the first one is still being compressed."""
    wanted = [(60_000, {"Accept-Encoding": "gzip"}), (1, {}), (60_000, {"Accept-Encoding": "gzip"}), (2, {})]
    data = b""
    for count, headers in wanted:
        body, _ = body_of(row_of(count, 2.0))
        lines = [f"{name}: {value}" for name, value in {"Host": "x", "Content-Length": len(body), **headers}.items()]
        data += "\r\n".join(["POST /v2/models/double/infer HTTP/1.1", *lines, "", ""]).encode() + body
    with HttpConnection(shoal.http) as client:
        sock = client.connection.sock
        assert isinstance(sock, socket.socket)
        threading.Thread(target=sock.sendall, args=(data,)).start()
        for count, headers in wanted:
            response = http_answer(sock)
            body = gzip.decompress(response) if headers else response
            assert json.loads(body)["outputs"][0]["shape"] == [1, count]


def http_answer(sock):
    """The body of the next response on the connection, read byte for byte where its head is."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    body = b""
    while len(body) < length:
        body += sock.recv(length - len(body))
    return body


def test_a_client_that_leaves_while_its_answer_is_compressed_harms_nobody(shoal):
    body, _ = body_of(row_of(100_000, 2.0))
    lines = [
        "POST /v2/models/double/infer HTTP/1.1",
        "Host: x",
        "Accept-Encoding: gzip",
        f"Content-Length: {len(body)}",
    ]
    head = "\r\n".join([*lines, "", ""])
    host, _, port = shoal.http.rpartition(":")
    for _ in range(5):
        with socket.create_connection((host, int(port))) as sock:
            sock.sendall(head.encode() + body)
    assert infer(shoal.http, "double", row_of(3, 1.0)).json["outputs"][0]["data"] == [2.0] * 3
